package seeder

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

func isOver(b *budget, node, day string) bool {
	_, over := b.over(node, day)
	return over
}

// What a node is sent a fourth time on a day costs it, as what did not arrive does; it gets nothing once that is too much,
// and one that has had its share is known as such. The next day is another one, and nobody's greed costs anybody else.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget()
		type key struct {
			node   string
			number uint32
		}
		got, lost, over := map[key]int{}, map[string]int64{}, map[string]bool{}
		day := "2026-11-21"
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			k := key{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node"), uint32(rapid.SampledFrom([]int{0, 1, 3, 1023, 1024, 900_000}).Draw(t, "chunk"))}
			want := !over[k.node] && lost[k.node] <= maxLost
			ok, first := b.may(k.node, day, time.Unix(1, 0))
			if ok != want || first != (!want && !over[k.node]) || isOver(b, k.node, day) != !want {
				t.Fatalf("%v, sent %d times, lost %d: may %v, first %v", k, got[k], lost[k.node], ok, first)
			}
			switch over[k.node] = !want; {
			case !ok:
			case rapid.Bool().Draw(t, "arrives"):
				n := rapid.Int64Range(0, 20<<20).Draw(t, "size")
				b.sent(k.node, day, k.number, n)
				if got[k]++; got[k] > maxSends {
					lost[k.node] += n
				}
			default:
				n := rapid.Int64Range(0, 20<<20).Draw(t, "bytes")
				b.lost(k.node, day, n)
				lost[k.node] += n
			}
		}
		for _, n := range []string{"a", "b", "c"} {
			if ok, _ := b.may(n, "2026-11-22", time.Unix(2, 0)); !ok || isOver(b, n, "2026-11-22") {
				t.Fatalf("%s pays for yesterday", n)
			}
		}
		if len(b.nodes) > 3 {
			t.Fatalf("%d shares are kept", len(b.nodes))
		}
	})
}

// While a day has begun in the east and another one not ended in the west, neither costs the other its accounts.
func TestBudgetAcrossTimeZones(t *testing.T) {
	b := newBudget()
	b.lost("west", "2026-11-20", maxLost+1)
	b.may("west", "2026-11-20", time.Unix(1, 0))
	b.may("east", "2026-11-21", time.Unix(1, 0))
	if !isOver(b, "west", "2026-11-20") {
		t.Error("the west's share is forgotten when the day begins in the east")
	}
	b.may("east", "2026-11-23", time.Unix(2, 0))
	if len(b.nodes) != 1 {
		t.Errorf("%d shares are kept, one of them of a day that has ended everywhere", len(b.nodes))
	}
}

// An uplink that fetches the same again and again gets it three times and what may be lost on the way, is the uplink no more until the site's midnight,
// and is shown for what it is.
func TestGreedyUplink(t *testing.T) {
	b, clk, cat, a := chicago(t, wanprofile.Document{})
	b.budget.most = 0
	a.ask(wire.LeaseAsk{Nonce: 1, Active: true})
	id := cat.Chunks[0].ID
	for i := range maxSends + 1 {
		if d, r := a.get(id); d == nil {
			t.Fatalf("time %d: %+v", i+1, r)
		}
	}
	if d, r := a.get(id); d != nil || r.Reason != wire.ReasonNoLease {
		t.Fatalf("once more: %+v", r)
	}
	if d, _ := a.get(cat.Chunks[1].ID); d != nil {
		t.Error("gets another chunk")
	}
	a.session.Send(&wire.LeaseAsk{Nonce: 2, Active: true})
	if r := next[*wire.LeaseRefuse](a); r.Reason != lease.ReasonNever {
		t.Errorf("asks again: %+v", r)
	}
	site, err := b.db.Site(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, n := range b.siteStatus(site).Nodes {
		for _, x := range n.Alarms {
			if x.Code == string(problem.PeerMisbehaves) {
				shown++
			}
		}
	}
	if shown != 1 {
		t.Errorf("%d nodes are shown as greedy", shown)
	}
	clk.set(local(t, "2026-11-22 00:00"))
	a.ask(wire.LeaseAsk{Nonce: 3, Active: true})
	if d, _ := a.get(id); d == nil {
		t.Error("nothing on the next day")
	}
	b.budget.allow(1000) // positive control
	for range 10 {
		if d, _ := a.get(id); d == nil {
			t.Fatal("refused without the rule")
		}
	}
}

// allow lets a chunk be sent so often, while the seeder runs.
func (b *budget) allow(sends int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sends = sends
}
