package rollout

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// A seeder that comes back from a backup numbers its grants above those that it has forgotten: nodes and executors, which
// have not, follow them. The control is what a mere count would have said.
func TestSerialsAfterABackup(t *testing.T) {
	barred := 0
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		x := &stage{now: day, always: true, s: New(day, "pos", 1, nil), w: World{Revision: 1, Sites: map[string]Site{},
			Policy: testPolicy(policy.Rollout{Strict: true, MaxUnavailable: policy.Size{Count: 1}, Budget: policy.Budget{Max: policy.Size{Count: 9}}})}}
		for i := range 40 {
			x.fact(fmt.Sprintf("s%d", i), "a").Staged = true
		}
		seen := map[string]uint64{}
		var saved []byte
		step := func() {
			x.now = x.now.Add(time.Duration(1+rnd.IntN(200)) * time.Second)
			for _, a := range x.step(t) {
				if g := a.Grant; g != nil {
					if g.Serial <= seen[g.Site] {
						t.Fatalf("seed %d: serial %d of %s after %d", seed, g.Serial, g.Site, seen[g.Site])
					}
					seen[g.Site] = g.Serial
				}
			}
		}
		at := 1 + rnd.IntN(20)
		for i := range 40 {
			if i == at {
				b, err := x.s.Encode()
				if err != nil {
					t.Fatal(err)
				}
				saved = b
			}
			step()
		}
		s, err := Decode(saved)
		if err != nil {
			t.Fatal(err)
		}
		x.s = s
		for site, sent := range s.Sites {
			if sent.Serial+1 <= seen[site] {
				barred++
			}
		}
		for range 5 {
			step()
		}
	}
	if barred == 0 {
		t.Error("a count would have done as well: this shows nothing")
	}
}
