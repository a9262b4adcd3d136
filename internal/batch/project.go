package batch

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/window"
)

// maxWindows bounds how far ahead is looked: twenty years of weeks.
const maxWindows = 1000

// Pace is what of a policy says how long its batches take.
type Pace struct {
	Settle  time.Duration // that a node takes at the least: it must stay well for so long
	Delay   time.Duration // from the start of a batch to that of the next, at the least
	Cutoff  time.Duration // no start with less than this left of a window
	Soak    time.Duration // of a canary that has yet to pass
	Canary  bool          // there is one
	Soaking time.Time     // since when; zero: it has yet to start
	Before  bool          // a site that is not staged when its window opens waits for the next one
}

// PaceOf is the pace of a policy from its beginning.
func PaceOf(p *policy.Policy) Pace {
	x := Pace{Cutoff: p.Schedule.Cutoff, Settle: time.Duration(p.Rollback.HealthyForSeconds) * time.Second, Before: p.Staging.RequireBeforeWindow}
	if r := p.Rollout; r != nil {
		x.Delay = r.BatchDelay
		if !r.FromStarted {
			x.Delay += x.Settle
		}
		if x.Canary = p.CanaryFirst(); x.Canary {
			x.Soak = r.Canary.Soak
		}
	}
	return x
}

// Cohort is what is before the sites of one.
type Cohort struct {
	Rules   *window.Rules // nil: they have no window
	Batches int           // that were not released
	Canary  bool          // nodes of the canary are here, which have yet to start
	From    time.Time     // no batch is released before
	Staged  time.Time     // the last site does not hold the bundle before
}

// Projection is when a rollout will be done at the earliest: if nothing fails, nobody is late, every batch settles as soon
// as it can, and a person who is waited for does not hesitate.
type Projection struct {
	Finish  time.Time // zero: it cannot be told, see Why
	Why     string
	Courses []Course // of the cohorts, as they were given
}

// Course is how one cohort gets through what is before it.
type Course struct {
	Windows   []window.Span // that it uses; Opens and Closes may be zero, as window.Rules gives them
	PerWindow int           // batches that begin in one of them, at the most
	Finish    time.Time     // zero where it cannot be told
}

// Project says when the cohorts will be done: batches begin when a window opens and one delay after the other.
func Project(now time.Time, p Pace, cohorts []Cohort) Projection {
	out := Projection{Courses: make([]Course, len(cohorts))}
	begin := now
	if p.Canary {
		passed, some := p.Soaking, !p.Soaking.IsZero()
		for i, c := range cohorts { // it starts in the first window of each of its sites
			if !c.Canary || !p.Soaking.IsZero() {
				continue
			}
			s, ok := c.next(now)
			if !ok {
				return Projection{Why: noWindow, Courses: out.Courses}
			}
			out.Courses[i].use(s)
			passed, some = later(passed, later(s.Opens, now).Add(p.Settle)), true
		}
		if some { // one of nobody has nothing to soak
			begin = later(now, passed.Add(p.Soak))
		}
	}
	for i, c := range cohorts {
		x := &out.Courses[i]
		if why := c.run(x, begin, p); why != "" {
			x.Finish, out.Why = time.Time{}, why
			continue
		}
		out.Finish = later(out.Finish, x.Finish)
	}
	if out.Why != "" {
		out.Finish = time.Time{}
	}
	return out
}

const noWindow = "no window of a site opens within two years"

// run goes through the windows of a cohort; why it is never done, or "".
func (c Cohort) run(x *Course, begin time.Time, p Pace) (why string) {
	at := later(begin, c.From)
	x.Finish = at
	for left := c.Batches; left > 0; {
		s, ok := c.next(at)
		switch {
		case !ok:
			return noWindow
		case len(x.Windows) > maxWindows:
			return fmt.Sprintf("it is not done after %d windows", maxWindows)
		}
		x.use(s)
		at = later(s.Opens, at)
		fit := left
		if !s.Closes.IsZero() && p.Delay > 0 { // none with less than the cut-off left, none at the end
			fit = min(left, 1+int((s.Closes.Sub(at)-max(p.Cutoff, 1))/p.Delay))
		}
		x.PerWindow = max(x.PerWindow, fit)
		left -= fit
		at = at.Add(time.Duration(fit-1) * p.Delay)
		x.Finish = at.Add(p.Settle)
		at = later(at.Add(p.Delay), s.Closes)
	}
	if c.Staged.After(x.Finish.Add(-p.Settle)) {
		s, ok := c.next(c.Staged)
		if ok && p.Before && s.Opens.Before(c.Staged) && !s.Closes.IsZero() {
			s, ok = c.next(s.Closes)
		}
		if !ok {
			return noWindow
		}
		x.use(s)
		x.Finish = later(s.Opens, c.Staged).Add(p.Settle)
	}
	return ""
}

// next is the window in which a node may start at that time, or else the next one.
func (c Cohort) next(at time.Time) (window.Span, bool) {
	if c.Rules == nil {
		return window.Span{}, false
	}
	s := c.Rules.Upcoming(at, 1)
	if len(s) == 0 {
		return window.Span{}, false
	}
	return s[0], true
}

func (x *Course) use(s window.Span) {
	if n := len(x.Windows); n == 0 || !x.Windows[n-1].Opens.Equal(s.Opens) {
		x.Windows = append(x.Windows, s)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
