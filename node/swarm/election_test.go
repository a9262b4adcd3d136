package swarm

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
)

// A node that may not be the uplink becomes a candidate when the roster says so, and the other way round.
func TestRoleFollowsTheRoster(t *testing.T) {
	b := newBench(Config{Role: roster.WANNever})
	b.do(add(4, true))
	if out := b.pass(10 * time.Second); len(of[DialWAN](out)) != 0 {
		t.Fatal("a node that must not use the WAN dialled")
	}
	if out := b.do(Role{Peer: "me", Role: roster.WANAllow}); len(of[DialWAN](out)) == 0 {
		t.Error("a node that may use the WAN now never dials")
	}
	b.do(WANUp{}, LeaseGranted{Lease: 1, TTL: time.Hour, Renew: time.Hour})
	if !b.Leads() {
		t.Fatal("no lease")
	}
	if out := b.do(Role{Peer: "me", Role: roster.WANNever}); len(of[ReleaseLease](out)) != 1 || b.Leads() {
		t.Errorf("a node that must not use the WAN any more keeps the lease: %v", out)
	}
	// A neighbour's role moves our rank.
	b.do(PeerUp{Peer: "p", Role: roster.WANNever}, Role{Peer: "me", Role: roster.WANAllow})
	if r := b.rank(); r != 0 {
		t.Fatalf("rank %d behind a node that is no candidate", r)
	}
	b.do(Role{Peer: "p", Role: roster.WANPrefer})
	if r := b.rank(); r != 1 {
		t.Errorf("rank %d behind a node that is preferred", r)
	}
}

// The election as a conversation of one node with its site: each line is an event or a wait, and what the node says
// to it about the uplink.
func TestElection(t *testing.T) {
	type line struct {
		wait time.Duration
		ev   Event
		says []Action
	}
	const me, a, b = "me", "a", "b"
	grant := func(id uint64, split bool) Event {
		return LeaseGranted{Lease: id, TTL: 6 * time.Second, Renew: 2 * time.Second, Split: split, RTT: 10 * time.Millisecond}
	}
	up := func(p Peer, r roster.WAN) Event { return PeerUp{Peer: p, Role: r} }
	for name, lines := range map[string][]line{
		"alone: waits for neighbours, then asks, renews, and is idle again": {
			{wait: 1900 * time.Millisecond},
			{wait: 200 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
			{ev: WANUp{}, says: []Action{AskLease{Active: false}}},
			{ev: grant(1, false), says: []Action{TellUplink{Holder: me}}},
			{wait: 2100 * time.Millisecond, says: []Action{RenewLease{Lease: 1}}},
			{ev: grant(1, false)},
		},
		"behind two candidates: leaves them a second each": {
			{ev: up(a, roster.WANPrefer), says: []Action{TellUplink{}}},
			{ev: up(b, roster.WANPrefer), says: []Action{TellUplink{}}},
			{wait: 1900 * time.Millisecond},
			{wait: 200 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
		},
		"a neighbour has the lease: nothing to do, until it is gone": {
			{ev: up(a, roster.WANAllow), says: []Action{TellUplink{}}},
			{ev: PeerUplink{Peer: a, Holder: a}, says: []Action{TellUplink{Holder: a}}},
			{wait: 20 * time.Second},
			{ev: PeerDown{a}, says: []Action{TellUplink{}, DialWAN{8 * time.Second}}},
		},
		"hearsay counts, one step far": {
			{ev: up(a, roster.WANAllow), says: []Action{TellUplink{}}},
			{ev: PeerUplink{Peer: a, Holder: b}},
			{wait: 20 * time.Second},
			{ev: PeerUplink{Peer: a}, says: []Action{DialWAN{8 * time.Second}}},
		},
		"the dial fails: again, ever later": {
			{wait: 2100 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
			{ev: WANDown{}},
			{wait: 600 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
			{ev: WANDown{}},
			{wait: 900 * time.Millisecond},
			{wait: 200 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
		},
		"refused for a holder out of reach: says so, has a split lease, gives it back when the LAN heals": {
			{wait: 2100 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
			{ev: WANUp{}, says: []Action{AskLease{}}},
			{ev: LeaseRefused{Holder: a, Retry: time.Minute}},
			{wait: 4800 * time.Millisecond},
			{wait: 400 * time.Millisecond, says: []Action{AskLease{Unreachable: a}}},
			{ev: grant(2, true), says: []Action{TellUplink{Holder: me, Split: true}}},
			{ev: up(a, roster.WANAllow), says: []Action{TellUplink{Holder: me, Split: true}}},
			{ev: PeerUplink{Peer: a, Holder: a}, says: []Action{TellUplink{Holder: a}, ReleaseLease{2}}},
			{wait: 5200 * time.Millisecond, says: []Action{HangUpWAN{}}},
		},
		"refused for a neighbour that does not know it yet: asks again, never for a split": {
			{ev: up(a, roster.WANNever), says: []Action{TellUplink{}}},
			{wait: 2100 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
			{ev: WANUp{}, says: []Action{AskLease{}}},
			{ev: LeaseRefused{Holder: a, Retry: 10 * time.Second}},
			{wait: 9900 * time.Millisecond},
			{wait: 200 * time.Millisecond, says: []Action{AskLease{}}},
		},
		"the lease is not renewed: it ends by itself": {
			{wait: 2100 * time.Millisecond, says: []Action{DialWAN{8 * time.Second}}},
			{ev: WANUp{}, says: []Action{AskLease{}}},
			{ev: grant(1, false), says: []Action{TellUplink{Holder: me}}},
			{wait: 2100 * time.Millisecond, says: []Action{RenewLease{Lease: 1}}},
			{wait: 4000 * time.Millisecond, says: []Action{TellUplink{}, AskLease{}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newBench(Config{})
			for i, l := range lines {
				var out []Action
				if l.ev != nil {
					out = n.do(l.ev)
				} else {
					out = n.pass(l.wait)
				}
				if len(out) != len(l.says) {
					t.Fatalf("line %d: says %#v, want %#v", i, out, l.says)
				}
				for k := range out {
					if out[k] != l.says[k] {
						t.Fatalf("line %d: says %#v, want %#v", i, out, l.says)
					}
				}
			}
		})
	}
}
