package lease

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestProperties runs random conversations of two sites of four nodes: at no time are there two primaries in a site or
// more active leases than admitted, every question has one answer, and a lease ends when nothing is heard.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{MaxActive: rapid.IntRange(1, 4).Draw(t, "maxActive"), MaxSplit: rapid.IntRange(1, 2).Draw(t, "maxSplit")}.withDefaults()
		tab := NewTable(cfg, 0)
		now := time.Unix(0, 0)
		sites, peers := []string{"s1", "s2"}, []string{"a", "b", "c", "d"}
		held := map[string]uint64{} // the last lease that each peer was granted
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { invariants(t, tab, now, cfg, sites) },
			"step": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
				site := rapid.SampledFrom(sites).Draw(t, "site")
				peer := rapid.SampledFrom(peers).Draw(t, "peer")
				var ev Event
				answers := 0
				switch rapid.IntRange(0, 5).Draw(t, "kind") {
				case 0, 1:
					ev, answers = Ask{Site: site, Peer: peer, Active: rapid.Bool().Draw(t, "active"), Never: peer == "d",
						Unreachable: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "unreachable")}, 1
				case 2, 3:
					ev, answers = Renew{Site: site, Peer: peer, Lease: held[site+peer], Active: rapid.Bool().Draw(t, "active"),
						SeesHolder: rapid.Bool().Draw(t, "sees")}, 1
				case 4:
					ev = Release{Site: site, Peer: peer, Lease: held[site+peer]}
				case 5:
					ev = Gone{Site: site, Peer: peer}
				}
				for _, a := range tab.Step(now, ev) {
					switch a := a.(type) {
					case Grant:
						answers--
						if peer == "d" || a.Peer != peer || a.Site != site {
							t.Fatalf("%+v is answered with %+v", ev, a)
						}
						held[site+peer] = a.Lease
					case Refuse:
						answers--
						if a.Retry <= 0 || a.Holder == peer && a.Reason == ReasonHeld {
							t.Fatalf("%+v is answered with %+v", ev, a)
						}
					}
				}
				if answers != 0 {
					t.Fatalf("%+v has %d answers too few", ev, answers)
				}
			},
			"death": func(t *rapid.T) { // somebody else can have it at once
				site := rapid.SampledFrom(sites).Draw(t, "site")
				ls := tab.Leases(site)
				for _, l := range ls {
					tab.Step(now, Gone{site, l.Peer})
				}
				out := tab.Step(now, Ask{Site: site, Peer: "c"})
				if g, ok := out[len(out)-1].(Grant); !ok || g.Split {
					t.Fatalf("after the death of %v: %+v", ls, out)
				}
			},
			"silence": func(t *rapid.T) { // what is not renewed ends
				now = now.Add(cfg.IdleTTL)
				tab.Step(now, Tick{})
				if n := len(tab.Leases("s1")) + len(tab.Leases("s2")) + tab.Active() + len(tab.sites); n != 0 {
					t.Fatalf("%d things left after silence", n)
				}
			},
		})
	})
}

func invariants(t *rapid.T, tab *Table, now time.Time, cfg Config, sites []string) {
	active := 0
	for _, s := range sites {
		ls := tab.Leases(s)
		if len(ls) > 1+cfg.MaxSplit {
			t.Fatalf("site %s has %d leases", s, len(ls))
		}
		seen := map[string]bool{}
		for i, l := range ls {
			if l.Split != (i > 0) {
				t.Fatalf("site %s: lease %d of %d: %+v", s, i, len(ls), l)
			}
			if seen[l.Peer] || l.Expires.Sub(now) > cfg.IdleTTL || l.Active && l.Expires.Sub(now) > cfg.ActiveTTL {
				t.Fatalf("site %s: %+v at %s", s, l, now)
			}
			if h, ok := tab.Holder(now, s, l.Peer); ok != now.Before(l.Expires) || ok && h.ID != l.ID {
				t.Fatalf("site %s: holder of %+v is %+v, %v", s, l, h, ok)
			}
			seen[l.Peer] = true
			if l.Active {
				active++
			}
		}
	}
	if active != tab.Active() || active > cfg.MaxActive {
		t.Fatalf("%d leases are active, counted %d, allowed %d", active, tab.Active(), cfg.MaxActive)
	}
}

// Retries of many sites that are refused at one instant must not come back at one instant.
func TestJitterSpreads(t *testing.T) {
	const n, buckets = 1200, 10
	lo, hi := 6*time.Second, 30*time.Second
	var count [buckets]int
	now := time.Unix(1_800_000_000, 0)
	for i := range n {
		d := jitter(now, fmt.Sprintf("site-%04d", i), "12D3KooW", lo, hi)
		if d < lo || d >= hi {
			t.Fatalf("%s is outside [%s, %s)", d, lo, hi)
		}
		if d != jitter(now, fmt.Sprintf("site-%04d", i), "12D3KooW", lo, hi) {
			t.Fatal("not the same twice")
		}
		count[int((d-lo)*buckets/(hi-lo))]++
	}
	for i, c := range count {
		if c < n/buckets/2 || c > n/buckets*2 {
			t.Errorf("bucket %d of %d has %d of %d retries", i, buckets, c, n)
		}
	}
}
