package rollout

import (
	"fmt"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/window"
)

// What a plan says before a rollout is what the rollout says of itself when it begins: the same batches, and the same
// finish.
func TestPlanAgrees(t *testing.T) {
	zones := []string{"America/New_York", "America/Chicago", "America/Winnipeg", "Asia/Kolkata"}
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string, least, most int) int { return rapid.IntRange(least, most).Draw(t, name) }
		now := time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(n("hours", 0, 400)) * time.Hour)
		p := testPolicy(policy.Rollout{Batch: policy.Size{Count: n("size", 0, 9)}, MaxUnavailable: policy.Size{Count: n("cap", 1, 3)},
			BatchDelay: time.Duration(n("delay", 0, 50)) * time.Minute, FromStarted: rapid.Bool().Draw(t, "fromStarted"), BySite: rapid.Bool().Draw(t, "bySite")})
		p.Selector.All = true
		p.Schedule = policy.Schedule{Windows: rapid.SampledFrom([]string{"Tue 02:00-04:00", "Daily 23:00-02:00", ""}).Draw(t, "windows"), Zone: policy.ZoneSite, Cutoff: time.Duration(n("cutoff", 0, 60)) * time.Minute}
		p.Rollback.HealthyForSeconds = n("healthy", 0, 300)
		if rapid.Bool().Draw(t, "canary") {
			p.Rollout.Canary = &policy.Canary{Soak: time.Duration(n("soak", 0, 50)) * time.Hour, Selector: policy.Selector{Labels: map[string]string{"ring": "canary"}}}
		}
		before := plan.World{Now: now, Missing: func(string, manifest.Digest) int64 { return 0 },
			Bundles: []plan.Bundle{{Name: p.Bundle.Name, Version: p.Bundle.Version, Checksum: p.Bundle.Checksum, Published: true}}}
		w := World{Policy: p, Revision: 7, Sites: map[string]Site{}}
		rules := map[string]*window.Rules{}
		for i := range n("sites", 1, 6) {
			zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
			if err != nil {
				t.Fatal(err)
			}
			site := plan.Site{Name: fmt.Sprintf("s%d", i), Zone: zone}
			if rules[site.Name], err = p.Schedule.Rules(zone); err != nil {
				t.Fatal(err)
			}
			span := rules[site.Name].Upcoming(now, 1)[0]
			w.Sites[site.Name] = Site{Known: true, Opens: span.Opens, Closes: span.Closes}
			for k := range n("nodes", 1, 12) {
				x := plan.Node{Name: fmt.Sprintf("n%d", k), Labels: map[string]string{"ring": "others"}}
				if i+k == 0 || n("ring", 0, 9) == 0 {
					x.Labels["ring"] = "canary"
				}
				site.Nodes = append(site.Nodes, x)
				w.Nodes = append(w.Nodes, Fact{Site: site.Name, Node: x.Name, Said: SaidWaiting, Canary: x.Labels["ring"] == "canary"})
			}
			before.Sites = append(before.Sites, site)
		}
		said := plan.Compute(before, []plan.File{{Policy: p, Revision: 7}}, false).Changes[0]

		s := New(now, p.Name, 7, nil)
		x := &stepper{State: s.clone(), w: w, r: *p.Rollout, now: now}
		x.look()
		x.join() // what a step does before it lets anything start
		batches := 0
		for _, c := range x.Cohorts {
			batches = max(batches, c.Batches)
		}
		here := batch.Project(now, x.Pace(batch.PaceOf(p)), x.Ahead(func(site string) *window.Rules { return rules[site] }))
		finish := here.Finish.UTC()
		if d := cmp.Diff(&finish, said.Finish); d != "" || batches != said.Batches || here.Why != "" {
			t.Fatalf("%d batches, the plan says %d; %s %s", batches, said.Batches, here.Why+said.Why, d)
		}
	})
}
