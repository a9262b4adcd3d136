package wanprofile

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Days is a set of days of the week: bit i is time.Weekday(i).
type Days uint8

const everyDay Days = 1<<7 - 1

func (d Days) has(w time.Weekday) bool { return d&(1<<w) != 0 }

const wholeDay = 24 * 60

// week in the order in which people write it.
func week() []time.Weekday {
	return []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday, time.Sunday}
}

// ParseRule reads "DAYS [HH:MM-HH:MM] RATE|unlimited|blackout".
func ParseRule(s string) (Rule, error) {
	f := strings.Fields(s)
	if len(f) < 2 || len(f) > 3 {
		return Rule{}, fmt.Errorf("rule %.80q: want DAYS HH:MM-HH:MM RATE, e.g. %q, without blanks in the list of days", s, "Mon-Fri 08:00-20:00 2Mbit")
	}
	r := Rule{To: wholeDay}
	var err error
	if r.Days, err = parseDays(f[0]); err != nil {
		return Rule{}, err
	}
	if len(f) == 3 {
		if r.From, r.To, err = parseHours(f[1]); err != nil {
			return Rule{}, err
		}
	}
	switch word := f[len(f)-1]; strings.ToLower(word) {
	case "blackout":
		r.Blackout = true
	case "unlimited":
	default:
		if r.Rate, err = ParseRate(word); err != nil {
			return Rule{}, err
		}
		if r.Rate == 0 {
			return Rule{}, fmt.Errorf("rate %q of a rule: say blackout or unlimited", word)
		}
	}
	return r, nil
}

func parseDays(s string) (Days, error) {
	if s == "*" || strings.EqualFold(s, "daily") {
		return everyDay, nil
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

var hours = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)$`)

func parseHours(s string) (from, to int, err error) {
	m := hours.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, fmt.Errorf("hours %.40q: want HH:MM-HH:MM, 00:00 to 24:00", s)
	}
	minutes := func(h, m string) int {
		a, _ := strconv.Atoi(h) // two digits, or none
		b, _ := strconv.Atoi(m)
		return 60*a + b
	}
	from, to = minutes(m[1], m[2]), wholeDay
	if m[3] != "" {
		to = minutes(m[3], m[4])
	}
	if to == 0 { // midnight is the end of the day that begins before it
		to = wholeDay
	}
	return from, to, nil
}

// String writes a rule in its one spelling, which ParseRule reads.
func (r Rule) String() string {
	s := r.Days.String()
	if r.From != 0 || r.To != wholeDay {
		s += fmt.Sprintf(" %02d:%02d-%02d:%02d", r.From/60, r.From%60, r.To/60, r.To%60)
	}
	switch {
	case r.Blackout:
		return s + " blackout"
	case r.Rate == 0:
		return s + " unlimited"
	}
	return s + " " + FormatRate(r.Rate)
}

// String writes Daily, or the days from Monday on with three and more in a row as a range.
func (d Days) String() string {
	if d == everyDay {
		return "Daily"
	}
	var out []string
	for w := week(); len(w) > 0; {
		n := 0
		for n < len(w) && d.has(w[n]) {
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
