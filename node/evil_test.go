package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/evil"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// Whole sites of real nodes, and insiders who misbehave: see package evil.

// thief makes an evil peer of member i. It has the bundle and its documents, and haunts the given members, which run.
func (s *site) thief(i int, b *chunker.Bundle, roles []evil.Role, victims ...int) *evil.Peer {
	s.t.Helper()
	m := s.members[i]
	cfg := evil.Config{Key: m.key, Site: "s1", Name: m.name, Roles: roles, Fair: 1}
	cfg.Knows(b)
	p := s.policy(b, 1)
	cfg.Listed = []wire.DocEntry{entry(wire.DocPolicy, "all", 1, p), entry(wire.DocManifest, "app", 1, b.Signed)}
	cfg.Docs = []*wire.Doc{{Kind: wire.DocPolicy, Doc: p.Doc, Sig: p.Sig}, {Kind: wire.DocManifest, Doc: b.Signed.Doc, Sig: b.Signed.Sig}}
	for _, v := range victims {
		cfg.Targets = append(cfg.Targets, evil.Target{ID: s.members[v].id, Addr: s.members[v].addr})
	}
	return s.loose(cfg)
}

// loose lets an evil peer loose until the end of the test.
func (s *site) loose(cfg evil.Config) *evil.Peer {
	s.t.Helper()
	p := must(evil.New(cfg))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return p
}

// noted waits until member i has a strike of the kind against another one.
func (s *site) noted(i int, against string, kind status.StrikeKind) status.Strike {
	s.t.Helper()
	var found status.Strike
	s.await(i, fmt.Sprintf("noting %s of %s", kind, against), func(st status.Node) bool {
		for _, x := range st.Noted {
			if x.Node == against && x.Kind == kind {
				found = x
				return true
			}
		}
		return false
	})
	return found
}

// clean stops members and checks every byte that they hold.
func (s *site) clean(members ...int) {
	s.t.Helper()
	for _, i := range members {
		s.members[i].stop()
		st := must(store.Open(filepath.Join(s.members[i].state, "chunks"), store.Options{}))
		r, err := st.Fsck(s.t.Context(), false, nil)
		st.Close()
		if err != nil || !r.Clean() {
			s.t.Errorf("%s: fsck %+v %v", s.members[i].name, r, err)
		}
	}
}

// Each role alone against a site of two honest nodes: both note it under the right name, and nothing else; then one of
// them gets the bundle on a stick, and both hold it whole and right, whatever the third goes on doing.
func TestEachEvilRole(t *testing.T) {
	for _, c := range []struct {
		role evil.Role
		kind status.StrikeKind
	}{
		{evil.Poison, status.StrikeWrongBytes},
		{evil.Short, status.StrikeWrongBytes},
		{evil.Long, status.StrikeWrongBytes},
		{evil.BadEncoding, status.StrikeWrongBytes},
		{evil.Bomb, status.StrikeWrongBytes},
		{evil.Stall, status.StrikeStall},
		{evil.Drip, status.StrikeDrip},
		{evil.Refuse, status.StrikeLie},
		{evil.Forgery, status.StrikeLie},
		{evil.Twice, status.StrikeUnsolicited},
		{evil.Unasked, status.StrikeUnsolicited},
		{evil.DocsFull, status.StrikeUnsolicited},
		{evil.BigFrame, status.StrikeProtocol},
		{evil.Garbage, status.StrikeProtocol},
		{evil.WrongLane, status.StrikeProtocol},
		{evil.Flip, status.StrikeFlood},
		{evil.Pings, status.StrikeFlood},
		{evil.Gets, status.StrikeFlood},
		{evil.NoRead, status.StrikeFlood},
		{evil.GetDocs, status.StrikeFlood},
		{evil.Haves, status.StrikeFlood},
		{evil.HaveAdds, status.StrikeFlood},
		{evil.Docs, status.StrikeFlood},
		{evil.Statuses, status.StrikeFlood},
		{evil.Reports, status.StrikeFlood},
		{evil.Flap, status.StrikeFlood},
		{evil.Comes, status.StrikeFlood},
		{evil.Streams, status.StrikeFlood},
		{evil.Beyond, ""},
		{evil.HalfOpen, ""},
		{evil.Honest, ""}, // the test itself accuses nobody
	} {
		t.Run(string(c.role), func(t *testing.T) {
			if testing.Short() && (c.kind == status.StrikeStall || c.kind == status.StrikeDrip || c.role == evil.Comes) {
				t.Skip("needs half a minute: run without -short")
			}
			t.Parallel()
			s := newSite(t, 3)
			b := s.bundle("1.0", 1, map[string][]byte{"f": random(50, 6<<20)})
			s.start(0)
			s.start(1)
			p := s.thief(2, b, []evil.Role{c.role}, 0, 1)
			if c.kind != "" {
				for i := range 2 {
					if x := s.noted(i, "n02", c.kind); x.Until == nil || x.Count < 1 {
						t.Errorf("n%02d: %+v", i, x)
					}
				}
			}
			s.give(0, b, 1)
			s.awaitStaged(b, 0, 1)
			for i := range 2 {
				st := must(s.client(i).Node(t.Context()))
				for _, x := range st.Noted {
					if x.Node != "n02" || x.Kind != c.kind {
						t.Errorf("n%02d: %+v", i, x)
					}
				}
				t.Logf("n%02d: noted %+v; asked %d, sent %d, %d sessions; wasted %d bytes", i, st.Noted, p.Counts().Asked.Load(), p.Counts().Sent.Load(), p.Counts().Sessions.Load(), st.Transfer.Wasted)
			}
			s.clean(0, 1)
		})
	}
}

// What the defences are for: without them the same peers go on and on. Each case is the role's own test again, less the
// defence.
func TestWithoutDefence(t *testing.T) {
	bans := []status.StrikeKind{status.StrikeWrongBytes, status.StrikeStall, status.StrikeDrip, status.StrikeLie}
	for _, c := range []struct {
		role evil.Role
		off  []status.StrikeKind
		what string
		goes func(*evil.Counts) bool // well beyond what it can do to a node that defends itself
	}{
		{evil.Poison, bans, "is asked again and again", func(c *evil.Counts) bool { return c.Asked.Load() > 200 }},
		{evil.Bomb, bans, "is asked again and again", func(c *evil.Counts) bool { return c.Asked.Load() > 200 }},
		{evil.Forgery, bans, "is asked for documents again and again", func(c *evil.Counts) bool { return c.Sent.Load() > 400 }},
		{evil.Unasked, []status.StrikeKind{status.StrikeUnsolicited}, "sends chunks without end", func(c *evil.Counts) bool { return c.Sent.Load() > 1000 && c.Sessions.Load() == 1 }},
		{evil.Garbage, []status.StrikeKind{status.StrikeProtocol, status.StrikeFlood}, "comes back at once", func(c *evil.Counts) bool { return c.Sessions.Load() > 20 }},
		{evil.Pings, []status.StrikeKind{status.StrikeFlood}, "floods without end", func(c *evil.Counts) bool { return c.Sent.Load() > 300_000 && c.Sessions.Load() == 1 }},
		{evil.Statuses, []status.StrikeKind{status.StrikeFlood}, "floods without end", func(c *evil.Counts) bool { return c.Sent.Load() > 20_000 && c.Sessions.Load() == 1 }},
		{evil.Comes, []status.StrikeKind{status.StrikeFlood}, "comes and goes without end", func(c *evil.Counts) bool { return c.Sessions.Load() > 30 }},
	} {
		t.Run(string(c.role), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 2)
			s.undefended = c.off
			b := s.bundle("1.0", 1, map[string][]byte{"f": random(51, 6<<20)})
			s.start(0)
			p := s.thief(1, b, []evil.Role{c.role}, 0)
			st := s.await(0, "one that "+c.what, func(status.Node) bool { return c.goes(p.Counts()) })
			if len(st.Noted) > 0 {
				t.Errorf("noted although the defence is off: %+v", st.Noted)
			}
		})
	}
}

// A neighbour that says it is the uplink, and hands on nothing, hides a new policy for six hours at most, and swallows
// reports for half an hour: then the node asks the seeder itself.
func TestWithheldDocuments(t *testing.T) {
	s := newSite(t, 2)
	p := s.playSeeder()
	p.answer = func(*xfer.Session, wire.Message) {} // it grants nothing: the other one has the lease
	var ahead atomic.Int64
	s.clock["n00"] = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(52, 1<<20)})
	s.start(0)
	s.thief(1, b, []evil.Role{evil.FalseUp}, 0)
	s.await(0, "with a neighbour", func(st status.Node) bool { return st.Transfer.Peers == 1 })
	s.await(0, "heeding it", func(status.Node) bool {
		return must(s.client(0).Status(t.Context())).Uplink == "n01"
	})
	p.await("the end of the session that began before", func() bool { return p.session == nil })
	pol := s.policy(b, 2)
	entries := []wire.DocEntry{entry(wire.DocPolicy, "all", 2, pol)}
	p.change(func() { p.heard = nil })
	p.answer = func(se *xfer.Session, m wire.Message) {
		if q, ok := m.(*wire.GetDoc); ok && q.Digest == entries[0].Digest {
			se.Send(&wire.Doc{Kind: wire.DocPolicy, Doc: pol.Doc, Sig: pol.Sig})
		}
	}
	ahead.Store(int64(10 * time.Minute))
	for range 30 { // control: nothing brings it to the seeder before its time
		if st := must(s.client(0).Node(t.Context())); desired(st) == 2 {
			t.Fatalf("knows what nobody told it: %+v", st)
		}
	}
	ahead.Store(int64(6*time.Hour + time.Minute))
	p.await("a session", func() bool { return p.session != nil })
	p.change(func() { p.session.Send(&wire.Docs{Entries: entries}) })
	s.await(0, "told of the policy", func(st status.Node) bool { return desired(st) == 2 })
	p.await("a statement", func() bool { return len(heard[*wire.Status](p)) > 0 })
}
