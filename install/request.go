package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// SchemaRequest identifies a request.
const SchemaRequest = "patchmesh.io/install-request/v1"

// MaxRequestBytes bounds a request file: the largest documents in base64, and some room.
const MaxRequestBytes = 2 << 20

// maxSkewSeconds is a century.
const maxSkewSeconds = 100 * 366 * 86400

// Request is what the daemon asks for. Nothing in it is believed: the documents carry their signatures, and the store
// is a directory whose every byte is hashed. The documents are in it, rather than named by it, so that they cannot
// change between two looks.
type Request struct {
	Schema          string `json:"schema"`
	ID              string `json:"id,omitempty"`   // the answer's, see Results; empty: whoever asks waits for the program
	Boot            string `json:"boot,omitempty"` // the run of the machine it is for; empty: any
	Manifest        []byte `json:"manifest"`       // the exact bytes, base64 in JSON
	Signature       []byte `json:"signature"`
	Policy          []byte `json:"policy"` // policy.Document, the exact bytes
	PolicySignature []byte `json:"policySignature"`
	Store           string `json:"store"` // absolute path of the chunk store

	// Audit: nothing is to be started. The answer says whether what is installed and kept, and the bundle of the request if
	// it names one, is what was signed.
	Audit bool `json:"audit,omitempty"`

	// SkewSeconds is how far the clocks of the site are ahead of the machine's, as the daemon sees it. It can only defer.
	SkewSeconds int64 `json:"skewSeconds,omitempty"`

	// The site's roster, signed, which knows the zone that "timezone: site" in a policy's schedule means.
	Roster          []byte `json:"roster,omitempty"`
	RosterSignature []byte `json:"rosterSignature,omitempty"`

	// The grant of a rollout, signed, by which the site's nodes may start; a policy with a rollout strategy needs one.
	Grant          []byte `json:"grant,omitempty"`
	GrantSignature []byte `json:"grantSignature,omitempty"`

	// The newest list of revoked bundles, revocation.List, with whatever is asked for.
	Revocations          []byte `json:"revocations,omitempty"`
	RevocationsSignature []byte `json:"revocationsSignature,omitempty"`

	// An operator's order, order.Order, stands alone: with it there is no manifest, and no policy, unless the order is the
	// seeder's and the policy lets it give that.
	Order          []byte `json:"order,omitempty"`
	OrderSignature []byte `json:"orderSignature,omitempty"`
}

// NewRequest builds a request.
func NewRequest(manifest, policy trust.Signed, store string) Request {
	return Request{Schema: SchemaRequest, Manifest: manifest.Doc, Signature: manifest.Sig, Policy: policy.Doc, PolicySignature: policy.Sig, Store: store}
}

// NewAuditRequest builds a request that changes nothing; of is the request to install the bundle that is to be looked at
// too, the zero Request if there is none.
func NewAuditRequest(of Request, store string) Request {
	of.Schema, of.Store, of.Audit = SchemaRequest, store, true
	return of
}

// WithRoster adds the site's roster.
func (r Request) WithRoster(s trust.Signed) Request {
	r.Roster, r.RosterSignature = s.Doc, s.Sig
	return r
}

// WithGrant adds the grant of a rollout.
func (r Request) WithGrant(s trust.Signed) Request {
	r.Grant, r.GrantSignature = s.Doc, s.Sig
	return r
}

// WithRevocations adds the newest list of revoked bundles; the zero value: there is none.
func (r Request) WithRevocations(s trust.Signed) Request {
	r.Revocations, r.RevocationsSignature = s.Doc, s.Sig
	return r
}

// NewNotice builds a request by which nothing is done: the machine is to know that this revision of a policy, or a grant
// under it that WithGrant adds, has taken the place of an older one, which from then on is not followed any more.
func NewNotice(policy trust.Signed, store string) Request {
	return Request{Schema: SchemaRequest, Policy: policy.Doc, PolicySignature: policy.Sig, Store: store}
}

// notice reports whether the request is one of NewNotice.
func (r Request) notice() bool {
	return len(r.Policy) > 0 && !r.Audit && len(r.Order)+len(r.OrderSignature)+len(r.Manifest)+len(r.Signature) == 0
}

// NewOrderRequest builds a request that carries out an operator's order.
func NewOrderRequest(o trust.Signed, store string) Request {
	return Request{Schema: SchemaRequest, Order: o.Doc, OrderSignature: o.Sig, Store: store}
}

// WithPolicy adds the policy that lets the seeder give the order of the request.
func (r Request) WithPolicy(s trust.Signed) Request {
	r.Policy, r.PolicySignature = s.Doc, s.Sig
	return r
}

// Same reports whether two requests of one run of the machine would change the machine in the same way, whatever else goes along
// with them. What changes nothing is asked anew: a notice is about what goes along with it, and a check about the moment.
func (r Request) Same(o Request) bool {
	return !r.Audit && !o.Audit && !r.notice() && r.Boot == o.Boot && r.Store == o.Store &&
		bytes.Equal(r.Manifest, o.Manifest) && bytes.Equal(r.Policy, o.Policy) && bytes.Equal(r.Order, o.Order)
}

// Encode writes the request file.
func (r Request) Encode() ([]byte, error) { return json.Marshal(r) }

// ParseRequest reads a request file strictly.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	bad := func(err error) (Request, error) {
		return Request{}, problem.New(problem.InvalidFile, "the request cannot be used").Because(err)
	}
	if len(b) > MaxRequestBytes {
		return bad(fmt.Errorf("%d bytes: at most %d", len(b), MaxRequestBytes))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return bad(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return bad(fmt.Errorf("something follows the document"))
	}
	ordered := len(r.Order)+len(r.OrderSignature) > 0
	installed := r.Audit && len(r.Manifest)+len(r.Signature)+len(r.Policy)+len(r.PolicySignature) == 0 // and nothing else
	switch {
	case r.Schema != SchemaRequest:
		return bad(fmt.Errorf("schema %q is not %q", r.Schema, SchemaRequest))
	case ordered && (len(r.Order) == 0 || len(r.OrderSignature) == 0 || len(r.Manifest)+len(r.Signature) > 0 || (len(r.Policy) == 0) != (len(r.PolicySignature) == 0)):
		return bad(fmt.Errorf("an order stands alone, with its signature, or with the policy that lets the seeder give it"))
	case ordered && r.Audit:
		return bad(fmt.Errorf("an audit carries out no order"))
	case !ordered && !installed && (!r.notice() && (len(r.Manifest) == 0 || len(r.Signature) == 0) || len(r.Policy) == 0 || len(r.PolicySignature) == 0):
		return bad(fmt.Errorf("manifest, policy and both signatures are required"))
	case (len(r.Roster) == 0) != (len(r.RosterSignature) == 0):
		return bad(fmt.Errorf("a roster comes with its signature"))
	case (len(r.Grant) == 0) != (len(r.GrantSignature) == 0):
		return bad(fmt.Errorf("a grant comes with its signature"))
	case (len(r.Revocations) == 0) != (len(r.RevocationsSignature) == 0):
		return bad(fmt.Errorf("a revocation list comes with its signature"))
	case r.ID != "" && !validID(r.ID) || r.Boot != "" && !validID(r.Boot):
		return bad(fmt.Errorf("id or boot is not one"))
	case r.SkewSeconds < -maxSkewSeconds || r.SkewSeconds > maxSkewSeconds:
		return bad(fmt.Errorf("skewSeconds %d is out of range", r.SkewSeconds))
	case !filepath.IsAbs(r.Store) || filepath.Clean(r.Store) != r.Store:
		return bad(fmt.Errorf("store %q is not a clean absolute path", r.Store))
	}
	return r, nil
}

// ReadRequest reads a request file that a less privileged user may own: no link is followed, nothing but a regular
// file is opened, and no more than the limit is read.
func ReadRequest(name string) (Request, error) {
	b, err := readForeign(name, MaxRequestBytes)
	if err != nil {
		return Request{}, problem.New(problem.InvalidFile, "the request cannot be read").Because(err)
	}
	return ParseRequest(b)
}

func readForeign(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, err
}
