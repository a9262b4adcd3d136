package wanprofile

import (
	"slices"
	"time"
)

// Date is a day of the calendar in the site.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

func dateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

func (d Date) add(days int) Date {
	return dateOf(time.Date(d.Year, d.Month, d.Day+days, 0, 0, 0, 0, time.UTC))
}

func (d Date) weekday() time.Weekday {
	return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC).Weekday()
}

// String writes 2026-11-21.
func (d Date) String() string {
	return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
}

// Day is the local day that now, in the site's time zone, belongs to. A day begins when its midnight is first reached and
// ends when the next one does: days follow each other and none comes twice, also where clocks are set back over midnight.
func Day(now time.Time) Date {
	d := dateOf(now).add(1)
	for now.Before(instant(now.Location(), d, 0)) {
		d = d.add(-1)
	}
	return d
}

// DayEnd is the first instant of the next local day.
func DayEnd(now time.Time) time.Time {
	next := now
	for d := Day(now); !next.After(now); { // a date that a zone left out has no instant
		d = d.add(1)
		next = instant(now.Location(), d, 0)
	}
	return next
}

// instant is when the clocks of a zone first show that minute of that day or more: a time in a gap is the first instant
// after it, of a time that comes twice the earlier one counts (rule W3 of the policies' windows).
func instant(zone *time.Location, d Date, minute int) time.Time {
	wall := time.Date(d.Year, d.Month, d.Day, 0, minute, 0, 0, time.UTC).Unix()
	from := time.Unix(wall-16*3600, 0).In(zone) // no zone is further ahead than that: the clocks have not been there yet
	for {
		_, offset := from.Zone()
		_, end := from.ZoneBounds()
		t := time.Unix(wall-int64(offset), 0).In(zone)
		switch {
		case t.Before(from):
			return from // in the gap that ends here
		case end.IsZero() || t.Before(end):
			return t
		}
		from = end
	}
}

// span is one occurrence of a rule: [from, to).
type span struct {
	rule     int
	from, to time.Time
}

// spans are the occurrences of all rules that begin near now or within the horizon. An occurrence belongs to the date on
// which it begins; one that clocks leave nothing of does not exist (rules W2 and W4).
func (p *Profile) spans(now time.Time) (out []span) {
	zone, today := now.Location(), dateOf(now)
	for i, r := range p.Rules {
		for k := -2; k <= horizon; k++ { // two days back: some zone has left out a date
			d := today.add(k)
			if !r.Days.has(d.weekday()) {
				continue
			}
			end := d
			if r.To <= r.From {
				end = d.add(1)
			}
			if s := (span{i, instant(zone, d, r.From), instant(zone, end, r.To)}); s.from.Before(s.to) {
				out = append(out, s)
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
