package batch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/window"
)

func TestShares(t *testing.T) {
	for _, c := range []struct {
		size    int
		weights []int
		want    []int
	}{
		{100, []int{10000}, []int{100}},
		{10, []int{40, 30, 20, 10}, []int{4, 3, 2, 1}},
		{10, []int{37, 33, 20, 10}, []int{4, 3, 2, 1}}, // 3.7, 3.3, 2, 1
		{100, []int{9990, 10}, []int{99, 1}},           // a small one goes too
		{2, []int{5, 5, 5}, []int{1, 1, 1}},            // more than the size: none can wait for the others
		{3, []int{5, 0, 5}, []int{2, 0, 1}},
		{0, []int{5, 5}, []int{0, 0}},
		{50, []int{5, 6}, []int{5, 6}},
		{5, nil, []int{}},
	} {
		if d := cmp.Diff(c.want, batch.Shares(c.size, c.weights)); d != "" {
			t.Errorf("%d by %v: %s", c.size, c.weights, d)
		}
	}
}

// Whatever is cut: everybody has one place, the canary before the others; no batch has more of a site than may be out of
// service; and the batches of all cohorts together have no more than the size, but for one of each cohort.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string, least, most int) int { return rapid.IntRange(least, most).Draw(t, name) }
		r := policy.Rollout{Batch: policy.Size{Count: n("size", 0, 12)}, MaxUnavailable: policy.Size{Count: n("cap", 1, 4)}, BySite: rapid.Bool().Draw(t, "bySite")}
		var nodes []batch.Node
		cohorts, sites := n("cohorts", 1, 4), map[int]map[string]bool{}
		for i := range n("nodes", 0, 60) {
			site := n("site", 0, 7)
			nodes = append(nodes, batch.Node{Site: fmt.Sprintf("s%d", site), Name: fmt.Sprintf("n%d", i), Cohort: site % cohorts, Canary: n("canary", 0, 9) == 0})
		}
		revision := uint64(n("revision", 1, 3))
		shuffled := rapid.Permutation(nodes).Draw(t, "order")
		batch.Order("p", revision, nodes)
		batch.Order("p", revision, shuffled)
		if d := cmp.Diff(nodes, shuffled); d != "" {
			t.Fatalf("the order depends on the order: %s", d)
		}
		out := batch.Cut(r, nodes)
		have := make([]batch.Node, len(out))
		size := map[[2]int]int{} // nodes, or sites, by cohort and batch
		ofSite := map[string]int{}
		seen := map[string]bool{}
		for i, p := range out {
			have[i] = p.Node
			if (p.Batch == 0) != p.Canary || i > 0 && out[i-1].Batch > 0 && p.Batch == 0 {
				t.Fatalf("%+v after %+v", p, out[max(0, i-1)])
			}
			if p.Batch == 0 {
				continue
			}
			if sites[p.Cohort] == nil {
				sites[p.Cohort] = map[string]bool{}
			}
			if !r.BySite {
				size[[2]int{p.Cohort, p.Batch}]++
				key := fmt.Sprint(p.Site, " ", p.Batch)
				if ofSite[key]++; r.Batch.Count > 0 && ofSite[key] > r.MaxUnavailable.Count {
					t.Fatalf("%d nodes of %s in batch %d", ofSite[key], p.Site, p.Batch)
				}
			} else if key := fmt.Sprint(p.Site, " ", p.Batch); !seen[key] {
				seen[key] = true
				size[[2]int{p.Cohort, p.Batch}]++
				if sites[p.Cohort][p.Site] {
					t.Fatalf("site %s in two batches", p.Site)
				}
			}
			sites[p.Cohort][p.Site] = true
		}
		slices.SortFunc(have, func(a, b batch.Node) int { return slices.Index(nodes, a) - slices.Index(nodes, b) })
		if d := cmp.Diff(nodes, have, cmp.Transformer("none", func(x []batch.Node) []batch.Node { return slices.Concat(x) })); d != "" {
			t.Fatalf("places: %s", d)
		}
		together := 0 // the largest batch of each cohort
		for c := range sites {
			most := 0
			for k, n := range size {
				if k[0] == c {
					most = max(most, n)
				}
			}
			together += most
		}
		if r.Batch.Count > 0 && together > max(r.Batch.Count, len(sites)) && together > r.Batch.Count+len(sites)-1 {
			t.Fatalf("%d at once in %d cohorts, the size is %d", together, len(sites), r.Batch.Count)
		}
	})
}

// The projection of the design: 10,000 nodes in batches of 100, a quarter of an hour apart, in a window of two hours a
// week, are eight batches a window and thirteen windows.
func TestProject(t *testing.T) {
	chicago, err := time.LoadLocation("America/Chicago")
	if err != nil {
		t.Fatal(err)
	}
	rules := func(windows string, cutoff time.Duration) *window.Rules {
		set, err := window.Parse(windows)
		if err != nil {
			t.Fatal(err)
		}
		return &window.Rules{Windows: set, Zone: chicago, Cutoff: cutoff}
	}
	const quarter = 15 * time.Minute
	now := time.Date(2026, 8, 24, 7, 0, 0, 0, time.UTC) // Monday; the first window opens a day later
	tuesday := "Tue 02:00-04:00"
	for _, c := range []struct {
		name         string
		pace         batch.Pace
		cohort       batch.Cohort
		finish       string // Chicago
		windows, per int
	}{
		{"the design's", batch.Pace{Delay: quarter}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 100}, "2026-11-17 02:45", 13, 8},
		{"batches of 400", batch.Pace{Delay: quarter}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 25}, "2026-09-15 02:00", 4, 8},
		{"a cut-off of half an hour", batch.Pace{Delay: quarter, Cutoff: 2 * quarter}, batch.Cohort{Rules: rules(tuesday, 2*quarter), Batches: 12}, "2026-09-01 03:00", 2, 7},
		{"no delay", batch.Pace{}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 100}, "2026-08-25 02:00", 1, 100},
		{"a minute of health", batch.Pace{Settle: time.Minute}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 1}, "2026-08-25 02:01", 1, 1},
		{"a soak of a day", batch.Pace{Delay: quarter, Canary: true, Soak: 24 * time.Hour}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 8, Canary: true}, "2026-09-01 03:45", 2, 8},
		{"a soak within the window", batch.Pace{Delay: quarter, Canary: true, Soak: time.Hour}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 4, Canary: true}, "2026-08-25 03:45", 1, 4},
		{"a canary of nobody", batch.Pace{Canary: true, Soak: 48 * time.Hour}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 1}, "2026-08-25 02:00", 1, 1},
		{"it soaks already", batch.Pace{Delay: quarter, Canary: true, Soak: 48 * time.Hour, Soaking: now.Add(-24 * time.Hour)}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 1}, "2026-08-25 02:00", 1, 1},
		{"the batch before has begun", batch.Pace{Delay: quarter}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 2, From: now.Add(25 * time.Hour)}, "2026-08-25 03:15", 1, 2},
		{"a short break is no shorter delay", batch.Pace{Delay: 3 * time.Hour}, batch.Cohort{Rules: rules("Tue 02:00-03:00; Tue 04:00-08:00", 0), Batches: 2}, "2026-08-25 05:00", 2, 1},
		{"always open", batch.Pace{Delay: quarter}, batch.Cohort{Rules: &window.Rules{Zone: chicago}, Batches: 5}, "2026-08-24 03:00", 1, 5},
		{"staged late", batch.Pace{}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 1, Staged: now.Add(25 * time.Hour)}, "2026-08-25 03:00", 1, 1},
		{"staged too late", batch.Pace{Before: true}, batch.Cohort{Rules: rules(tuesday, 0), Batches: 1, Staged: now.Add(25 * time.Hour)}, "2026-09-01 02:00", 2, 1},
	} {
		got := batch.Project(now, c.pace, []batch.Cohort{c.cohort})
		if at := got.Finish.In(chicago).Format("2006-01-02 15:04"); got.Why != "" || at != c.finish || len(got.Courses[0].Windows) != c.windows || got.Courses[0].PerWindow != c.per {
			t.Errorf("%s: %s %s, %d windows of %d", c.name, at, got.Why, len(got.Courses[0].Windows), got.Courses[0].PerWindow)
		}
	}
	if got := batch.Project(now, batch.Pace{}, []batch.Cohort{{Rules: rules(tuesday, 0), Batches: 1}, {Batches: 1}}); got.Why == "" || !got.Finish.IsZero() || got.Courses[0].Finish.IsZero() {
		t.Errorf("a cohort without a window: %+v", got)
	}
}

// What a policy says of its pace.
func TestPaceOf(t *testing.T) {
	p := &policy.Policy{Rollback: policy.Rollback{HealthyForSeconds: 60}, Schedule: policy.Schedule{Cutoff: time.Minute}, Staging: policy.Staging{RequireBeforeWindow: true}}
	if d := cmp.Diff(batch.Pace{Settle: time.Minute, Cutoff: time.Minute, Before: true}, batch.PaceOf(p)); d != "" {
		t.Error(d)
	}
	p.Rollout = &policy.Rollout{BatchDelay: time.Hour, Canary: &policy.Canary{Soak: 2 * time.Hour}}
	if x := batch.PaceOf(p); x.Delay != time.Hour+time.Minute || !x.Canary || x.Soak != 2*time.Hour {
		t.Errorf("%+v", x)
	}
	p.Rollout.FromStarted = true
	p.FastTrack = &policy.FastTrack{CVE: "CVE-2026-12345", Approvers: []string{"ann", "bob"}}
	if x := batch.PaceOf(p); x.Delay != time.Hour || x.Canary || x.Soak != 0 {
		t.Errorf("%+v", x)
	}
}
