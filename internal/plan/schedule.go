package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/window"
)

// shownWindows and shownLate bound what a Change lists.
const (
	shownWindows = 32
	shownLate    = 64
)

// forecast is what is known of one policy's rollout before it begins.
type forecast struct {
	policy  *policy.Policy
	now     time.Time
	nodes   []batch.Node // in their order
	cohorts []cohort
}

// cohort is sites whose windows open at the same instant: each has its own clock of batches (rule B3).
type cohort struct {
	batch.Cohort
	first time.Time      // that instant
	zones map[string]int // sites by zone
	sites int
}

// zone is that of most of its sites.
func (x cohort) zone() string {
	if len(x.Rules.Windows) == 0 && len(x.Rules.Blackouts) == 0 {
		return "any time"
	}
	return slices.MaxFunc(slices.Sorted(maps.Keys(x.zones)), func(a, b string) int { return cmp.Compare(x.zones[a], x.zones[b]) })
}

// schedule projects staging, windows and batches of one policy. of says which nodes follow it.
func (p *Plan) schedule(w World, f File, of func(Site, int) bool, sites map[string]int, c *Change) {
	pol := f.Policy
	x := forecast{policy: pol, now: w.Now}
	rate := share(w, pol, sites)
	unknown, never, canary := 0, 0, 0
	for _, s := range w.Sites {
		if sites[s.Name] == 0 {
			continue
		}
		rules, err := pol.Schedule.Rules(s.Zone)
		if err != nil {
			rules = nil
			unknown++
		}
		staged := c.stage(w, s, pol, rules, rate)
		if rules == nil {
			continue
		}
		if staged.IsZero() {
			never++
		}
		k := x.cohort(rules, staged)
		for i, n := range s.Nodes {
			if of(s, i) {
				b := batch.Node{Site: s.Name, Name: n.Name, Cohort: k, Canary: pol.CanaryFirst() && pol.Rollout.Canary.Selector.Matches(n.Labels)}
				if b.Canary {
					canary++
					x.cohorts[k].Canary = true
				}
				x.nodes = append(x.nodes, b)
			}
		}
	}
	slices.SortStableFunc(c.Late, func(a, b Late) int { return cmp.Or(cmp.Compare(b.Late, a.Late), cmp.Compare(a.Site, b.Site)) })
	c.Late = c.Late[:min(len(c.Late), shownLate)]
	switch {
	case pol.Suspend:
		c.Why = "the policy is suspended: nothing starts"
		return
	case unknown > 0:
		c.Why = fmt.Sprintf("%d sites have no time zone, and the policy's windows are in the zone of the site", unknown)
	case never > 0:
		c.Why = fmt.Sprintf("%d sites never hold the bundle: their profiles let nothing through", never)
	case pol.CanaryFirst() && canary == 0:
		c.Why = "the selector of the canary picks no node: a person would have to promote it"
	}
	batch.Order(pol.Name, f.Revision, x.nodes)
	p.project(x, c)
}

// cohort finds the cohort of a site that is staged then.
func (x *forecast) cohort(rules *window.Rules, staged time.Time) int {
	var first time.Time
	if next := rules.Upcoming(x.now, 1); len(next) > 0 {
		first = next[0].Opens
	}
	i := slices.IndexFunc(x.cohorts, func(y cohort) bool { return y.first.Equal(first) })
	if i < 0 {
		i = len(x.cohorts)
		x.cohorts = append(x.cohorts, cohort{first: first, zones: map[string]int{}, Cohort: batch.Cohort{Rules: rules}})
	}
	y := &x.cohorts[i]
	y.zones[rules.Zone.String()]++
	y.sites++
	y.Staged = latest(y.Staged, staged)
	return i
}

// run cuts the nodes into batches of a size, nil: as the policy says, and lets them go through their windows.
func (x *forecast) run(size *policy.Size) (p batch.Projection, most int) {
	r := policy.Rollout{}
	if x.policy.Rollout != nil {
		r = *x.policy.Rollout
	}
	if size != nil {
		r.Batch = *size
	}
	ahead := make([]batch.Cohort, len(x.cohorts))
	for i := range x.cohorts {
		ahead[i] = x.cohorts[i].Cohort
	}
	for _, n := range batch.Cut(r, x.nodes) {
		ahead[n.Cohort].Batches = max(ahead[n.Cohort].Batches, n.Batch)
		most = max(most, n.Batch)
	}
	return batch.Project(x.now, batch.PaceOf(x.policy), ahead), most
}

// project counts batches and windows. The change shows the windows of the cohort with most sites first, and how many
// batches a window holds in the one that ends last.
func (p *Plan) project(x forecast, c *Change) {
	all, most := x.run(nil)
	c.Batches = most
	order := make([]int, len(x.cohorts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(x.cohorts[b].sites, x.cohorts[a].sites), cmp.Compare(x.cohorts[a].zone(), x.cohorts[b].zone()))
	})
	var last time.Time
	for _, i := range order {
		course := all.Courses[i]
		for _, s := range course.Windows[:min(len(course.Windows), shownWindows)] {
			c.Windows = append(c.Windows, Window{Zone: x.cohorts[i].zone(), Opens: s.Opens, Closes: s.Closes, Sites: x.cohorts[i].sites})
		}
		c.Count = max(c.Count, len(course.Windows))
		if course.Finish.After(last) {
			last, c.PerWindow = course.Finish, course.PerWindow
		}
	}
	if c.Why = cmp.Or(c.Why, all.Why); c.Why != "" {
		return
	}
	at := all.Finish.UTC()
	c.Finish = &at
	if d := x.policy.Schedule.Deadline; d > 0 {
		by := x.now.Add(d).UTC()
		if c.Deadline = &by; at.After(by) {
			p.tooLong(x, c)
		}
	}
}

// tooLong warns, with the smallest batch size that would do.
func (p *Plan) tooLong(x forecast, c *Change) {
	text := fmt.Sprintf("%s: %d windows, to %s at the earliest, are longer than schedule.deadline (%s)", x.policy.Name, c.Count, c.Finish.Format("2006-01-02"), days(x.policy.Schedule.Deadline))
	fits := func(size int) (windows int, ok bool) {
		all, _ := x.run(&policy.Size{Count: size})
		for _, course := range all.Courses {
			windows = max(windows, len(course.Windows))
		}
		return windows, all.Why == "" && !all.Finish.After(*c.Deadline)
	}
	most := len(x.nodes)
	if x.policy.Rollout != nil && x.policy.Rollout.BySite {
		most = 0
		for _, y := range x.cohorts {
			most += y.sites
		}
	}
	if _, ok := fits(most); x.policy.Rollout == nil || !ok {
		p.warn(problem.RolloutTooLong, false, "%s; no batch size would keep it", text)
		return
	}
	low, high := 0, most // fits(high), and not fits(low)
	for high-low > 1 {
		mid := (low + high) / 2
		if _, ok := fits(mid); ok {
			high = mid
		} else {
			low = mid
		}
	}
	windows, _ := fits(high)
	c.Enough = high
	p.warn(problem.RolloutTooLong, false, "%s. batchSize %d finishes in %d", text, high, windows)
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
