package swarm

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/roster"
)

// Whatever comes in whatever order, also what no honest peer would say, these hold after every step.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		s := New(Config{Self: "me"}, now)
		peers := []Peer{"a", "b", "c"}
		pick := rapid.SampledFrom(peers)
		number := rapid.IntRange(0, 11)
		which := rapid.SampledFrom([]Bundle{{1}, {2}})
		open := map[uint32]Fetch{} // asked for, neither answered nor cancelled
		known := map[Bundle]int{}
		bitmap := func(total int) []byte {
			out := make([]byte, (total+7)/8)
			for i := range total {
				if rapid.Bool().Draw(t, "bit") {
					out[i/8] |= 1 << (i % 8)
				}
			}
			return out
		}
		any := func() (uint32, bool) {
			reqs := make([]uint32, 0, len(open))
			for _, r := range s.byAge() {
				reqs = append(reqs, r.id)
			}
			if len(reqs) == 0 {
				return 0, false
			}
			return rapid.SampledFrom(reqs).Draw(t, "req"), true
		}
		step := func(ev Event) {
			led := s.Leads()
			for _, a := range s.Step(now, ev) {
				switch a := a.(type) {
				case Fetch:
					if a.From == WAN {
						if !s.leads() {
							t.Fatalf("%T: chunk %d asked of the WAN without a lease (led before: %v)", ev, a.Number, led)
						}
						for p := range s.trusted {
							if p.have[a.Bundle].has(a.Number) {
								t.Fatalf("%T: chunk %d asked of the WAN although %s holds it", ev, a.Number, p.id)
							}
						}
					} else if p := s.peers[a.From]; p == nil || p.banned {
						t.Fatalf("%T: asked of %q", ev, a.From)
					}
					for _, o := range open {
						if o.Bundle == a.Bundle && o.Number == a.Number && (o.From == WAN || a.From == WAN || o.From == a.From) {
							t.Fatalf("%T: chunk %d asked for twice", ev, a.Number)
						}
					}
					open[a.Req] = a
				case Cancel:
					if _, ok := open[a.Req]; !ok {
						t.Fatalf("%T: request %d cancelled that is not open", ev, a.Req)
					}
					delete(open, a.Req)
				case Complete:
					if b := s.bundles[a.Bundle]; b == nil || b.left != 0 {
						t.Fatalf("%T: said to be complete and is not", ev)
					}
				}
			}
			if err := consistent(s, open); err != nil {
				t.Fatalf("%T: %v", ev, err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"tick": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
				step(Tick{})
			},
			"long": func(*rapid.T) { now = now.Add(20 * time.Minute); step(Tick{}) },
			"up": func(t *rapid.T) {
				step(PeerUp{pick.Draw(t, "peer"), rapid.SampledFrom([]roster.WAN{roster.WANAllow, roster.WANNever, roster.WANPrefer}).Draw(t, "role")})
			},
			"down": func(t *rapid.T) { step(PeerDown{pick.Draw(t, "peer")}) },
			"role": func(t *rapid.T) {
				step(Role{rapid.SampledFrom([]Peer{"me", "a", "b"}).Draw(t, "peer"), rapid.SampledFrom([]roster.WAN{roster.WANAllow, roster.WANNever}).Draw(t, "role")})
			},
			"have": func(t *rapid.T) {
				total := rapid.IntRange(0, 16).Draw(t, "total")
				step(PeerHave{pick.Draw(t, "peer"), which.Draw(t, "bundle"), rapid.Bool().Draw(t, "wants"), total, bitmap(total)})
			},
			"haveAdd": func(t *rapid.T) {
				step(PeerHaveAdd{pick.Draw(t, "peer"), which.Draw(t, "bundle"), []uint32{uint32(number.Draw(t, "n")), uint32(rapid.IntRange(0, 1<<20).Draw(t, "far"))}})
			},
			"uplink": func(t *rapid.T) {
				step(PeerUplink{pick.Draw(t, "peer"), rapid.SampledFrom([]Peer{"", "a", "b", "me", "stranger"}).Draw(t, "holder"), rapid.Bool().Draw(t, "split")})
			},
			"bundle": func(t *rapid.T) {
				d := which.Draw(t, "bundle")
				n := max(known[d], rapid.SampledFrom([]int{2, 12}).Draw(t, "chunks"))
				known[d] = n
				e := BundleAdd{Bundle: d, Sizes: make([]int64, n), Index: 2, Have: make([]bool, n), Wants: rapid.Bool().Draw(t, "wants")}
				for i := range n {
					e.Sizes[i], e.Have[i] = int64(1+i)<<17, rapid.IntRange(0, 3).Draw(t, "have") == 0
				}
				step(e)
			},
			"drop": func(t *rapid.T) {
				d := which.Draw(t, "bundle")
				delete(known, d)
				step(BundleDrop{d})
			},
			"stored": func(t *rapid.T) {
				if r, ok := any(); ok {
					delete(open, r)
					step(Stored{r})
				}
			},
			"failed": func(t *rapid.T) {
				if r, ok := any(); ok {
					delete(open, r)
					step(Failed{r, Why(rapid.IntRange(0, int(WhyLocal)).Draw(t, "why"))})
				}
			},
			"late":    func(t *rapid.T) { step(Stored{rapid.Uint32Range(1<<30, 1<<31).Draw(t, "req")}) },
			"gained":  func(t *rapid.T) { step(Gained{which.Draw(t, "bundle"), number.Draw(t, "n")}) },
			"lost":    func(t *rapid.T) { step(Lost{which.Draw(t, "bundle"), number.Draw(t, "n")}) },
			"wanUp":   func(*rapid.T) { step(WANUp{}) },
			"wanDown": func(*rapid.T) { step(WANDown{}) },
			"grant": func(t *rapid.T) {
				ttl := time.Duration(rapid.IntRange(0, 60).Draw(t, "ttl")) * time.Second
				step(LeaseGranted{uint64(rapid.IntRange(1, 3).Draw(t, "lease")), ttl, ttl / 3, rapid.Bool().Draw(t, "split"), 40 * time.Millisecond, 0})
			},
			"refuse": func(t *rapid.T) {
				step(LeaseRefused{rapid.SampledFrom([]Peer{"", "a", "stranger", "me"}).Draw(t, "holder"), time.Duration(rapid.IntRange(0, 5).Draw(t, "retry")) * time.Second, 0})
			},
		})
	})
}

// consistent recounts everything that a Swarm counts.
func consistent(s *Swarm, open map[uint32]Fetch) error {
	if len(open) != len(s.reqs) {
		return fmt.Errorf("%d requests are remembered, %d are open", len(s.reqs), len(open))
	}
	var wan int64
	lan := map[*neighbour]int{}
	asked := map[*bundle]map[int]int8{}
	for _, r := range s.reqs {
		if _, ok := open[r.id]; !ok {
			return fmt.Errorf("request %d is remembered and not open", r.id)
		}
		if s.bundles[r.b.id] != r.b {
			return fmt.Errorf("request %d is for a bundle that is forgotten", r.id)
		}
		if r.from == nil {
			wan += r.b.sizes[r.n]
		} else if lan[r.from]++; s.peers[r.from.id] != r.from {
			return fmt.Errorf("request %d is open with %s, who is gone", r.id, r.from.id)
		}
		if asked[r.b] == nil {
			asked[r.b] = map[int]int8{}
		}
		asked[r.b][r.n]++
	}
	if wan != s.wan.inFlight {
		return fmt.Errorf("%d bytes in flight over the WAN, counted %d", wan, s.wan.inFlight)
	}
	total := 0
	for _, p := range s.order {
		if total += p.inFlight; p.inFlight != lan[p] || p.inFlight > s.cfg.Depth {
			return fmt.Errorf("%s: %d requests, counted %d", p.id, lan[p], p.inFlight)
		}
		for _, h := range p.have {
			k := 0
			for i := range 8 * len(h.bits) {
				if h.has(i) {
					k++
				}
			}
			if k != h.count {
				return fmt.Errorf("%s holds %d, counted %d", p.id, k, h.count)
			}
		}
	}
	if total > s.cfg.InFlight {
		return fmt.Errorf("%d requests in flight", total)
	}
	for _, b := range s.list {
		left := 0
		for n := range b.sizes {
			holders := int16(0)
			for _, p := range s.order {
				if !p.banned && p.have[b.id].has(n) {
					holders++
				}
			}
			switch {
			case b.holders[n] != holders:
				return fmt.Errorf("chunk %d has %d holders, counted %d", n, holders, b.holders[n])
			case b.req[n] != asked[b][n] || b.req[n] > maxTwins:
				return fmt.Errorf("chunk %d was asked for %d times, counted %d", n, asked[b][n], b.req[n])
			case (b.place[n] >= 0) != (!b.mine[n] && b.req[n] == 0):
				return fmt.Errorf("chunk %d: place %d, mine %v, asked %d", n, b.place[n], b.mine[n], b.req[n])
			case b.place[n] >= 0 && b.buckets[holders][b.place[n]] != int32(n):
				return fmt.Errorf("chunk %d is not where it says it is", n)
			}
			if !b.mine[n] {
				left++
			}
		}
		if left != b.left {
			return fmt.Errorf("%d chunks are missing, counted %d", left, b.left)
		}
	}
	return nil
}
