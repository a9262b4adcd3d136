package rollout

import (
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// One step over 10,000 nodes in 1,200 sites where nothing has changed, which is what the seeder does every second.
func BenchmarkStep(b *testing.B) {
	x := &stage{now: day.Add(3 * time.Hour), s: New(day, "pos", 1, nil), w: World{Revision: 1, Sites: map[string]Site{}, Policy: testPolicy(policy.Rollout{Batch: policy.Size{Percent: 1}})}, shift: map[string]time.Duration{}}
	for i := range 10_000 {
		site := fmt.Sprintf("s%04d", i%1200)
		x.w.Nodes = append(x.w.Nodes, Fact{Site: site, Node: fmt.Sprintf("n%d", i), Said: SaidWaiting, Staged: true})
		x.w.Sites[site] = Site{}
	}
	x.step(b)
	for b.Loop() {
		x.s, _ = Step(x.now, x.s, x.w)
	}
	b.ReportMetric(float64(len(must(x.s.Encode())))/1e6, "MB/state")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
