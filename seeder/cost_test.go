package seeder

import (
	"fmt"
	"math"
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
)

// What is asked again and again, and what the rollouts do every second, costs a few allocations for each node and no more
// for each of many: of a fleet four times as large, four times as much.
func TestCostOfANode(t *testing.T) {
	if testing.Short() { // as under the race detector, which allocates by itself
		t.Skip("needs half a minute: run without -short")
	}
	const site = 20 // nodes
	cost := map[string]map[int]float64{}
	for _, nodes := range []int{1000, 4000} {
		b := start(t, nil)
		b.crowd(nodes/site, nodes, func(i int) map[string]string { return map[string]string{"role": "pos", "region": fmt.Sprint(i % 7)} })
		x := b.bundle("2.0", 2, b.release)
		b.push(x, -1)
		b.rolling(x, 1, `batchSize: 100`)
		for name, fn := range map[string]func() error{
			"summary": func() error { _, err := b.summary(t.Context(), true); return err },
			"step":    func() error { return b.rollouts.step(t.Context()) },
			"plan": func() error {
				_, err := b.plan(t.Context(), api.PlanRequest{Policies: []api.PlanFile{{File: "a.yaml", Text: policyText("pos", x, x.Digest, "  targets: {selector: {matchLabels: {role: pos}}}\n")}}})
				return err
			},
		} {
			n := math.Inf(1)
			for range 5 { // what goes on besides is counted too: the least is nearest
				n = min(n, testing.AllocsPerRun(1, func() {
					if err := fn(); err != nil {
						t.Error(name, err)
					}
				}))
			}
			if cost[name] == nil {
				cost[name] = map[int]float64{}
			}
			cost[name][nodes] = n / float64(nodes)
		}
		b.stop()
	}
	for name, most := range map[string]float64{"summary": 4, "step": 20, "plan": 20} {
		small, large := cost[name][1000], cost[name][4000]
		t.Logf("%s: %.1f allocations for each of 1000 nodes, %.1f for each of 4000", name, small, large)
		if large > most || large > 1.3*small+1 {
			t.Errorf("%s: want at most %.0f, and as many for each node however many there are", name, most)
		}
	}
}
