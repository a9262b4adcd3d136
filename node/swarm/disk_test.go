package swarm

import (
	"slices"
	"testing"
	"time"
)

// of picks the actions of one type.
func of[A Action](as []Action) (out []A) {
	for _, a := range as {
		if x, ok := a.(A); ok {
			out = append(out, x)
		}
	}
	return out
}

// bench is a swarm with a clock, and notes all it does.
type bench struct {
	*Swarm
	now time.Time
	all []Action
}

func newBench(cfg Config) *bench {
	now := time.Unix(1_800_000_000, 0)
	cfg.Self = "me"
	return &bench{Swarm: New(cfg, now), now: now}
}

func (b *bench) do(evs ...Event) (out []Action) {
	for _, ev := range evs {
		out = append(out, b.Step(b.now, ev)...)
	}
	b.all = append(b.all, out...)
	return out
}

// pass lets time go by in ticks.
func (b *bench) pass(d time.Duration) (out []Action) {
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(100 * time.Millisecond)
		out = append(out, b.do(Tick{})...)
	}
	return out
}

// lead makes it the uplink.
func (b *bench) lead() []Action {
	out := b.pass(DefaultSettle + 100*time.Millisecond)
	return append(out, b.do(WANUp{}, LeaseGranted{Lease: 1, TTL: time.Hour, Renew: time.Hour, RTT: 10 * time.Millisecond})...)
}

func add(chunks int, wants bool, have ...int) BundleAdd {
	e := BundleAdd{Bundle: Bundle{1}, Sizes: make([]int64, chunks), Index: 1, Have: make([]bool, chunks), Wants: wants}
	for i := range e.Sizes {
		e.Sizes[i] = 256 << 10
	}
	for _, i := range have {
		e.Have[i] = true
	}
	return e
}

func haveAll(p Peer, chunks int) PeerHave {
	bits := make([]byte, (chunks+7)/8)
	for i := range chunks {
		bits[i/8] |= 1 << (i % 8)
	}
	return PeerHave{Peer: p, Bundle: Bundle{1}, Wants: true, Total: chunks, Bitmap: bits}
}

// A bundle that lay here complete before anybody wanted it is complete when somebody does.
func TestWantedLater(t *testing.T) {
	b := newBench(Config{})
	b.do(add(4, false, 0, 1, 2, 3))
	if out := b.do(add(4, true, 0, 1, 2, 3)); len(of[Complete](out)) != 1 {
		t.Errorf("nothing was said of a complete bundle that is now wanted: %v", out)
	}
}

// Chunks that the store gave up meanwhile are fetched again.
func TestEvictedChunksAreMissing(t *testing.T) {
	b := newBench(Config{})
	b.do(add(4, false, 0, 1, 2, 3), PeerUp{Peer: "p"}, haveAll("p", 4))
	b.do(add(4, true, 0, 1))
	b.pass(2 * time.Second)
	var got []int
	for _, f := range of[Fetch](b.all) {
		got = append(got, f.Number)
	}
	slices.Sort(got)
	if !slices.Equal(got, []int{2, 3}) {
		t.Errorf("fetched %v, want what is not on disk any more", got)
	}
}

// A full disk does not make the uplink fetch the same bytes over the WAN again and again.
func TestFullDiskSparesTheWAN(t *testing.T) {
	for _, c := range []struct {
		name  string
		alone bool
	}{{"alone", true}, {"with a neighbour", false}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Config{})
			if !c.alone {
				b.do(PeerUp{Peer: "p"}, PeerUplink{Peer: "p"}, PeerHave{Peer: "p", Bundle: Bundle{1}, Wants: true, Total: 40, Bitmap: make([]byte, 5)})
			}
			b.do(add(40, true))
			answer := func(as []Action) {
				for len(as) > 0 {
					var next []Action
					for _, f := range of[Fetch](as) {
						next = append(next, b.do(Failed{f.Req, WhyLocal})...)
					}
					as = next
				}
			}
			answer(b.lead())
			for range 600 {
				answer(b.pass(100 * time.Millisecond))
			}
			if n := len(of[Fetch](b.all)); n == 0 || n > 40 {
				t.Errorf("%d chunks were asked of the WAN in a minute with a full disk", n)
			}
			if !c.alone && len(of[ReleaseLease](b.all)) == 0 {
				t.Error("the lease was not given to a node that can store what it fetches")
			}
		})
	}
}

// A lease that was given back does not come back with the answer to a renewal that was under way.
func TestReleasedLeaseStaysReleased(t *testing.T) {
	b := newBench(Config{})
	b.do(PeerUp{Peer: "p"}, add(4, true, 0, 1, 2, 3))
	b.pass(DefaultSettle + time.Second)
	b.do(WANUp{}, LeaseGranted{Lease: 7, TTL: time.Minute, Renew: time.Minute, Split: true})
	if out := b.do(PeerUplink{Peer: "p", Holder: "p"}); len(of[ReleaseLease](out)) != 1 {
		t.Fatalf("the LAN healed and the split lease was kept: %v", out)
	}
	b.do(LeaseGranted{Lease: 7, TTL: time.Minute, Renew: time.Minute, Split: true})
	if b.Leads() {
		t.Error("an answer that was late brought a lease back that the seeder has forgotten")
	}
	b.do(LeaseGranted{Lease: 8, TTL: time.Minute, Renew: time.Minute})
	if !b.Leads() {
		t.Error("a new lease was refused") // positive control
	}
}
