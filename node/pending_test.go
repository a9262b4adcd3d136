package node

import (
	"testing"

	"pgregory.net/rapid"
)

// Each Get pays for one answer, whatever became of it, and nothing else does; what is remembered is bounded.
func TestPending(t *testing.T) {
	ids := strangers(t, 3)
	rapid.Check(t, func(t *rapid.T) {
		p := newPending()
		owed := map[int]int{}
		open := map[uint32]int{} // to whom a request went
		last := uint32(0)
		for range rapid.IntRange(1, 500).Draw(t, "steps") {
			who := rapid.IntRange(0, 2).Draw(t, "who")
			req := uint32(0)
			if last > 0 {
				req = uint32(rapid.IntRange(1, int(last)).Draw(t, "req"))
			}
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1:
				last++
				p.add(last, want{from: ids[who], number: int(last)})
				open[last] = who
				owed[who]++
			case 2:
				p.cancel(req)
			case 3, 4:
				w, known, asked := p.take(ids[who], req)
				at, ok := open[req]
				if asked != (owed[who] > 0) || known && (!ok || at != who || w.number != int(req)) {
					t.Fatalf("answer %d of %d, who owes %d: known %v, asked for %v", req, who, owed[who], known, asked)
				}
				if asked {
					owed[who]--
				}
				if known {
					delete(open, req)
				}
			case 5:
				p.leave(ids[who])
				owed[who] = 0
				for r, at := range open {
					if at == who {
						delete(open, r)
					}
				}
			}
			given := 0
			for _, w := range p.by {
				if w.given {
					given++
				}
			}
			if len(p.by) > len(open) || given > maxGiven || len(p.given) > maxGiven {
				t.Fatalf("%d requests are remembered, %d of them given up, of %d", len(p.by), given, len(open))
			}
		}
	})
}
