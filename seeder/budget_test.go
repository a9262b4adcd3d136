package seeder

import (
	"testing"

	"pgregory.net/rapid"
)

// No node gets a chunk a fourth time on a day, nor anything after that, and one that has had its share is known as such;
// the next day is another one, and nobody's greed costs anybody else.
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
			want := !over[k.node] && got[k] < maxSends && lost[k.node] <= maxLost
			ok, first := b.may(k.node, day, k.number)
			if ok != want || first != (!want && !over[k.node]) || b.over(k.node, day) != !want {
				t.Fatalf("%v, sent %d times, lost %d: may %v, first %v", k, got[k], lost[k.node], ok, first)
			}
			switch over[k.node] = !want; {
			case !ok:
			case rapid.Bool().Draw(t, "arrives"):
				b.sent(k.node, day, k.number)
				got[k]++
			default:
				n := rapid.Int64Range(0, 20<<20).Draw(t, "bytes")
				b.lost(k.node, day, n)
				lost[k.node] += n
			}
		}
		for _, n := range []string{"a", "b", "c"} {
			if ok, _ := b.may(n, "2026-11-22", 1); !ok || b.over(n, "2026-11-22") {
				t.Fatalf("%s pays for yesterday", n)
			}
		}
		if len(b.nodes) > 3 {
			t.Fatalf("%d shares are kept", len(b.nodes))
		}
	})
}
