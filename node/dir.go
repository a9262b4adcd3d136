package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// dir is the daemon's state directory.
type dir string

func (d dir) path(el ...string) string { return filepath.Join(append([]string{string(d)}, el...)...) }

const maxStateFile = 4 << 20

// lock takes the directory for this process; the lock goes with the returned file.
func (d dir) lock() (*os.File, error) {
	f, err := os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the state directory %s cannot be used", d).Because(err).
			WithNext("check that it exists and belongs to this user")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, problem.New(problem.Locked, "another meshd uses %s", d).WithDone("nothing was started").WithNext("stop it first, or give this one a state directory of its own")
	}
	return f, nil
}

func readJSON(name string, v any) error {
	b, err := durable.ReadFile(name, maxStateFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func writeJSON(name string, v any, perm os.FileMode) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(name, b, perm)
}

// create makes the directories.
func (d dir) create() error {
	for _, sub := range []string{"", "policies", "orders", "grants", "bundles", "outbox", "receipts", "chunks"} {
		if err := os.MkdirAll(d.path(sub), 0o750); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what interrupted writes left.
func (d dir) sweep() error {
	var errs []error
	for _, sub := range []string{"", "policies", "orders", "grants", "bundles", "outbox", "receipts"} {
		errs = append(errs, durable.Sweep(d.path(sub)))
	}
	return errors.Join(errs...)
}

// identity reads the node's key.
func (d dir) identity() (crypto.PrivKey, error) {
	b, err := os.ReadFile(d.path("identity.key"))
	if err != nil {
		return nil, err
	}
	return crypto.UnmarshalPrivateKey(b)
}

func (d dir) enrolment() (*enrol.Enrolment, error) {
	e := new(enrol.Enrolment)
	if err := readJSON(d.path("enrolment.json"), e); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, problem.New(problem.NotFound, "this node has not joined a site").
				WithNext("ask for a token (meshctl site token SITE) and run: meshd join TOKEN")
		}
		return nil, err
	}
	return e, e.Validate()
}

// record is state.json: facts that must survive, and counters that may lag a little.
type record struct {
	Version  int                    `json:"version"`
	Floor    time.Time              `json:"floor"`             // trusted time, see trust.Floor
	Status   uint64                 `json:"status"`            // last sequence number of a statement
	Report   uint64                 `json:"report"`            // last sequence number of a report
	Lives    map[string]*Life       `json:"lives"`             // by bundle name
	Policies map[string]uint64      `json:"policies"`          // highest revision accepted: outlives a policy file that is damaged
	Granted  map[string]policy.Mark `json:"granted,omitempty"` // newest grant accepted, by policy
	Noticed  map[string]policy.Mark `json:"noticed,omitempty"` // what the executor was last told of each policy: see giveNotice
	Transfer map[string]count       `json:"transfer"`
	Heard    string                 `json:"heard,omitempty"`   // ID of the last of the executor's results that was taken
	Errands  map[string]*errand     `json:"errands,omitempty"` // by bundle name
	Backs    map[string]*errand     `json:"backs,omitempty"`   // by policy
	Told     map[string]*told       `json:"told,omitempty"`    // by bundle name
	Boot     string                 `json:"boot,omitempty"`    // the machine's run, when this was written
}

// count is what was moved for one bundle, keyed by its checksum in record.Transfer.
type count struct {
	FromWAN    int64 `json:"fromWan"`
	WANPayload int64 `json:"wanPayload"`
	FromLAN    int64 `json:"fromLan"`
	Reused     int64 `json:"reused"`
	Wasted     int64 `json:"wasted"` // came twice
	Spoilt     int64 `json:"spoilt"` // came and could not be kept
}

const recordVersion = 1

func (d dir) record() (*record, error) {
	b, err := durable.ReadFile(d.path("state.json"), maxStateFile)
	if errors.Is(err, os.ErrNotExist) { // a fresh node; one whose file is empty is not
		b, err = []byte("{}"), nil
	}
	var r *record
	if err == nil {
		r, err = decodeRecord(b)
	}
	if err != nil {
		return nil, problem.New(problem.StoreDamaged, "the daemon's state cannot be read").Because(err).
			WithDone("nothing was started: treating this as a fresh node would forget what it has accepted").
			WithNext("restore state.json from a backup, or move it away and accept that floors are rebuilt from the installer's ledger")
	}
	// A restart may lose the last few numbers that were only counted: leave a gap rather than use one twice.
	r.Status += 1000
	return r, nil
}

// decodeRecord reads state.json; what is not in it is as in a fresh node's.
func decodeRecord(b []byte) (*record, error) {
	r := &record{Version: recordVersion}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("state.json: %w", err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("state.json is of version %d: this program reads %d", r.Version, recordVersion)
	}
	if r.Lives == nil {
		r.Lives = map[string]*Life{}
	}
	if r.Policies == nil {
		r.Policies = map[string]uint64{}
	}
	if r.Granted == nil {
		r.Granted = map[string]policy.Mark{}
	}
	if r.Noticed == nil {
		r.Noticed = map[string]policy.Mark{}
	}
	if r.Errands == nil {
		r.Errands = map[string]*errand{}
	}
	if r.Backs == nil {
		r.Backs = map[string]*errand{}
	}
	maps.DeleteFunc(r.Errands, func(_ string, e *errand) bool { return e == nil })
	maps.DeleteFunc(r.Backs, func(_ string, e *errand) bool { return e == nil })
	if r.Told == nil {
		r.Told = map[string]*told{}
	}
	maps.DeleteFunc(r.Told, func(_ string, t *told) bool { return t == nil })
	maps.DeleteFunc(r.Lives, func(_ string, l *Life) bool { return l == nil })
	if r.Transfer == nil {
		r.Transfer = map[string]count{}
	}
	return r, nil
}

func (d dir) saveSigned(sub, name string, s trust.Signed) error {
	return writeJSON(d.path(sub, name+".json"), s, 0o644)
}

// eachSigned reads the signed documents in a sub-directory. A file that cannot be read is reported and skipped: the
// document will come again from a neighbour.
func (d dir) eachSigned(sub string, f func(name string, s trust.Signed) error) error {
	es, err := os.ReadDir(d.path(sub))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range es {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		var s trust.Signed
		if err := readJSON(d.path(sub, e.Name()), &s); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := f(name, s); err != nil {
			errs = append(errs, fmt.Errorf("%s/%s: %w", sub, e.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func digestName(d manifest.Digest) string { return hex.EncodeToString(d[:]) }
