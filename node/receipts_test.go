package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/status"
)

// ledgerOf is a node's outbox and chain on a real directory, and all that its seeder has ever seen.
type ledgerOf struct {
	d        dir
	key      crypto.PrivKey
	out      *outbox
	chain    *receipts
	last     uint64 // number of a report
	signed   []status.Link
	seen     map[uint64]status.Link
	faults   []string
	tooEarly bool // defence off: what was signed is sent before it is on disk
}

func (x *ledgerOf) open(t rapid.TB) {
	if err := errors.Join(x.d.create(), x.d.sweep()); err != nil {
		t.Fatal(err)
	}
	var err error
	var used uint64
	if x.out, x.last, err = openOutbox(x.d, x.key); err != nil {
		t.Fatal(err)
	}
	if x.chain, used, err = openReceipts(x.d, x.out.waiting); err != nil {
		t.Fatal(err)
	}
	x.last, x.signed = max(x.last, used), nil
}

func (x *ledgerOf) sign(t rapid.TB) {
	x.last++
	c := &status.Receipt{Started: time.Unix(0, 0), Ended: time.Now()}
	x.chain.next(c)
	r, err := x.out.seal(status.ReportBody{Site: "s1", Node: "n1", Seq: x.last, Phase: status.Installed, Outcome: "success", Reason: randomReason(), Receipt: c})
	if err != nil {
		t.Fatal(err)
	}
	l, err := status.NewLink(r)
	if err != nil {
		t.Fatal(err)
	}
	x.chain.extend(l)
	x.signed = append(x.signed, l)
	if x.tooEarly {
		x.out.keep(r)
	}
}

func randomReason() string { return rand.Text() }

// deliver is the seeder taking what waits.
func (x *ledgerOf) deliver(acknowledge bool) {
	for _, r := range append([]status.Report(nil), x.out.waiting...) {
		l, err := status.NewLink(r)
		if err != nil {
			x.faults = append(x.faults, err.Error())
			continue
		}
		if old, ok := x.seen[l.Body.Receipt.Number]; ok && old.Hash != l.Hash {
			x.faults = append(x.faults, "the chain forks")
		}
		x.seen[l.Body.Receipt.Number] = l
		if acknowledge && x.out.acked(r.Seq) {
			if err := x.out.forget(r.Seq); err != nil && !errors.Is(err, os.ErrNotExist) {
				x.faults = append(x.faults, err.Error())
			}
		}
	}
}

// step is what the disk does next for the oldest receipt that was signed: the outbox, the chain, or both.
func (x *ledgerOf) step(t rapid.TB, outboxOnly bool) {
	if len(x.signed) == 0 {
		return
	}
	l := x.signed[0]
	if outboxOnly { // the crash comes in between
		if l.Body.Receipt.Number == x.chain.written+1 {
			if err := x.out.write(l.Signed); err != nil {
				t.Fatal(err)
			}
		}
		x.open(t)
		return
	}
	if err := x.chain.put(x.out, l); err != nil {
		t.Fatal(err)
	}
	x.signed = x.signed[1:]
	if !x.tooEarly {
		x.out.keep(l.Signed)
	}
}

// run does random things, crashes included, and then lets all that is left arrive. It returns what is wrong.
func (x *ledgerOf) run(t *rapid.T) []string {
	x.seen = map[uint64]status.Link{}
	x.open(t)
	for _, what := range rapid.SliceOfN(rapid.SampledFrom([]string{"sign", "sign", "write", "write", "cut", "crash", "send", "acknowledge"}), 1, 40).Draw(t, "events") {
		switch what {
		case "sign":
			x.sign(t)
		case "write":
			x.step(t, false)
		case "cut":
			x.step(t, true)
		case "crash":
			x.open(t)
		case "send":
			x.deliver(false)
		case "acknowledge":
			x.deliver(true)
		}
	}
	x.open(t)
	x.deliver(true)
	x.sign(t)
	x.step(t, false)
	x.deliver(true)
	var links []status.Link
	for n := uint64(1); n <= uint64(len(x.seen)); n++ {
		l, ok := x.seen[n]
		if !ok {
			x.faults = append(x.faults, "the seeder misses receipts")
			continue
		}
		links = append(links, l)
	}
	raw, err := x.key.GetPublic().Raw()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range status.VerifyChain(ed25519.PublicKey(raw), links, true) {
		x.faults = append(x.faults, err.Error())
	}
	return x.faults
}

func newLedgerOf(t *rapid.T, key crypto.PrivKey) *ledgerOf {
	d, err := os.MkdirTemp("", "receipts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return &ledgerOf{d: dir(d), key: key}
}

// Whatever instant a crash comes at, the seeder gets one chain, whole, and never two receipts of one number.
func TestChainSurvivesCrashes(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		if faults := newLedgerOf(t, key).run(t); len(faults) > 0 {
			t.Fatal(strings.Join(faults, "; "))
		}
	})
	// Positive control: sent before it is on disk, the chain forks.
	broken := 0
	rapid.Check(t, func(t *rapid.T) {
		x := newLedgerOf(t, key)
		x.tooEarly = true
		if len(x.run(t)) > 0 {
			broken++
		}
	})
	if broken == 0 {
		t.Error("nothing is seen of receipts that are sent too early")
	}
}

// The newest receipts stay; one that the disk spoilt still says how the chain goes on; one is not written before the one
// that it names.
func TestReceiptsOnDisk(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &ledgerOf{d: dir(t.TempDir()), key: key, seen: map[uint64]status.Link{}}
	x.open(t)
	for range keptReceipts + 6 {
		x.sign(t)
		x.step(t, false)
		x.deliver(true)
	}
	es, err := os.ReadDir(x.d.path("receipts"))
	if err != nil || len(es) != keptReceipts {
		t.Fatalf("%d receipts on disk, %v", len(es), err)
	}
	newest := es[len(es)-1].Name()
	if err := os.WriteFile(filepath.Join(x.d.path("receipts"), newest), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	x.open(t)
	head := x.seen[keptReceipts+6]
	if x.chain.number != keptReceipts+6 || x.chain.hash != head.Hash {
		t.Errorf("the head is %d %s, want %d %s", x.chain.number, x.chain.hash.Short(), keptReceipts+6, head.Hash.Short())
	}
	x.sign(t)
	x.sign(t)
	if err := x.chain.put(x.out, x.signed[1]); !errors.Is(err, errEarlier) {
		t.Errorf("written before the one that it names: %v", err)
	}
}

// Receipts outlast what is dropped when the seeder is out of reach for long.
func TestCompactKeepsReceipts(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &ledgerOf{d: dir(t.TempDir()), key: key, tooEarly: true}
	x.open(t)
	for range maxOutbox + 20 {
		x.sign(t)
		r, err := x.out.seal(status.ReportBody{Site: "s1", Node: "n1", Seq: x.last + 1, Phase: status.Installed, Bundle: "b" + rand.Text()})
		if err != nil {
			t.Fatal(err)
		}
		x.last++
		x.out.keep(r)
	}
	_, lost := x.out.compact()
	if len(x.out.waiting) != maxOutbox+20 || lost != maxOutbox+20 {
		t.Errorf("%d wait, %d lost", len(x.out.waiting), lost)
	}
	for _, r := range x.out.waiting {
		if _, err := status.NewLink(r); err != nil {
			t.Fatal(err)
		}
	}
}
