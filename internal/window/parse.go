package window

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// MaxWindows bounds the windows of a set.
const MaxWindows = 32

// Window recurs every week: hours that begin on certain days.
type Window struct {
	Days wall.Days
	wall.Hours
}

// Set is windows that are open when one of them is. The empty set is of no windows: what that means is for Rules to say.
type Set []Window

// Parse reads one or more of "DAYS HH:MM-HH:MM", joined by ';' (rule W1). The error says how to write what is wrong.
func Parse(s string) (Set, error) {
	var set Set
	for item := range strings.SplitSeq(s, ";") {
		w, ok := parse(item)
		if !ok {
			return nil, &SyntaxError{Text: strings.TrimSpace(item), Write: suggest(item)}
		}
		if len(set) == MaxWindows {
			return nil, fmt.Errorf("more than %d windows", MaxWindows)
		}
		set = append(set, w)
	}
	return set, nil
}

func parse(s string) (w Window, ok bool) {
	f := strings.Fields(s)
	if len(f) != 2 {
		return w, false
	}
	var err, bad error
	w.Days, err = wall.ParseDays(f[0])
	w.Hours, bad = wall.ParseHours(f[1])
	return w, err == nil && bad == nil && f[0] != "*"
}

// SyntaxError is about a window that cannot be read.
type SyntaxError struct {
	Text  string // the window
	Write string // how it is written: our best guess, or an example
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("cannot read %.80q: write it as %s (days: Mon..Sun or Daily, lists \"Tue,Thu\", ranges \"Mon-Fri\"; 24-hour HH:MM; an end that is not after the start is on the next day; several are joined by ';')", e.Text, e.Write)
}

const example = "Tue 02:00-04:00"

// loose is what people write: "Tuesdays 2am - 4.30am", "mon, wed 02:00–04:00".
var loose = regexp.MustCompile(`^([a-z][a-z ,&/–-]*?)[ ,:]*(\d{1,2})(?:[:.h](\d{2}))?(?::00)? ?([ap]m)? ?(?:-|–|to) ?(\d{1,2})(?:[:.h](\d{2}))?(?::00)? ?([ap]m)?$`)

// suggest guesses what was meant.
func suggest(s string) string {
	m := loose.FindStringSubmatch(strings.Join(strings.Fields(strings.ToLower(s)), " "))
	if m == nil {
		return example
	}
	days := strings.NewReplacer(" ", "", "–", "-", "&", ",", "/", ",", "and", ",",
		"every day", "daily", "nightly", "daily", "weekdays", "mon-fri", "weekends", "sat-sun").Replace(m[1])
	d, err := wall.ParseDays(days)
	if err != nil {
		if d, err = wall.ParseDays(plurals.ReplaceAllString(days, "$1")); err != nil {
			return example
		}
	}
	from, ok := clock(m[2], m[3], m[4])
	to, good := clock(m[5], m[6], m[7])
	if h, err := wall.ParseHours(from + "-" + to); ok && good && err == nil {
		return Window{d, h}.String()
	}
	return example
}

var plurals = regexp.MustCompile(`([a-z]{3})s\b`)

// clock writes an hour as HH:MM.
func clock(hour, minute, half string) (string, bool) {
	h, err := strconv.Atoi(hour)
	if err != nil || half != "" && (h < 1 || h > 12) {
		return "", false
	}
	switch {
	case half == "am" && h == 12:
		h = 0
	case half == "pm" && h != 12:
		h += 12
	}
	if minute == "" {
		minute = "00"
	}
	return fmt.Sprintf("%02d:%s", h, minute), true
}

// String writes a window in its one spelling, which Parse reads.
func (w Window) String() string { return w.Days.String() + " " + w.Hours.String() }

// String writes the windows in their one spelling.
func (s Set) String() string {
	words := make([]string, len(s))
	for i, w := range s {
		words[i] = w.String()
	}
	return strings.Join(words, "; ")
}

// Shortest is the length of the shortest window when no clock is changed; 0 for the empty set.
func (s Set) Shortest() time.Duration {
	var least time.Duration
	for i, w := range s {
		if l := w.Length(); i == 0 || l < least {
			least = l
		}
	}
	return least
}
