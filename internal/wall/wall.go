// Package wall is the clock on the wall of a place: dates, days of the week and hours as people write them, and the
// instants that they are in a time zone, also on the nights on which clocks are changed. Maintenance windows and WAN
// profiles both live by it.
//
// Pure: zones are handed in. Values may be shared.
package wall

import (
	"fmt"
	"time"
)

// Date is a day of the calendar in some place.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf is the date that the clocks of t's zone show.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// ParseDate reads 2026-11-21.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("date %.40q: want YYYY-MM-DD", s)
	}
	return DateOf(t), nil
}

func (d Date) utc() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

// Add returns the date so many days later.
func (d Date) Add(days int) Date { return DateOf(d.utc().AddDate(0, 0, days)) }

// Until counts the days from d to a later date.
func (d Date) Until(later Date) int { return int(later.utc().Sub(d.utc()) / (24 * time.Hour)) }

// Weekday is its day of the week.
func (d Date) Weekday() time.Weekday { return d.utc().Weekday() }

// String writes 2026-11-21.
func (d Date) String() string { return d.utc().Format(time.DateOnly) }

// Instant is when the clocks of a zone first show that minute of that day or more: a time in a gap is the first instant
// after it, of a time that comes twice the earlier one counts (rule W3 of the policies' windows). The minute may be 1440:
// the end of the day.
func Instant(zone *time.Location, d Date, minute int) time.Time {
	wall := d.utc().Unix() + 60*int64(minute)
	from := time.Unix(wall-16*3600, 0).In(zone) // no zone is further ahead than that: the clocks have not been there yet
	for {
		_, offset := from.Zone()
		_, end := from.ZoneBounds()
		for !end.IsZero() && !end.After(from) { // package time ends a leap year, too, after 365 days
			end = end.Add(24 * time.Hour)
		}
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
