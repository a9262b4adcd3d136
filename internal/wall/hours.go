package wall

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// WholeDay is the minutes of a day on the wall.
const WholeDay = 24 * 60

// Hours are minutes of the day, 0 to WholeDay. An end that is not after its start is on the next day, so equal ones are
// 24 hours.
type Hours struct{ From, To int }

var hours = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)$`)

// ParseHours reads HH:MM-HH:MM; the end may be 24:00.
func ParseHours(s string) (Hours, error) {
	m := hours.FindStringSubmatch(s)
	if m == nil {
		return Hours{}, fmt.Errorf("hours %.40q: want HH:MM-HH:MM, 00:00 to 24:00", s)
	}
	minutes := func(h, m string) int {
		a, _ := strconv.Atoi(h) // two digits, or none
		b, _ := strconv.Atoi(m)
		return 60*a + b
	}
	h := Hours{From: minutes(m[1], m[2]), To: WholeDay}
	if m[3] != "" {
		h.To = minutes(m[3], m[4])
	}
	if h.To == 0 { // midnight is the end of the day that begins before it
		h.To = WholeDay
	}
	return h, nil
}

// String writes HH:MM-HH:MM.
func (h Hours) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
}

// Length is how long they last when no clock is changed.
func (h Hours) Length() time.Duration {
	minutes := h.To - h.From
	if minutes <= 0 {
		minutes += WholeDay
	}
	return time.Duration(minutes) * time.Minute
}

// On is the occurrence that begins on a date, [from, to) in that zone. Where clocks are changed it may be shorter or
// longer than Length; one of which nothing is left, !from.Before(to), does not exist (rules W2 to W4 of the policies'
// windows).
func (h Hours) On(d Date, zone *time.Location) (from, to time.Time) {
	end := d
	if h.To <= h.From {
		end = d.Add(1)
	}
	return Instant(zone, d, h.From), Instant(zone, end, h.To)
}

// Days is a set of days of the week: bit i is time.Weekday(i).
type Days uint8

// EveryDay of the week.
const EveryDay Days = 1<<7 - 1

// Has reports whether a day is in the set.
func (d Days) Has(w time.Weekday) bool { return d&(1<<w) != 0 }

// week in the order in which people write it.
func week() []time.Weekday {
	return []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday, time.Sunday}
}

// ParseDays reads Mon..Sun, three letters or all, in any case; lists "Tue,Thu"; ranges "Mon-Fri", around the end of the
// week too; Daily or *.
func ParseDays(s string) (Days, error) {
	if s == "*" || strings.EqualFold(s, "daily") {
		return EveryDay, nil
	}
	var days Days
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(item, "-")
		from, err := parseDay(first)
		if err != nil {
			return 0, err
		}
		to := from
		if isRange {
			if to, err = parseDay(last); err != nil {
				return 0, err
			}
		}
		for d := from; ; d = (d + 1) % 7 {
			if days |= 1 << d; d == to {
				break
			}
		}
	}
	return days, nil
}

func parseDay(s string) (time.Weekday, error) {
	for _, d := range week() {
		if name := d.String(); strings.EqualFold(s, name) || strings.EqualFold(s, name[:3]) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("day %.40q: want Mon..Sun, lists such as Sat,Sun, ranges such as Mon-Fri, or Daily", s)
}

// String writes Daily, or the days from Monday on with three and more in a row as a range.
func (d Days) String() string {
	if d == EveryDay {
		return "Daily"
	}
	var out []string
	for w := week(); len(w) > 0; {
		n := 0
		for n < len(w) && d.Has(w[n]) {
			n++
		}
		name := func(i int) string { return w[i].String()[:3] }
		switch {
		case n >= 3:
			out = append(out, name(0)+"-"+name(n-1))
		default:
			for i := range n {
				out = append(out, name(i))
			}
		}
		w = w[max(n, 1):]
	}
	return strings.Join(out, ",")
}
