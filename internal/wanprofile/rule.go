package wanprofile

import (
	"fmt"
	"strings"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// ParseRule reads "DAYS [HH:MM-HH:MM] RATE|unlimited|blackout".
func ParseRule(s string) (Rule, error) {
	f := strings.Fields(s)
	if len(f) < 2 || len(f) > 3 {
		return Rule{}, fmt.Errorf("rule %.80q: want DAYS HH:MM-HH:MM RATE, e.g. %q, without blanks in the list of days", s, "Mon-Fri 08:00-20:00 2Mbit")
	}
	r := Rule{Hours: wall.Hours{To: wall.WholeDay}}
	var err error
	if r.Days, err = wall.ParseDays(f[0]); err != nil {
		return Rule{}, err
	}
	if len(f) == 3 {
		if r.Hours, err = wall.ParseHours(f[1]); err != nil {
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

// String writes a rule in its one spelling, which ParseRule reads.
func (r Rule) String() string {
	s := r.Days.String()
	if r.Hours != (wall.Hours{To: wall.WholeDay}) {
		s += " " + r.Hours.String()
	}
	switch {
	case r.Blackout:
		return s + " blackout"
	case r.Rate == 0:
		return s + " unlimited"
	}
	return s + " " + FormatRate(r.Rate)
}
