package wanprofile_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"all", "cap: 6Mbit\nperDay: 5GB\nrules:\n  - mon-FRIDAY 08:00-20:00 2Mbit # shop\n  - Sat,Sun 09:00-18:00 blackout\n  - '* 1Mbit/s'\n",
			"cap: 6Mbit\nperDay: 5GB\nrules:\n  - Mon-Fri 08:00-20:00 2Mbit\n  - Sat,Sun 09:00-18:00 blackout\n  - Daily 1Mbit\n"},
		{"json", `{"cap": "1.5Mbit", "perDay": 1073741824, "rules": ["Fri-Mon 22:00-06:00 512kbit"]}`,
			"cap: 1500kbit\nperDay: 1GiB\nrules:\n  - Mon,Fri-Sun 22:00-06:00 512kbit\n"},
		{"nothing", "{}", "cap: 0\nperDay: 0\n"},
		{"bits per second", "cap: 6000000", "cap: 6Mbit\nperDay: 0\n"},
		{"a whole day in three ways", "rules: [Mon 00:00-24:00 blackout, Tue 00:00-00:00 blackout, Wed blackout, Thu 08:00-08:00 unlimited, Fri 08:00-00:00 unlimited]",
			"cap: 0\nperDay: 0\nrules:\n  - Mon blackout\n  - Tue blackout\n  - Wed blackout\n  - Thu 08:00-08:00 unlimited\n  - Fri 08:00-24:00 unlimited\n"},
	} {
		p, err := wanprofile.Parse("", []byte(c.text))
		if err != nil || p.Text() != c.want {
			t.Errorf("%s: %v, read as\n%s", c.name, err, p.Text())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	many := "rules:\n" + strings.Repeat("  - Daily 1Mbit\n", wanprofile.MaxRules+1)
	for _, c := range []struct{ name, text, want string }{
		{"rate", "cap: 6Mbit\nrules:\n  - Mon-Fri 08:00-20:00 fast", `p.yaml:3:5: rules[0]: rate "fast"`},
		{"day", "rules: [Mon 1Mbit, Funday 1Mbit]", `p.yaml:1:20: rules[1]: day "Funday"`},
		{"hours", "rules: [Mon 8:00-20:00 1Mbit]", `hours "8:00-20:00"`},
		{"hours of twelve", "rules: [Mon 2:00am-4 1Mbit]", `hours "2:00am-4"`},
		{"later than midnight", "rules: [Mon 08:00-24:01 1Mbit]", `hours "08:00-24:01"`},
		{"starts at 24:00", "rules: [Mon 24:00-02:00 1Mbit]", `hours "24:00-02:00"`},
		{"blanks in days", "rules: ['Mon, Tue 08:00-09:00 1Mbit']", "without blanks"},
		{"no rate", "rules: [Mon-Fri]", "want DAYS HH:MM-HH:MM RATE"},
		{"rate 0", "rules: [Mon-Fri 0]", "say blackout or unlimited"},
		{"nothing for a drip", "cap: 1kbit", `rate "1kbit" is less than 64kbit`},
		{"too fast", "cap: 2000Gbit", "want bits per second"},
		{"negative", "cap: -6Mbit", "want bits per second"},
		{"bytes for bits", "cap: 6MB", "want bits per second"},
		{"exponent", "cap: 1e9", "want bits per second"},
		{"total", "perDay: 5Gbit", "want bytes such as 5GB"},
		{"small total", "perDay: 1MB", `total "1MB" is less than 4MiB`},
		{"unknown field", "caps: 6Mbit", `p.yaml:1:1: "caps" is not a field`},
		{"field twice", "cap: 1Mbit\ncap: 2Mbit", `p.yaml:2:1: "cap" is given twice`},
		{"list for value", "cap: [6Mbit]", "p.yaml:1:6: want a single value"},
		{"truth for value", "cap: yes", `rate "yes"`},
		{"null", "cap:", "want a single value"},
		{"value for list", "rules: Daily 1Mbit", "p.yaml:1:8: rules is not a list"},
		{"list of lists", "rules: [[Daily 1Mbit]]", "want a single value"},
		{"star without quotes", "rules:\n  - * 1Mbit", "p.yaml:2: "},
		{"alias", "cap: &a 6Mbit\nperDay: *a", "an anchor or an alias"},
		{"anchor in a rule", "rules: [&a Daily 1Mbit]", "an anchor or an alias"},
		{"too many", many, "33 rules, at most 32"},
		{"too long", "# " + strings.Repeat("x", wanprofile.MaxBytes), "bytes, at most 16384"},
		{"empty", "", "the profile is empty"},
		{"a list", "- cap: 6Mbit", "not a mapping"},
		{"a null", "~", "not a mapping"},
		{"two documents", "cap: 6Mbit\n---\ncap: 0", "more than one document"},
		{"not text", "cap: \xff", "not plain UTF-8"},
	} {
		_, err := wanprofile.Parse("p.yaml", []byte(c.text))
		var p *problem.Error
		if !errors.As(err, &p) || p.Code != problem.InvalidProfile || !strings.Contains(err.Error(), c.want) || p.Done == "" || p.Next == "" {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := (wanprofile.Document{Rules: []string{"Mon"}}).Profile(); err == nil || !strings.Contains(err.Error(), "rules[0]: rule") {
		t.Errorf("words: %v", err)
	}
}

// Whatever the text, what is read has one text, which is read as the same.
func FuzzParse(f *testing.F) {
	f.Add("cap: 6Mbit\nperDay: 5GB\nrules:\n  - Mon-Fri 08:00-20:00 2Mbit\n  - Sat,Sun 09:00-18:00 blackout\n  - '* 1Mbit'\n")
	f.Add(`{"cap":"1.5Gbit","perDay":"500MB","rules":["Fri-Mon 22:00-06:00 unlimited"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := wanprofile.Parse("p.yaml", []byte(text))
		if err != nil {
			if problem.CodeOf(err) != problem.InvalidProfile {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := wanprofile.Parse("", []byte(p.Text()))
		if err != nil || again.Text() != p.Text() || len(p.Rules) > wanprofile.MaxRules {
			t.Errorf("%q is written as %q and read as %q, %v", text, p.Text(), again.Text(), err)
		}
	})
}
