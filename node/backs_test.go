package node_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

const sendsBack = "  rolloutStrategy: {type: RollingUpdate, failureBudget: {max: \"2%\", onExceeded: Rollback}}\n"

// back signs an order of the seeder for n00 under a revision of policy all.
func (s *site) back(k *signer.KeyFile, b *chunker.Bundle, sequence, revision uint64, change func(*order.Order)) trust.Signed {
	s.t.Helper()
	return s.order(k, b, order.Rollback, sequence, func(o *order.Order) {
		o.Under = &order.Under{Policy: "all", Revision: revision}
		if change != nil {
			change(o)
		}
	})
}

// The seeder sends a node back, with the real executor, where the operator's policy lets it; and whatever number its order
// has, what a person orders next is done.
func TestSeederSendsBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	m := s.members[0]
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")})
	in := func(b *chunker.Bundle, phase status.Phase, reason string) {
		t.Helper()
		s.await(0, fmt.Sprintf("%s (%s)", phase, reason), func(st status.Node) bool {
			return st.Phase == phase && st.Reason == reason && len(st.Installed) == 1 && st.Installed[0].Checksum == b.Digest
		})
	}
	s.give(0, one, 1)
	in(one, status.Installed, "Installed")
	s.hand(0, two, s.policyOf("all", two, 2, sendsBack))
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(m.id, m.addr)
	tellDoc(p, se, wire.DocGrant, "all", 1, s.grant(two, 1, 2, 0, "n00"))
	in(two, status.Installed, "Installed")

	kept := func() (files []string) {
		for _, e := range must(os.ReadDir(filepath.Join(m.state, "orders"))) {
			files = append(files, e.Name())
		}
		return files
	}
	for i, c := range []struct {
		what string
		d    trust.Signed
	}{
		{"signed by a stranger", s.back(key(t, "stranger"), two, 11, 2, nil)},
		{"signed by the operator", s.back(s.operator, two, 12, 2, nil)},
		{"under the revision before", s.back(s.rosterKey, two, 13, 1, nil)},
		{"under a revision to come", s.back(s.rosterKey, two, 14, 3, nil)},
		{"of another release", s.back(s.rosterKey, one, 15, 2, nil)},
		{"at once", s.back(s.rosterKey, two, 16, 2, func(o *order.Order) { o.Now = true })},
		{"for another site", s.back(s.rosterKey, two, 17, 2, func(o *order.Order) { o.Targets.Sites = []string{"s2"} })},
	} {
		tellDoc(p, se, wire.DocBack, "all", uint64(11+i), c.d)
		p.fence(se, s.roster)
		if got := kept(); len(got) > 0 {
			t.Errorf("%s: kept as %v", c.what, got)
		}
	}
	in(two, status.Installed, "Installed")

	// The most that a number can be.
	tellDoc(p, se, wire.DocBack, "all", math.MaxInt64, s.back(s.rosterKey, two, math.MaxInt64, 2, nil))
	in(one, status.RolledBack, "RolledBackByOperator")
	if got := s.current(m, "f"); got != "one\n" {
		t.Errorf("%q in force", got)
	}
	s.await(0, "said", func(status.Node) bool {
		return strings.Contains(s.said(0), fmt.Sprintf("2.0 RolledBack rolled_back RolledBackByOperator %d", uint64(math.MaxInt64)))
	})
	m = s.members[0]
	m.stop() // what it holds of both it knows again
	s.start(0)
	in(one, status.RolledBack, "RolledBackByOperator")
	p = s.puppet(s.members[1].key, "n01")
	se = p.dial(m.id, s.members[0].addr)
	tell(p, se, 20, s.order(s.operator, two, order.Retry, 20, nil))
	in(two, status.Installed, "Installed")

	// A new revision puts an end to the seeder's orders under the one before, and to their numbers.
	s.hand(0, two, s.policyOf("all", two, 3, sendsBack))
	s.await(0, "under the new revision", func(st status.Node) bool { return desired(st) == 3 })
	if got := kept(); len(got) != 1 || strings.HasPrefix(got[0], "back-") {
		t.Errorf("kept: %v", got)
	}
	tellDoc(p, se, wire.DocBack, "all", 21, s.back(s.rosterKey, two, 21, 3, nil))
	in(one, status.RolledBack, "RolledBackByOperator")

	tellDoc(p, se, wire.DocGrant, "all", 2, s.grant(two, 2, 3, 0, "n00"))

	// The positive control: in one row of numbers, as among an operator's own, the highest bars all that come later.
	tell(p, se, math.MaxInt64, s.order(s.operator, two, order.Retry, math.MaxInt64, nil))
	in(two, status.Installed, "Installed")
	se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocOrder, "app", 22, s.order(s.operator, two, order.Rollback, 22, nil))}})
	tell(p, se, 23, s.order(s.operator, two, order.Rollback, 23, nil))
	p.fence(se, s.roster)
	if st := must(s.client(0).Node(t.Context())); st.Order != "" || s.current(s.members[0], "f") != "two\n" {
		t.Errorf("an order below the highest number was done: %+v", st)
	}
}

const rolling = "  rolloutStrategy: {type: RollingUpdate, batchSize: 1}\n"

// waitsForAGrant is a site whose first node, with the real executor, waits for a grant under policy "all"; what is in the
// second one's place can tell it anything.
func waitsForAGrant(t *testing.T) (s *site, one *chunker.Bundle, p *puppet, se *xfer.Session) {
	t.Helper()
	s = newSite(t, 2)
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	one = s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	s.hand(0, one, s.policyOf("all", one, 1, rolling))
	s.await(0, "waiting for a grant", func(st status.Node) bool { return st.Reason == grant.LeaseMissing })
	p = s.puppet(s.members[1].key, "n01")
	return s, one, p, p.dial(s.members[0].id, s.members[0].addr)
}

// A pause reaches the executor too: the daemon gives notice of the grant that is halted, so that the one from before is not
// followed, whoever shows it.
func TestNoticeOfAPause(t *testing.T) {
	t.Parallel()
	s, one, p, se := waitsForAGrant(t)
	halted := s.grantWith(one, 6, 1, 0, func(g *grant.Grant) { g.Halted = "paused by alice" }, "n00")
	tellDoc(p, se, wire.DocGrant, "all", 6, halted)
	floor := func() (out policy.Mark) {
		raw, err := os.ReadFile(filepath.Join(s.dir, s.members[0].name+"-installer", "installed.json"))
		if err != nil {
			return out
		}
		return must(ledger.Parse(raw)).Grants["s1"]["all"]
	}
	s.await(0, "paused, and the executor knows", func(st status.Node) bool {
		return st.Reason == grant.Paused && floor() == (policy.Mark{Revision: 1, Number: 6})
	})
	// The one from before is not taken here either, and a newer one is.
	tellDoc(p, se, wire.DocGrant, "all", 7, s.grant(one, 7, 1, 0, "n00"))
	s.await(0, "installed", func(st status.Node) bool { return st.Phase == status.Installed })
	if got := floor(); got.Number != 7 {
		t.Errorf("the floor is %+v", got)
	}
}

// A serial out of all proportion, as of a seeder that was broken into, is in force until the operator's next revision.
func TestSerialsCountWithinARevision(t *testing.T) {
	t.Parallel()
	s, one, p, se := waitsForAGrant(t)
	// A revision that no operator has signed is none.
	tellDoc(p, se, wire.DocGrant, "all", 1, s.grantWith(one, 1, math.MaxInt64, 0, nil, "n00"))
	tellDoc(p, se, wire.DocGrant, "all", math.MaxInt64, s.grantWith(one, math.MaxInt64, 1, 0, func(g *grant.Grant) { g.Halted = "for ever" }, "n00"))
	s.await(0, "halted", func(st status.Node) bool { return st.Reason == grant.Paused })
	// The positive control: under this revision nothing comes after it.
	lower := s.grant(one, 8, 1, 0, "n00")
	se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocGrant, "all", 8, lower)}})
	p.fence(se, s.roster)
	if st := must(s.client(0).Node(t.Context())); st.Reason != grant.Paused {
		t.Fatalf("%+v", st)
	}
	s.hand(0, one, s.policyOf("all", one, 2, rolling))
	tellDoc(p, se, wire.DocGrant, "all", 9, s.grant(one, 9, 2, 0, "n00"))
	s.await(0, "installed", func(st status.Node) bool { return st.Phase == status.Installed })
}
