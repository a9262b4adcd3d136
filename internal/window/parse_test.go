package window_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/window"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"Tue 02:00-04:00":                   "Tue 02:00-04:00",
		" tuesday  02:00-04:00 ":            "Tue 02:00-04:00",
		"FRI-MON 22:00-24:00":               "Mon,Fri-Sun 22:00-24:00",
		"Tue,Thu 22:00-00:00":               "Tue,Thu 22:00-24:00",
		"Mon-Wed,sat 23:30-01:15":           "Mon-Wed,Sat 23:30-01:15",
		"daily 00:00-00:00":                 "Daily 00:00-24:00",
		"Mon-Sun 03:00-03:00":               "Daily 03:00-03:00",
		"Tue 02:00-04:00;Sun 01:00-05:00":   "Tue 02:00-04:00; Sun 01:00-05:00",
		"Tue 02:00-04:00 ; Sun 01:00-05:00": "Tue 02:00-04:00; Sun 01:00-05:00",
	} {
		s, err := window.Parse(text)
		if err != nil || s.String() != want {
			t.Errorf("%q: %q, %v; want %q", text, s, err, want)
		}
	}
}

// What cannot be read says what to write instead, and what it says can be read.
func TestSyntaxError(t *testing.T) {
	const example = "Tue 02:00-04:00"
	for text, write := range map[string]string{
		"Tue 2:00am-4":                 example,
		"Tue 2am - 4:30 am":            "Tue 02:00-04:30",
		"Tuesdays 22:00–2:00":          "Tue 22:00-02:00",
		"Mon, Wed and Fri 1.15-3.15":   "Mon,Wed,Fri 01:15-03:15",
		"weekends 10pm to 12am":        "Sat,Sun 22:00-24:00",
		"every day 2-4":                "Daily 02:00-04:00",
		"Tue 02:00:00-04:00:00":        "Tue 02:00-04:00",
		"Tue":                          example,
		"":                             example,
		"02:00-04:00":                  example,
		"Tue 24:00-02:00":              example,
		"Tue 02:00-25:00":              example,
		"Tue 02:60-04:00":              example,
		"Tues 02:00-04:00":             "Tue 02:00-04:00",
		"* 02:00-04:00":                example,
		"Tue 02:00-04:00 UTC":          example,
		"Tue 02:00-04:00;":             example,
		"Tue- 02:00-04:00":             example,
		"0 2 * * 2":                    example,
		"Tue 02:00-04:00, Thu 1:00-2":  example,
		"Tue ٠٢:٠٠-٠٤:٠٠":              example,
		strings.Repeat("x", 1000):      example,
		"Di 02:00-04:00":               example,
		"Mon-Fri,Sat-Sun,Foo 1:00-2:0": example,
	} {
		_, err := window.Parse(text)
		var e *window.SyntaxError
		if !errors.As(err, &e) || e.Write != write || len(err.Error()) > 600 {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := window.Parse(strings.Repeat("Tue 02:00-04:00;", window.MaxWindows) + "Tue 02:00-04:00"); err == nil {
		t.Error("windows without number")
	}
}

// Whatever is accepted has one spelling, and whatever is suggested is accepted.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"Tue 02:00-04:00", "Fri-Mon,wed 22:00-24:00; Daily 00:00-00:00", "Tue 2:00am-4", "tuesdays 10pm to 12am"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := window.Parse(text)
		if e := (*window.SyntaxError)(nil); errors.As(err, &e) {
			text = e.Write
			s, err = window.Parse(text)
			if err != nil {
				t.Fatalf("%q is suggested: %v", text, err)
			}
		}
		if err != nil {
			return
		}
		again, err := window.Parse(s.String())
		if err != nil || again.String() != s.String() || len(again) != len(s) || len(s) == 0 {
			t.Fatalf("%q is written %q and read as %q, %v", text, s, again, err)
		}
		for _, w := range s {
			if w.Days == 0 || w.Length() <= 0 {
				t.Fatalf("%q has an empty window", text)
			}
		}
	})
}
