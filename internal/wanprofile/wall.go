package wanprofile

import (
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// Day is the local day that now, in the site's time zone, belongs to. A day begins when its midnight is first reached and
// ends when the next one does: days follow each other and none comes twice, also where clocks are set back over midnight.
func Day(now time.Time) wall.Date {
	d := wall.DateOf(now).Add(1)
	for now.Before(wall.Instant(now.Location(), d, 0)) {
		d = d.Add(-1)
	}
	return d
}

// DayEnd is the first instant of the next local day.
func DayEnd(now time.Time) time.Time {
	next := now
	for d := Day(now); !next.After(now); { // a date that a zone left out has no instant
		d = d.Add(1)
		next = wall.Instant(now.Location(), d, 0)
	}
	return next
}

// span is one occurrence of a rule: [from, to).
type span struct {
	rule     int
	from, to time.Time
}

// spans are the occurrences of all rules that begin near now or within the horizon.
func (p *Profile) spans(now time.Time) (out []span) {
	zone, today := now.Location(), wall.DateOf(now)
	for i, r := range p.Rules {
		for k := -2; k <= horizon; k++ { // two days back: some zone has left out a date
			d := today.Add(k)
			if !r.Days.Has(d.Weekday()) {
				continue
			}
			if from, to := r.On(d, zone); from.Before(to) {
				out = append(out, span{i, from, to})
			}
		}
	}
	return out
}

// borders are the instants at which something may change, in order.
func borders(spans []span, now time.Time) []time.Time {
	out := make([]time.Time, 0, 2*len(spans)+horizon)
	last := now
	for range horizon {
		last = DayEnd(last)
		out = append(out, last)
	}
	for _, s := range spans {
		for _, t := range []time.Time{s.from, s.to} {
			if t.Before(last) { // beyond it the spans are not all there
				out = append(out, t)
			}
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}
