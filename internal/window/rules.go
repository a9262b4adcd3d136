package window

import (
	"fmt"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// Rules say when an install may start. The zero value with a zone: always.
type Rules struct {
	Windows   Set            // open when one is; empty: always open
	Zone      *time.Location // not nil
	Blackouts []Dates
	NotBefore time.Time     // zero: no limit
	Cutoff    time.Duration // no start with less than this left of what is open
}

// Dates on which nothing starts, the first and the last included.
type Dates struct {
	First, Last wall.Date
	Reason      string // for people
}

// Span is a time during which an install may run up to its end: [Opens, Closes). Adjoining and overlapping windows are
// one span; a blackout and NotBefore end and begin one as a window's own ends do.
type Span struct{ Opens, Closes time.Time }

// The view of the calendar around an instant: what recurs every week shows itself within it, and so does the day on
// which a clock is changed.
const (
	daysBack  = 9
	daysAhead = 16
	stride    = 14 * 24 * time.Hour // less than both together, so that nothing falls between two views
	views     = 55                  // a little more than two years
)

// Decide says whether an install may start at an instant.
func (r *Rules) Decide(now time.Time) Verdict {
	now = now.In(r.Zone)
	s, unlimited, ok := r.find(now)
	if !ok {
		v := Verdict{}
		v.Reason, v.Text = r.why(now, time.Time{})
		return v
	}
	v := Verdict{Opens: s.Opens, Closes: s.Closes}
	if unlimited[0] {
		v.Opens = time.Time{}
	}
	if unlimited[1] {
		v.Closes = time.Time{}
	}
	if !s.Opens.After(now) {
		v.Start = true
		return v
	}
	v.Next = s.Opens
	v.Reason, v.Text = r.why(now, s.Opens)
	return v
}

// Upcoming lists the next spans in which an install may start, the one that is open first. As in a Verdict, Opens and
// Closes may be zero.
func (r *Rules) Upcoming(now time.Time, n int) (out []Span) {
	for range n {
		s, unlimited, ok := r.find(now)
		if !ok {
			break
		}
		now = s.Closes
		if unlimited[0] {
			s.Opens = time.Time{}
		}
		if unlimited[1] {
			s.Closes = time.Time{}
		}
		if out = append(out, s); unlimited[1] {
			break
		}
	}
	return out
}

// find returns the span in which one may start now, or else the next one in which one may at its beginning. unlimited:
// the view ends before the span begins, or ends.
func (r *Rules) find(now time.Time) (_ Span, unlimited [2]bool, ok bool) {
	at := now
	if r.NotBefore.After(at) {
		at = r.NotBefore
	}
	for range views {
		view := r.view(at)
		for _, s := range r.spans(view) {
			from := s.Opens
			if from.Before(now) {
				from = now
			}
			if left := s.Closes.Sub(from); left > 0 && left >= r.Cutoff {
				return s, [2]bool{s.Opens.Equal(view.Opens), s.Closes.Equal(view.Closes)}, true
			}
		}
		at = at.Add(stride)
	}
	return Span{}, unlimited, false
}

func (r *Rules) view(at time.Time) Span {
	d := wall.DateOf(at.In(r.Zone))
	return Span{wall.Instant(r.Zone, d.Add(-daysBack), 0), wall.Instant(r.Zone, d.Add(daysAhead), 0)}
}

// spans are those of the view, in order, those that its ends cut included.
func (r *Rules) spans(view Span) []Span {
	open := r.open(view)
	for _, b := range r.Blackouts {
		open = subtract(open, r.instants(b))
	}
	if !r.NotBefore.IsZero() {
		open = subtract(open, Span{time.Time{}, r.NotBefore})
	}
	return open
}

// open are the spans of the windows alone.
func (r *Rules) open(view Span) []Span {
	if len(r.Windows) == 0 {
		return []Span{view}
	}
	var all []Span
	first, last := wall.DateOf(view.Opens.In(r.Zone)), wall.DateOf(view.Closes.In(r.Zone))
	for o := range r.Windows.Occurrences(r.Zone, first.Add(-2), last) {
		s := Span{later(o.Opens, view.Opens), earlier(o.Closes, view.Closes)}
		if s.Opens.Before(s.Closes) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Span) int { return a.Opens.Compare(b.Opens) })
	var out []Span
	for _, s := range all {
		if n := len(out); n > 0 && !s.Opens.After(out[n-1].Closes) {
			out[n-1].Closes = later(out[n-1].Closes, s.Closes)
		} else {
			out = append(out, s)
		}
	}
	return out
}

func (r *Rules) instants(b Dates) Span {
	return Span{wall.Instant(r.Zone, b.First, 0), wall.Instant(r.Zone, b.Last.Add(1), 0)}
}

// subtract takes a span out of spans.
func subtract(from []Span, s Span) (out []Span) {
	if !s.Opens.Before(s.Closes) { // a date that a zone left out
		return from
	}
	for _, x := range from {
		for _, part := range []Span{{x.Opens, earlier(x.Closes, s.Opens)}, {later(x.Opens, s.Closes), x.Closes}} {
			if part.Opens.Before(part.Closes) {
				out = append(out, part)
			}
		}
	}
	return out
}

// why says what stands in the way of the window that is open now or would be the next: if without blackouts and NotBefore
// one could start before next, they are the reason; otherwise no window is open. next is zero for never.
func (r *Rules) why(now, next time.Time) (Reason, string) {
	closed := fmt.Sprintf("%s %s", r.Windows, r.Zone)
	free := Rules{Windows: r.Windows, Zone: r.Zone, Cutoff: r.Cutoff}
	s, _, ok := free.find(now)
	at := later(s.Opens, now)
	if ok && (next.IsZero() || at.Before(next)) {
		if at.Before(r.NotBefore) {
			return TooEarly, "not before " + r.NotBefore.In(r.Zone).Format("2006-01-02 15:04 MST")
		}
		if b, ok := r.blackout(Span{at, s.Closes}); ok {
			return Blackout, fmt.Sprintf("%s, %s to %s %s", nonEmpty(b.Reason, "blackout"), b.First, b.Last, r.Zone)
		}
	}
	for _, s := range free.spans(free.view(now)) {
		if !s.Opens.After(now) && now.Before(s.Closes) {
			return Closed, fmt.Sprintf("less than %s left of %s", r.Cutoff, closed)
		}
	}
	return Closed, closed
}

// blackout is the first one that takes something of a span.
func (r *Rules) blackout(s Span) (first Dates, ok bool) {
	var at time.Time
	for _, b := range r.Blackouts {
		d := r.instants(b)
		if d.Opens.Before(d.Closes) && d.Opens.Before(s.Closes) && s.Opens.Before(d.Closes) && (!ok || d.Opens.Before(at)) {
			first, at, ok = b, d.Opens, true
		}
	}
	return first, ok
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
