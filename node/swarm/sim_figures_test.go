package swarm

import (
	"math/bits"
	"testing"
	"time"
)

// The figures of the swarm in virtual time, printed and not asserted: what the planner alone costs, on lines without
// headers and processes without load. measures.md has the formulas.

// lanBroadcast: one node has it all, and u is what the lines carry.
func lanBroadcast(n int) layout {
	l := baseline()
	l.nodes, l.bytes, l.lan, l.slice = n, 64<<20, 100*mbit, 16<<10
	l.prepare = func(s *sim) {
		for i := range s.nodes[0].have {
			s.nodes[0].have[i] = true
		}
		s.own()
		s.wan.cut = true
		for _, n := range s.nodes[1:] { // they meet first; then there is something to share
			n.waits = 3 * time.Second
		}
	}
	return l
}

// figureSizes are the sizes of a site to look at: one in the short run, all in the full one.
func figureSizes(short int, more ...int) []int {
	if simSeeds <= shortSeeds {
		return []int{short}
	}
	return append([]int{short}, more...)
}

func figureSeeds() int { return min(max(1, simSeeds/4), 11) }

func TestSimLANFigures(t *testing.T) {
	for _, n := range figureSizes(8, 2, 16, 30) {
		var ratio, traffic []float64
		for i := range figureSeeds() {
			s := newSim(t, lanBroadcast(n), simFirst+uint64(i))
			if _, ok := s.run(5 * time.Minute); !ok {
				t.Fatal(s.bad)
			}
			began := 3 * time.Second
			c := float64(s.total()) / float64(len(s.sizes))
			best := (float64(len(s.sizes)-1) + float64(bits.Len(uint(n-1)))) * c / float64(s.l.lan)
			var got int64
			for _, n := range s.nodes {
				got += n.received
			}
			ratio = append(ratio, (s.last()-began).Seconds()/best)
			traffic = append(traffic, float64(got)/float64(int64(n-1)*s.total()))
		}
		t.Logf("LAN broadcast N=%-2d (virtual): R_lan median %.3f worst %.3f, A_lan median %.4f worst %.4f", n, median(ratio), worst(ratio), median(traffic), worst(traffic))
	}
}

// TestSimWANFigures: a site that has met, with an idle uplink, hears of a bundle of 64 MiB behind 50 Mbit/s and 40 ms.
// A plain HTTP transfer over the same line takes two round trips and F/W.
func TestSimWANFigures(t *testing.T) {
	for _, n := range figureSizes(8, 1, 2, 16, 30) {
		for _, store := range []time.Duration{3 * time.Millisecond, 30 * time.Millisecond} {
			var ratio, start, tail []float64
			for i := range figureSeeds() {
				l := baseline()
				l.nodes, l.bytes, l.store = n, 64<<20, store
				l.prepare = func(s *sim) {
					for _, n := range s.nodes {
						n.waits = 8 * time.Second
					}
				}
				s := newSim(t, l, simFirst+uint64(i))
				if _, ok := s.run(5 * time.Minute); !ok {
					t.Fatal(s.bad)
				}
				plain := 2*s.l.rtt + lasts(s.total(), s.l.wan)
				took := s.last() - 8*time.Second
				ratio = append(ratio, plain.Seconds()/took.Seconds())
				start = append(start, s.wan.began.Sub(time.Unix(8, 0)).Seconds())
				tail = append(tail, s.last().Seconds()-s.wan.ended.Sub(time.Unix(0, 0)).Seconds())
			}
			t.Logf("E_wan (virtual) N=%-2d, %2d ms to store a chunk: median %.4f worst %.4f; the second chunk begins after %.3f s, the last node has all %.3f s after the WAN is done",
				n, store.Milliseconds(), median(ratio), least(ratio), median(start), median(tail))
		}
	}
}
