package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/internal/window"
)

// maxWindows bounds how far ahead is looked: ten years of weeks.
const maxWindows = 520

// shownWindows and shownLate bound what a Change lists.
const (
	shownWindows = 32
	shownLate    = 64
)

// cohort is sites whose windows open at the same instants: each has its own clock of batches (rule B3).
type cohort struct {
	zone   string
	rules  *window.Rules
	sites  map[string]int
	nodes  int
	staged time.Time // when the last of them is staged
}

// schedule projects staging, windows and batches of one policy. nodes is by site.
func (p *Plan) schedule(w World, pol *policy.Policy, nodes map[string]int, c *Change) {
	cohorts := map[string]*cohort{}
	unknown := 0
	share := p.share(w, pol, nodes)
	for _, s := range w.Sites {
		n := nodes[s.Name]
		if n == 0 {
			continue
		}
		missing := w.Missing(s.Name, pol.Bundle.Checksum)
		c.SiteBytes = max(c.SiteBytes, missing)
		c.WANBytes += missing
		rules, err := pol.Schedule.Rules(s.Zone)
		if err != nil {
			unknown++
			continue
		}
		first, open := opening(rules, w.Now)
		from := w.Now
		if b := pol.Staging.StartBefore; b > 0 && !first.IsZero() && first.Add(-b).After(from) {
			from = first.Add(-b)
		}
		done, rate, why := stagedAt(s, share, from, missing)
		switch {
		case done.IsZero():
			c.late(Late{Site: s.Name, Rate: rate, Reason: why})
		case !open && !first.IsZero() && done.After(first):
			c.late(Late{Site: s.Name, Late: done.Sub(first), Rate: rate, Reason: why})
		}
		if !done.IsZero() && (c.StagedBy == nil || done.After(*c.StagedBy)) {
			at := done.UTC()
			c.StagedBy = &at
		}
		key := rules.Zone.String()
		if len(rules.Windows) == 0 && len(rules.Blackouts) == 0 {
			key = "any time"
		}
		x := cohorts[key]
		if x == nil {
			x = &cohort{zone: key, rules: rules, sites: map[string]int{}}
			cohorts[key] = x
		}
		x.sites[s.Name], x.nodes = n, x.nodes+n
	}
	slices.SortStableFunc(c.Late, func(a, b Late) int { return cmp.Or(cmp.Compare(b.Late, a.Late), cmp.Compare(a.Site, b.Site)) })
	c.Late = c.Late[:min(len(c.Late), shownLate)]
	if unknown > 0 {
		c.Why = fmt.Sprintf("%d sites have no time zone, and the policy's windows are in the zone of the site", unknown)
	}
	if pol.Suspend {
		c.Why = "the policy is suspended: nothing starts"
		return
	}
	p.project(w, pol, cohorts, c)
}

func (c *Change) late(l Late) { c.Late = append(c.Late, l) }

// share is what each site gets when all load at once and the seeder's own cap is what holds them up; 0: no limit.
func (p *Plan) share(w World, pol *policy.Policy, nodes map[string]int) int64 {
	loading := int64(0)
	for site := range nodes {
		if w.Missing(site, pol.Bundle.Checksum) > 0 {
			loading++
		}
	}
	if w.Cap == 0 || loading == 0 {
		return 0
	}
	return max(1, w.Cap/loading)
}

// opening is when the first window opens, or that one is open.
func opening(r *window.Rules, now time.Time) (at time.Time, open bool) {
	v := r.Decide(now)
	return v.Next, v.Start
}

// stagedAt is when a site has so many bytes more, at its profile's rates and no more than share a second; zero: not
// within a year. The rate is the one it begins with.
func stagedAt(s Site, share int64, from time.Time, bytes int64) (done time.Time, rate int64, why string) {
	zone := s.Zone
	if zone == nil {
		zone = time.UTC
	}
	now, today := from.In(zone), s.Today
	end := now.AddDate(1, 0, 0)
	for first := true; bytes > 0; first = false {
		if now.After(end) {
			return time.Time{}, rate, "the profile lets nothing through: " + why
		}
		a := s.WAN.Allow(now, today)
		next := wanprofile.DayEnd(now)
		if !a.Until.IsZero() && a.Until.Before(next) {
			next = a.Until
		}
		r := a.BytesPerSecond
		if share > 0 && (r == 0 || share < r) {
			r = share
		}
		if first {
			rate, why = r, a.Why
		}
		if a.Paused {
			today = carry(now, next, today)
			now = next
			continue
		}
		room := bytes
		if s.WAN.PerDay > 0 {
			room = min(room, max(s.WAN.PerDay-today, 1))
		}
		at := now // no limit: at once
		if r > 0 {
			at = now.Add(time.Duration(float64(room) / float64(r) * float64(time.Second)))
		}
		if at.After(next) {
			room, at = int64(next.Sub(now).Seconds()*float64(r)), next
		}
		bytes -= room
		today = carry(now, at, today+room)
		now = at
	}
	return now, rate, why
}

// carry is today's count at a later time: a new day begins with none.
func carry(from, to time.Time, today int64) int64 {
	if wanprofile.Day(from) != wanprofile.Day(to) {
		return 0
	}
	return today
}

// project counts batches and windows of each cohort. The change shows the one that ends last.
func (p *Plan) project(w World, pol *policy.Policy, cohorts map[string]*cohort, c *Change) {
	all, sites := 0, 0
	for _, x := range cohorts {
		all, sites = all+x.nodes, sites+len(x.sites)
	}
	var list []*cohort
	for _, x := range cohorts {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *cohort) int { return cmp.Or(cmp.Compare(b.nodes, a.nodes), cmp.Compare(a.zone, b.zone)) })
	for _, x := range list {
		r := run(pol, x, w.Now, batches(pol.Rollout, x, all, sites, 0))
		c.Batches += r.batches
		for _, s := range r.spans[:min(len(r.spans), shownWindows)] {
			c.Windows = append(c.Windows, Window{Zone: x.zone, Opens: s.Opens, Closes: s.Closes, Sites: len(x.sites)})
		}
		if r.why != "" {
			c.Why, c.Finish = r.why, nil
			continue
		}
		if c.Why == "" && (c.Finish == nil || r.finish.After(*c.Finish)) {
			at := r.finish.UTC()
			c.Finish, c.PerWindow, c.Count = &at, r.perWindow, max(c.Count, len(r.spans))
		}
	}
	if d := pol.Schedule.Deadline; d > 0 && c.Finish != nil {
		at := w.Now.Add(d).UTC()
		if c.Deadline = &at; c.Finish.After(at) {
			p.tooLong(w, pol, list, all, sites, c)
		}
	}
}

// tooLong warns, with the smallest batch size that would do.
func (p *Plan) tooLong(w World, pol *policy.Policy, list []*cohort, all, sites int, c *Change) {
	text := fmt.Sprintf("%s: %d windows, to %s, are longer than schedule.deadline (%s)", pol.Name, c.Count, c.Finish.Format("2006-01-02"), days(pol.Schedule.Deadline))
	fits := func(size int) (windows int, ok bool) {
		for _, x := range list {
			r := run(pol, x, w.Now, batches(pol.Rollout, x, all, sites, size))
			if r.why != "" || r.finish.After(*c.Deadline) {
				return 0, false
			}
			windows = max(windows, len(r.spans))
		}
		return windows, true
	}
	most := all
	if pol.Rollout != nil && pol.Rollout.BySite {
		most = sites
	}
	if _, ok := fits(most); pol.Rollout == nil || !ok {
		p.warn(problem.RolloutTooLong, false, "%s; no batch size would keep it", text)
		return
	}
	low, high := 0, most // fits(high), and not fits(low)
	for high-low > 1 {
		if mid := (low + high) / 2; func() bool { _, ok := fits(mid); return ok }() {
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

// batches is how many a cohort has: of a size of all the nodes, or sites, and with no more of one site at once than may
// be out of service. size 0: as the policy says.
func batches(r *policy.Rollout, x *cohort, all, sites, size int) int {
	if r == nil {
		return 1
	}
	things, of := x.nodes, all
	if r.BySite {
		things, of = len(x.sites), sites
	}
	if size == 0 {
		size = r.Batch.Of(of)
	}
	if size <= 0 {
		return 1
	}
	n := (things + size - 1) / size
	if !r.BySite {
		for _, k := range x.sites {
			most := r.MaxUnavailable
			if most.IsZero() {
				most = policy.Size{Percent: policy.DefaultMaxUnavailable}
			}
			limit := max(1, most.Of(k))
			n = max(n, (k+limit-1)/limit)
		}
	}
	return n
}

// course is how a cohort gets through its batches.
type course struct {
	batches, perWindow int // the most of one window
	spans              []window.Span
	finish             time.Time // when its last batch begins
	why                string    // there is no finish
}

// run lets batches begin one delay after the other while a window has its cut-off left. With a canary the first window
// is its own, and the batches begin when it has soaked.
func run(pol *policy.Policy, x *cohort, now time.Time, n int) (c course) {
	c.batches = n
	delay, from := time.Duration(0), now
	if r := pol.Rollout; r != nil {
		delay = r.BatchDelay
		if t := pol.FastTrack; r.Canary != nil && (t == nil || len(t.Approvers) < 2) {
			if next := x.rules.Upcoming(now, 1); len(next) > 0 {
				c.spans = next
				from = latest(next[0].Opens, now).Add(r.Canary.Soak)
			}
		}
	}
	for left := n; left > 0; {
		if len(c.spans) > maxWindows {
			c.why = fmt.Sprintf("it is not done after %d windows", maxWindows)
			return c
		}
		next := x.rules.Upcoming(from, 1)
		if len(next) == 0 {
			c.why = "no window opens within two years"
			return c
		}
		s := next[0]
		begin := latest(s.Opens, from)
		fit := left
		if !s.Closes.IsZero() && delay > 0 {
			// The first begins at once, each other one delay later; none with less than the cut-off left, none at the end.
			room := s.Closes.Sub(begin) - max(pol.Schedule.Cutoff, 1)
			fit = min(left, 1+int(room/delay))
		}
		c.perWindow = max(c.perWindow, fit)
		left -= fit
		c.finish = begin.Add(time.Duration(fit-1) * delay)
		if k := len(c.spans); k == 0 || !c.spans[k-1].Opens.Equal(s.Opens) {
			c.spans = append(c.spans, s)
		}
		if from = s.Closes; s.Closes.IsZero() {
			break
		}
	}
	return c
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
