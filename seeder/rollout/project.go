package rollout

import (
	"time"
)

// maxWindows bounds how far ahead a projection looks.
const maxWindows = 1000

// Projection is when a rollout will be done if nothing fails and nobody is late.
type Projection struct {
	Finish    time.Time // zero: it cannot be told, see Why
	Why       string
	Windows   int // that are still used, of the cohort that uses most
	Batches   int // in all, of the cohort that has most; the canary is none
	PerWindow int // batches that fit into the first window
}

// Window is an occurrence of a site's window.
type Window struct{ Opens, Closes time.Time }

// Pace is what of a policy says how long a rollout takes.
type Pace struct {
	Delay   time.Duration // between batches
	Cutoff  time.Duration // no start with less than this left of a window
	Soak    time.Duration // of the canary
	Manual  bool          // a person promotes the canary: nobody knows when
	Passed  bool          // there is no canary, or it has passed
	Settled time.Time     // since when it soaks; zero: it has yet to start
}

// Ahead is what is before a cohort.
type Ahead struct {
	Left  int                                       // batches that were not released
	Total int                                       // batches
	Next  func(at time.Time) (w Window, found bool) // the window that is open then, or the next. Zero Opens: since ever, zero Closes: never
}

// Project says when it will be done: batches begin when a window opens and Delay apart.
func Project(now time.Time, p Pace, cohorts []Ahead) Projection {
	var out Projection
	begin := now
	if !p.Passed {
		at := p.Settled
		if at.IsZero() {
			for _, c := range cohorts { // the canary starts in the window of its site: the last of the first ones
				w, ok := c.Next(now)
				if !ok {
					return Projection{Why: "a site has no window"}
				}
				at = later(at, later(w.Opens, now))
			}
		}
		begin = later(now, at.Add(p.Soak))
	}
	for _, c := range cohorts {
		finish, windows, per, ok := c.walk(begin, p)
		if !ok {
			return Projection{Why: "the windows of a site end before it is done", Batches: max(out.Batches, c.Total)}
		}
		out.Finish = later(out.Finish, finish)
		out.Batches = max(out.Batches, c.Total)
		if windows > out.Windows {
			out.Windows, out.PerWindow = windows, per
		}
	}
	if p.Manual && !p.Passed {
		out.Finish, out.Why = time.Time{}, "a person promotes the canary"
	}
	return out
}

func (c Ahead) walk(at time.Time, p Pace) (finish time.Time, windows, per int, ok bool) {
	finish = at
	for left := c.Left; left > 0; windows++ {
		w, found := c.Next(at)
		if !found || windows == maxWindows {
			return finish, windows, per, false
		}
		at = later(w.Opens, at)
		fit := left
		if p.Delay > 0 && !w.Closes.IsZero() {
			room := w.Closes.Sub(at) - p.Cutoff
			fit = min(left, max(1, int((room+p.Delay-1)/p.Delay)))
		}
		left -= fit
		per = max(per, fit)
		finish = at.Add(time.Duration(fit-1) * p.Delay)
		if w.Closes.IsZero() {
			return finish, windows + 1, per, true
		}
		at = w.Closes
	}
	return finish, windows, per, true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Ahead is what is before each cohort of the rollout; next gives the windows of a site.
func (s *State) Ahead(next func(site string, at time.Time) (Window, bool)) []Ahead {
	site := make([]string, len(s.Cohorts))
	left := make([]int, len(s.Cohorts))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		site[n.Cohort] = n.Site
		if n.Settled.IsZero() {
			left[n.Cohort] = max(left[n.Cohort], s.Cohorts[n.Cohort].Batches-s.Cohorts[n.Cohort].Batch)
		}
	}
	out := make([]Ahead, len(s.Cohorts))
	for i, c := range s.Cohorts {
		out[i] = Ahead{Left: left[i], Total: c.Batches, Next: func(at time.Time) (Window, bool) { return next(site[i], at) }}
	}
	return out
}
