package window_test

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/window"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func set(t testing.TB, s string) window.Set {
	t.Helper()
	w, err := window.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func date(t testing.TB, s string) wall.Date {
	t.Helper()
	d, err := wall.ParseDate(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func utc(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.ParseInLocation("2006-01-02 15:04", s, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// The acceptance vectors of the design's policy.md, section 3, by the zone's rules and by the verdict before, at and
// after each border.
func TestVectors(t *testing.T) {
	for _, c := range []struct{ zone, what, day, date, hours, opens, closes string }{
		{"America/New_York", "plain", "Tue", "2026-08-25", "02:00-04:00", "2026-08-25 06:00", "2026-08-25 08:00"},
		{"America/New_York", "crosses midnight", "Tue", "2026-08-25", "23:00-02:00", "2026-08-26 03:00", "2026-08-26 06:00"},
		{"America/New_York", "start in spring gap", "Sun", "2027-03-14", "02:30-04:00", "2027-03-14 07:00", "2027-03-14 08:00"},
		{"America/New_York", "end in spring gap", "Sun", "2027-03-14", "01:00-02:30", "2027-03-14 06:00", "2027-03-14 07:00"},
		{"America/New_York", "all in gap", "Sun", "2027-03-14", "02:00-03:00", "", ""},
		{"America/New_York", "straddles gap", "Sun", "2027-03-14", "01:30-03:30", "2027-03-14 06:30", "2027-03-14 07:30"},
		{"America/New_York", "start in autumn fold", "Sun", "2027-11-07", "01:30-02:30", "2027-11-07 05:30", "2027-11-07 07:30"},
		{"America/New_York", "end in fold", "Sun", "2027-11-07", "00:30-01:30", "2027-11-07 04:30", "2027-11-07 05:30"},
		{"America/New_York", "all in fold", "Sun", "2027-11-07", "01:15-01:45", "2027-11-07 05:15", "2027-11-07 05:45"},
		{"America/New_York", "Sat into fold", "Sat", "2027-11-06", "23:00-02:00", "2027-11-07 03:00", "2027-11-07 07:00"},
		{"Europe/Berlin", "start in gap", "Sun", "2027-03-28", "02:00-04:00", "2027-03-28 01:00", "2027-03-28 02:00"},
		{"Australia/Lord_Howe", "30-minute gap", "Sun", "2027-10-03", "02:00-04:00", "2027-10-02 15:30", "2027-10-02 17:00"},
		{"Africa/Cairo", "gap at midnight", "Fri", "2027-04-30", "00:00-02:00", "2027-04-29 22:00", "2027-04-29 23:00"},
		{"UTC", "ends at midnight", "Tue", "2026-08-25", "22:00-00:00", "2026-08-25 22:00", "2026-08-26 00:00"},
		{"UTC", "24:00 is that midnight", "Tue", "2026-08-25", "22:00-24:00", "2026-08-25 22:00", "2026-08-26 00:00"},
		{"UTC", "equal is 24 hours", "Tue", "2026-08-25", "22:00-22:00", "2026-08-25 22:00", "2026-08-26 22:00"},
	} {
		t.Run(c.zone+" "+c.what, func(t *testing.T) {
			r := window.Rules{Windows: set(t, c.day+" "+c.hours), Zone: zone(t, c.zone)}
			d := date(t, c.date)
			var found int
			for o := range r.Windows.Occurrences(r.Zone, d.Add(-6), d) {
				if found++; o.Date != d || o.Exists() != (c.opens != "") {
					t.Fatalf("%+v", o)
				}
				if c.opens != "" && (!o.Opens.Equal(utc(t, c.opens)) || !o.Closes.Equal(utc(t, c.closes))) {
					t.Fatalf("%v to %v, want %s to %s", o.Opens.UTC(), o.Closes.UTC(), c.opens, c.closes)
				}
			}
			if found != 1 {
				t.Fatalf("%d occurrences", found)
			}
			if c.opens == "" { // the next one is used
				noon := wall.Instant(r.Zone, d, 12*60)
				for _, at := range []time.Time{noon.Add(-36 * time.Hour), noon.Add(-5 * time.Hour), noon} {
					if v := r.Decide(at); v.Start || v.Reason != window.Closed || wall.DateOf(v.Next.In(r.Zone)) != d.Add(7) {
						t.Errorf("at %v: %+v", at, v)
					}
				}
				return
			}
			opens, closes := utc(t, c.opens), utc(t, c.closes)
			for at, want := range map[time.Time]bool{opens.Add(-1): false, opens: true, closes.Add(-1): true, closes: false} {
				v := r.Decide(at)
				if v.Start != want || want && (!v.Opens.Equal(opens) || !v.Closes.Equal(closes)) || !want && v.Reason != window.Closed {
					t.Errorf("at %v: %+v", at.UTC(), v)
				}
			}
			if v := r.Decide(opens.Add(-time.Hour)); !v.Next.Equal(opens) {
				t.Errorf("an hour before: %+v", v)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	ny := zone(t, "America/New_York")
	friday := window.Dates{First: date(t, "2026-11-27"), Last: date(t, "2026-12-01"), Reason: "Black Friday"}
	for name, c := range map[string]struct {
		rules                   window.Rules
		at                      string // UTC
		start                   bool
		reason                  window.Reason
		text                    string // part of it
		opens, closes, next     string
		opensNever, closesNever bool
	}{
		"always": {at: "2026-11-21 12:00", start: true, opensNever: true, closesNever: true},
		"daily all day is always": {rules: window.Rules{Windows: set(t, "Daily 00:00-24:00"), Cutoff: time.Hour},
			at: "2026-11-21 12:00", start: true, opensNever: true, closesNever: true},
		"a working week in one": {rules: window.Rules{Windows: set(t, "Mon-Fri 00:00-24:00")},
			at: "2026-11-20 12:00", start: true, opens: "2026-11-16 05:00", closes: "2026-11-21 05:00"},
		"closed, the next of two": {rules: window.Rules{Windows: set(t, "Tue 02:00-04:00; Sun 01:00-03:00")},
			at: "2026-11-21 12:00", reason: window.Closed, text: "Tue 02:00-04:00; Sun 01:00-03:00 America/New_York",
			opens: "2026-11-22 06:00", closes: "2026-11-22 08:00", next: "2026-11-22 06:00"},
		"two that adjoin are one": {rules: window.Rules{Windows: set(t, "Mon 22:00-24:00; Tue 00:00-02:00"), Cutoff: 20 * time.Minute},
			at: "2026-11-24 04:50", start: true, opens: "2026-11-24 03:00", closes: "2026-11-24 07:00"},
		"two that overlap are one": {rules: window.Rules{Windows: set(t, "Mon 22:00-01:00; Mon 23:30-02:00")},
			at: "2026-11-24 05:59", start: true, opens: "2026-11-24 03:00", closes: "2026-11-24 07:00"},
		"the last moment before the cut-off": {rules: window.Rules{Windows: set(t, "Tue 02:00-04:00"), Cutoff: 20 * time.Minute},
			at: "2026-11-24 08:40", start: true, opens: "2026-11-24 07:00", closes: "2026-11-24 09:00"},
		"after the cut-off": {rules: window.Rules{Windows: set(t, "Tue 02:00-04:00"), Cutoff: 20 * time.Minute},
			at: "2026-11-24 08:41", reason: window.Closed, text: "less than 20m0s left of Tue", opens: "2026-12-01 07:00", closes: "2026-12-01 09:00", next: "2026-12-01 07:00"},
		"blackout suppresses the next": {rules: window.Rules{Windows: set(t, "Tue 02:00-04:00"), Blackouts: []window.Dates{friday}},
			at: "2026-11-24 12:00", reason: window.Blackout, text: "Black Friday, 2026-11-27 to 2026-12-01", opens: "2026-12-08 07:00", closes: "2026-12-08 09:00", next: "2026-12-08 07:00"},
		"in a blackout, the next after it": {rules: window.Rules{Windows: set(t, "Wed 02:00-04:00"), Blackouts: []window.Dates{friday}},
			at: "2026-11-28 12:00", reason: window.Closed, opens: "2026-12-02 07:00", closes: "2026-12-02 09:00", next: "2026-12-02 07:00"},
		"a window ends where a blackout begins": {rules: window.Rules{Windows: set(t, "Thu 22:00-02:00"), Blackouts: []window.Dates{friday}, Cutoff: time.Hour},
			at: "2026-11-27 03:59", start: true, opens: "2026-11-27 03:00", closes: "2026-11-27 05:00"},
		"too little left before a blackout": {rules: window.Rules{Windows: set(t, "Thu 22:00-02:00"), Blackouts: []window.Dates{friday}, Cutoff: time.Hour},
			at: "2026-11-27 04:01", reason: window.Blackout, opens: "2026-12-04 03:00", closes: "2026-12-04 07:00", next: "2026-12-04 03:00"},
		"a window begins where a blackout ends": {rules: window.Rules{Windows: set(t, "Tue 22:00-02:00"), Blackouts: []window.Dates{friday}},
			at: "2026-12-02 04:00", reason: window.Blackout, opens: "2026-12-02 05:00", closes: "2026-12-02 07:00", next: "2026-12-02 05:00"},
		"blackout without windows": {rules: window.Rules{Blackouts: []window.Dates{friday}},
			at: "2026-12-02 04:59", reason: window.Blackout, text: "Black Friday", opens: "2026-12-02 05:00", closesNever: true, next: "2026-12-02 05:00"},
		"not before": {rules: window.Rules{Windows: set(t, "Tue 02:00-04:00"), NotBefore: utc(t, "2027-03-02 08:00")},
			at: "2026-11-21 12:00", reason: window.TooEarly, text: "not before 2027-03-02 03:00 EST", opens: "2027-03-02 08:00", closes: "2027-03-02 09:00", next: "2027-03-02 08:00"},
		"never": {rules: window.Rules{Windows: set(t, "Tue 02:00-04:00"), Blackouts: []window.Dates{{First: date(t, "2026-01-01"), Last: date(t, "2036-01-01")}}},
			at: "2026-11-21 12:00", reason: window.Blackout, text: "blackout, 2026-01-01", opensNever: true, closesNever: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.rules.Zone = ny
			v := c.rules.Decide(utc(t, c.at))
			if v.Start != c.start || v.Reason != c.reason || !strings.Contains(v.Text, c.text) {
				t.Errorf("%+v", v)
			}
			for _, x := range []struct {
				what, want string
				got        time.Time
				never      bool
			}{{"opens", c.opens, v.Opens, c.opensNever}, {"closes", c.closes, v.Closes, c.closesNever}, {"next", c.next, v.Next, c.next == ""}} {
				if x.got.IsZero() != x.never || !x.never && !x.got.Equal(utc(t, x.want)) {
					t.Errorf("%s %v, want %q", x.what, x.got.UTC(), x.want)
				}
			}
		})
	}
}

func TestUpcoming(t *testing.T) {
	r := window.Rules{Windows: set(t, "Sun 02:00-03:00"), Zone: zone(t, "America/New_York")}
	var got []string
	for _, s := range r.Upcoming(utc(t, "2027-03-07 07:30"), 3) { // the week after it does not exist
		got = append(got, s.Opens.UTC().Format("01-02 15:04"))
	}
	if want := "03-07 07:00 03-21 06:00 03-28 06:00"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %q", got, want)
	}
	always := window.Rules{Zone: time.UTC}
	if got := always.Upcoming(utc(t, "2027-03-07 07:30"), 3); len(got) != 1 {
		t.Errorf("always open: %v", got)
	}
}

// Against an oracle that goes minute by minute and asks the clocks of the zone, never computing an offset: open is every
// minute from the first at which the wall shows the start, or later, to the first at which it shows the end.
func TestDecideAgainstTheWall(t *testing.T) {
	places := []struct{ zone, around string }{
		{"America/New_York", "2027-03-14"}, {"America/New_York", "2027-11-07"}, {"Australia/Lord_Howe", "2027-10-03"},
		{"Australia/Lord_Howe", "2027-04-04"}, {"Africa/Cairo", "2027-04-30"}, {"Africa/Cairo", "2026-10-30"},
		{"Africa/Casablanca", "2027-02-07"}, {"Europe/Berlin", "2026-12-25"}, {"Pacific/Apia", "2011-12-30"}, {"America/Havana", "2027-11-07"},
	}
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.SampledFrom(places).Draw(t, "place")
		z, err := time.LoadLocation(at.zone)
		if err != nil {
			t.Fatal(err)
		}
		around, err := wall.ParseDate(at.around)
		if err != nil {
			t.Fatal(err)
		}
		r := window.Rules{Zone: z, Cutoff: time.Duration(rapid.SampledFrom([]int{0, 0, 20, 70}).Draw(t, "cutoff")) * time.Minute}
		for range rapid.IntRange(1, 3).Draw(t, "windows") {
			r.Windows = append(r.Windows, window.Window{Days: wall.Days(rapid.IntRange(1, 127).Draw(t, "days")),
				Hours: wall.Hours{From: 15 * rapid.IntRange(0, 95).Draw(t, "from"), To: 15 * rapid.IntRange(1, 96).Draw(t, "to")}})
		}
		if rapid.Bool().Draw(t, "dark") {
			first := around.Add(rapid.IntRange(-2, 2).Draw(t, "dark from"))
			r.Blackouts = []window.Dates{{First: first, Last: first.Add(rapid.IntRange(0, 2).Draw(t, "dark days"))}}
		}
		open, begin := byTheWall(&r, around)
		k := rapid.IntRange(4*1440, 9*1440).Draw(t, "minute")
		now := begin.Add(time.Duration(k) * time.Minute)
		ends := k
		for ends < len(open) && open[ends] {
			ends++
		}
		left := time.Duration(ends-k) * time.Minute
		v := r.Decide(now)
		if want := open[k] && left >= r.Cutoff; v.Start != want {
			t.Fatalf("at %v: %+v, and by the wall open is %v with %v left", now.In(z), v, open[k], left)
		}
		if v.Start && !v.Closes.IsZero() && ends < len(open) && v.Closes.Sub(now) != left {
			t.Fatalf("at %v: closes %v, by the wall in %v", now.In(z), v.Closes, left)
		}
		if !v.Start && !v.Next.IsZero() { // what it promises is so, and nothing before
			if w := r.Decide(v.Next); !w.Start {
				t.Fatalf("at %v: the next is %v, and then %+v", now.In(z), v.Next, w)
			}
			if w := r.Decide(v.Next.Add(-1)); w.Start {
				t.Fatalf("at %v: the next is %v, and just before it %+v", now.In(z), v.Next, w)
			}
		}
	})
}

// byTheWall says for each minute of two weeks around a date whether a window is open.
func byTheWall(r *window.Rules, around wall.Date) (open []bool, begin time.Time) {
	begin = time.Date(around.Year, around.Month, around.Day-7, 0, 0, 0, 0, time.UTC)
	const minutes = 15 * 1440
	shown := make([]int, minutes) // minutes of the calendar that the clocks show
	for i := range shown {
		w := begin.Add(time.Duration(i) * time.Minute).In(r.Zone)
		shown[i] = epoch(wall.DateOf(w))*1440 + w.Hour()*60 + w.Minute()
	}
	first := func(wall int) int { // minute at which the clocks first show that or more
		for i, s := range shown {
			if s >= wall {
				return i
			}
		}
		return minutes
	}
	open = make([]bool, minutes)
	mark := func(from, to int, is bool) {
		for i := first(from); i < first(to); i++ {
			open[i] = is
		}
	}
	for day := shown[0] / 1440; day <= shown[minutes-1]/1440; day++ {
		for _, w := range r.Windows {
			if w.Days.Has(time.Weekday((day + 4) % 7)) { // day 0, 1970-01-01, was a Thursday
				end := day*1440 + w.To
				if w.To <= w.From {
					end += 1440
				}
				mark(day*1440+w.From, end, true)
			}
		}
	}
	for _, b := range r.Blackouts {
		mark(epoch(b.First)*1440, (epoch(b.Last)+1)*1440, false)
	}
	return open, begin
}

func epoch(d wall.Date) int {
	return int(time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}
