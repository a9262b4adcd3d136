package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// order signs an order about a bundle, for n00 of the site unless it is changed.
func (s *site) order(k *signer.KeyFile, b *chunker.Bundle, kind order.Kind, sequence uint64, change func(*order.Order)) trust.Signed {
	s.t.Helper()
	o := &order.Order{Schema: order.Schema, Sequence: sequence, Created: order.Timestamp(s.now), Kind: kind, Bundle: b.Manifest.Name, Version: b.Manifest.Version,
		Checksum: b.Digest, Targets: order.Targets{Sites: []string{"s1"}, Nodes: []string{"n00"}, Labels: map[string]string{}}, Reason: "tills freeze"}
	if change != nil {
		change(o)
	}
	return s.sign(k, must(o.Encode()))
}

// tell has a puppet hand a node an order.
func tell(p *puppet, se *xfer.Session, sequence uint64, d trust.Signed) {
	p.t.Helper()
	tellDoc(p, se, wire.DocOrder, "app", sequence, d)
}

// said are the outcomes in a node's outbox: version, phase, outcome, reason, order.
func (s *site) said(i int) string {
	s.t.Helper()
	var out []string
	box := filepath.Join(s.members[i].state, "outbox")
	for _, e := range must(os.ReadDir(box)) {
		b := bodyOf(s.t, filepath.Join(box, e.Name()))
		out = append(out, fmt.Sprintf("%s %s %s %s %d", b.Version, b.Phase, b.Outcome, b.Reason, b.Order))
	}
	return strings.Join(out, "\n")
}

// The whole way on one node, with the real executor: a rollback that a neighbour hands on is carried out and reported, a
// retry lets the release come again, and an order that is sent again does nothing, not even after the daemon has lost
// its memory of it.
func TestOrderedRollbackAndRetry(t *testing.T) {
	s := newSite(t, 2)
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	m := s.members[0]
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")})
	in := func(b *chunker.Bundle, phase status.Phase, reason string) status.Node {
		t.Helper()
		return s.await(0, fmt.Sprintf("%s (%s)", phase, reason), func(st status.Node) bool {
			return st.Phase == phase && st.Reason == reason && len(st.Installed) == 1 && st.Installed[0].Checksum == b.Digest
		})
	}
	s.give(0, one, 1)
	in(one, status.Installed, "Installed")
	s.give(0, two, 2)
	in(two, status.Installed, "Installed")

	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(m.id, m.addr)
	back, again := s.order(s.operator, two, order.Rollback, 5, nil), s.order(s.operator, two, order.Retry, 6, nil)
	tell(p, se, 5, back)
	st := in(one, status.RolledBack, "RolledBackByOperator")
	if got := s.current(m, "f"); got != "one\n" || st.Detail != "order 5: tills freeze" || st.Order != "" {
		t.Errorf("%q in force: %+v", got, st)
	}
	// It hands the order on, as any document.
	p.await("the order in its list", func() bool {
		for _, l := range heard[*wire.Docs](p) {
			for _, e := range l.Entries {
				if e.Kind == wire.DocOrder && e.Revision == 5 {
					return true
				}
			}
		}
		return false
	})
	// Held: the same policy again, under a new revision, changes nothing.
	s.give(0, two, 3)
	in(one, status.RolledBack, "RolledBackByOperator")

	tell(p, se, 6, again)
	in(two, status.Installed, "Installed")
	if got := s.current(m, "f"); got != "two\n" {
		t.Errorf("%q in force", got)
	}
	if got := s.said(0); !strings.Contains(got, "2.0 RolledBack rolled_back RolledBackByOperator 5") || !strings.Contains(got, "2.0 RolledBack success FailuresForgotten 6") {
		t.Errorf("reports:\n%s", got)
	}

	// The daemon forgets everything about orders, and gets the old one again: the executor remembers.
	m.stop()
	s.forgetOrders(m)
	s.start(0)
	p2 := s.puppet(s.members[1].key, "n01")
	se = p2.dial(m.id, s.members[0].addr)
	tell(p2, se, 5, back)
	s.await(0, "refusing", func(st status.Node) bool { return strings.Contains(s.said(0), "OrderTooOld 5") })
	in(two, status.Installed, "Installed")
	if got := s.current(m, "f"); got != "two\n" {
		t.Errorf("after an old order: %q in force", got)
	}
}

func (s *site) fine(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// A rollback waits for the window of the policy, says so once, and until when; one that says now does not wait.
func TestRollbackWaitsForItsWindow(t *testing.T) {
	s := newSite(t, 2)
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	m := s.members[0]
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")})
	for i, b := range []*chunker.Bundle{one, two} {
		s.give(0, b, uint64(i+1))
		s.await(0, "installed", func(st status.Node) bool {
			return st.Phase == status.Installed && st.Installed[0].Checksum == b.Digest
		})
	}
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(m.id, m.addr)
	day := time.Now().UTC().Add(72 * time.Hour)
	text := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: all}\nspec:\n  bundleRef: {name: app, version: \"2.0\", checksum: %q}\n"+
		"  targets: {selector: {matchLabels: {role: pos}}}\n  schedule: {maintenanceWindow: \"%.3s 02:00-04:00\", timezone: UTC}\n", two.Digest, day.Weekday())
	shut := s.sign(s.operator, must(must(policy.NewDocument([]byte(text), 3, s.now)).Encode()))
	tellDoc(p, se, wire.DocPolicy, "all", 3, shut)
	s.await(0, "told of the window", func(st status.Node) bool { return desired(st) == 3 })

	tell(p, se, 5, s.order(s.operator, two, order.Rollback, 5, nil))
	st := s.await(0, "waiting", func(st status.Node) bool { return strings.Contains(st.Order, "WindowClosed") })
	if st.Phase != status.Installed || s.current(m, "f") != "two\n" {
		t.Errorf("it did not wait: %+v", st)
	}
	s.await(0, "said", func(status.Node) bool { return strings.Contains(s.said(0), "2.0 Installed deferred WindowClosed 5") })
	if n := strings.Count(s.said(0), "WindowClosed 5"); n != 1 {
		t.Errorf("said %d times", n)
	}
	tell(p, se, 6, s.order(s.operator, two, order.Rollback, 6, func(o *order.Order) { o.Now = true }))
	s.await(0, "back", func(st status.Node) bool { return st.Phase == status.RolledBack && st.Order == "" })
	if got := s.current(m, "f"); got != "one\n" {
		t.Errorf("%q in force", got)
	}
}

// forgetOrders takes a stopped daemon's memory of orders away.
func (s *site) forgetOrders(m member) {
	s.t.Helper()
	s.fine(os.RemoveAll(filepath.Join(m.state, "orders")))
	name := filepath.Join(m.state, "state.json")
	text := string(must(os.ReadFile(name)))
	a := strings.Index(text, `"errands":`)
	if a < 0 {
		s.t.Fatal("the state knows of no order")
	}
	b := a + strings.Index(text[a:], "}}") + len("}},")
	s.fine(os.WriteFile(name, []byte(text[:a]+text[b:]), 0o600))
}

// An order counts when the operator's key signed it, and it is for this site; one for a neighbour is kept and handed on,
// and nothing else.
func TestOrdersThatAreNotOurs(t *testing.T) {
	s := newSite(t, 2)
	s.script("echo called >> called\necho '" + result(`"outcome":"success","phase":"Installed","reason":"RolledBackByOperator","order":6`) + "'\n")
	s.start(0)
	two := s.bundle("2.0", 2, map[string][]byte{"f": random(40, 1000)})
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(s.members[0].id, s.members[0].addr)
	stranger := key(t, "stranger")
	kept := func() int { return len(must(os.ReadDir(filepath.Join(s.members[0].state, "orders")))) }
	for i, c := range []struct {
		what string
		d    trust.Signed
		kept int
	}{
		{"signed by a stranger", s.order(stranger, two, order.Rollback, 1, nil), 0},
		{"signed with the roster key", s.order(s.rosterKey, two, order.Rollback, 2, nil), 0},
		{"for another site", s.order(s.operator, two, order.Rollback, 3, func(o *order.Order) { o.Targets.Sites, o.Targets.Nodes = []string{"s2"}, []string{} }), 0},
		{"for a neighbour", s.order(s.operator, two, order.Rollback, 4, func(o *order.Order) { o.Targets.Nodes = []string{"n01"} }), 1},
		{"for others by their label", s.order(s.operator, two, order.Rollback, 5, func(o *order.Order) {
			o.Targets = order.Targets{Sites: []string{}, Nodes: []string{}, Labels: map[string]string{"role": "kiosk"}}
		}), 2},
	} {
		tell(p, se, uint64(i+1), c.d)
		p.fence(se, s.roster)
		if st := must(s.client(0).Node(t.Context())); kept() != c.kept || st.Order != "" {
			t.Errorf("%s: %d orders kept, %q", c.what, kept(), st.Order)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "called")); err == nil {
		t.Error("the executor was asked")
	}
	// The positive control: one for this node is carried out.
	tell(p, se, 6, s.order(s.operator, two, order.Rollback, 6, nil))
	s.await(0, "carried out", func(status.Node) bool { return strings.Contains(s.said(0), " 6") })
}
