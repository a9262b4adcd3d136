package wanprofile_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the vectors are of the tables compiled in

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func profile(t testing.TB, limit, perDay string, rules ...string) wanprofile.Profile {
	t.Helper()
	p, err := wanprofile.Document{Cap: limit, PerDay: perDay, Rules: rules}.Profile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The profile of the package's documentation, at telling moments of a week in Chicago.
func TestAllow(t *testing.T) {
	chicago := zone(t, "America/Chicago")
	p := profile(t, "6Mbit", "5GB", "Mon-Fri 08:00-20:00 2Mbit", "Sat,Sun 09:00-18:00 blackout", "Fri 22:00-02:00 8Mbit", "Daily 03:00-05:00 unlimited", "* 1Mbit")
	const gb = 1_000_000_000
	for _, c := range []struct {
		now    string // local
		sent   int64
		rate   int64 // -1: paused
		why    string
		until  string // local
		passed string
	}{
		{now: "2026-11-23 08:00", rate: 250_000, why: "rule Mon-Fri 08:00-20:00 2Mbit", until: "2026-11-23 20:00"}, // Monday
		{now: "2026-11-23 07:59", rate: 125_000, why: "rule Daily 1Mbit", until: "2026-11-23 08:00"},
		{now: "2026-11-23 20:00", rate: 125_000, why: "rule Daily 1Mbit", until: "2026-11-24 03:00"}, // midnight changes nothing
		{now: "2026-11-24 03:30", rate: 750_000, why: "cap of 6Mbit", until: "2026-11-24 05:00"},
		{now: "2026-11-27 23:00", rate: 750_000, why: "cap of 6Mbit", until: "2026-11-28 02:00"}, // a rule never lifts the cap
		{now: "2026-11-28 01:59", rate: 750_000, why: "cap of 6Mbit", until: "2026-11-28 02:00"}, // Friday's, on Saturday
		{now: "2026-11-29 01:00", rate: 125_000, why: "rule Daily 1Mbit", until: "2026-11-29 03:00"},
		{now: "2026-11-28 09:00", rate: -1, why: "blackout", until: "2026-11-28 18:00"},
		{now: "2026-11-24 12:00", sent: 5 * gb, rate: -1, why: "the day's total of 5GB is used up", until: "2026-11-25 00:00"},
		{now: "2026-11-24 12:00", sent: 5*gb - 1, rate: 250_000, why: "rule Mon-Fri 08:00-20:00 2Mbit", until: "2026-11-24 20:00"},
		{now: "2026-11-28 10:00", sent: 5 * gb, rate: -1, why: "blackout, and the day's total of 5GB is used up", until: "2026-11-29 00:00"},
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", c.now, chicago)
		if err != nil {
			t.Fatal(err)
		}
		a := p.Allow(now, c.sent)
		if a.Paused != (c.rate < 0) || c.rate > 0 && a.BytesPerSecond != c.rate || a.Why != c.why || a.Until.Format("2006-01-02 15:04") != c.until {
			t.Errorf("%s, %d sent: %+v, want %+v", c.now, c.sent, a, c)
		}
	}
	var none wanprofile.Profile
	if a := none.Allow(time.Now(), 1<<60); a.Paused || a.BytesPerSecond != 0 || !a.Until.IsZero() || a.Why != "no cap" {
		t.Errorf("no limits: %+v", a)
	}
	always := profile(t, "", "", "Daily blackout")
	if a := always.Allow(time.Now(), 0); !a.Paused || !a.Until.IsZero() {
		t.Errorf("blackout for ever: %+v", a)
	}
}

// The acceptance vectors of the policies' windows: when a rule begins and ends where clocks are changed. An empty length:
// the occurrence does not exist.
func TestClockChanges(t *testing.T) {
	for _, c := range []struct{ zone, days, hours, date, opens, closes string }{
		{"America/New_York", "Tue", "02:00-04:00", "2026-08-25", "08-25 06:00", "08-25 08:00"},
		{"America/New_York", "Tue", "23:00-02:00", "2026-08-25", "08-26 03:00", "08-26 06:00"},
		{"America/New_York", "Sun", "02:30-04:00", "2027-03-14", "03-14 07:00", "03-14 08:00"},
		{"America/New_York", "Sun", "01:00-02:30", "2027-03-14", "03-14 06:00", "03-14 07:00"},
		{"America/New_York", "Sun", "02:00-03:00", "2027-03-14", "", ""},
		{"America/New_York", "Sun", "01:30-03:30", "2027-03-14", "03-14 06:30", "03-14 07:30"},
		{"America/New_York", "Sun", "01:30-02:30", "2027-11-07", "11-07 05:30", "11-07 07:30"},
		{"America/New_York", "Sun", "00:30-01:30", "2027-11-07", "11-07 04:30", "11-07 05:30"},
		{"America/New_York", "Sun", "01:15-01:45", "2027-11-07", "11-07 05:15", "11-07 05:45"},
		{"America/New_York", "Sat", "23:00-02:00", "2027-11-06", "11-07 03:00", "11-07 07:00"},
		{"Europe/Berlin", "Sun", "02:00-04:00", "2027-03-28", "03-28 01:00", "03-28 02:00"},
		{"Australia/Lord_Howe", "Sun", "02:00-04:00", "2027-10-03", "10-02 15:30", "10-02 17:00"},
		{"Africa/Cairo", "Fri", "00:00-02:00", "2027-04-30", "04-29 22:00", "04-29 23:00"},
		{"UTC", "Tue", "22:00-00:00", "2026-08-25", "08-25 22:00", "08-26 00:00"},
	} {
		p := profile(t, "", "", c.days+" "+c.hours+" blackout")
		z := zone(t, c.zone)
		d, err := time.ParseInLocation(time.DateOnly, c.date, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		// Minute by minute through the days around it.
		var was bool
		var seen []string
		for m := d.Add(-30 * time.Hour); m.Before(d.Add(60 * time.Hour)); m = m.Add(time.Minute) {
			if is := p.Allow(m.In(z), 0).Paused; is != was {
				seen, was = append(seen, m.Format("01-02 15:04")), is
			}
		}
		var want []string
		if c.opens != "" {
			want = []string{c.opens, c.closes}
		}
		if !slices.Equal(seen, want) {
			t.Errorf("%s %s of %s: changes at %v, want %v", c.zone, c.hours, c.date, seen, want)
		}
	}
}

// A local day has one beginning and one end, whatever the clocks do at midnight. The days are past ones: what governments
// decide of those to come changes with the machine's time zone data.
func TestDay(t *testing.T) {
	for _, c := range []struct{ zone, now, day, end string }{ // UTC
		{"America/Chicago", "2024-11-21 05:59", "2024-11-20", "2024-11-21 06:00"},
		{"America/Chicago", "2024-11-21 06:00", "2024-11-21", "2024-11-22 06:00"},
		{"America/Chicago", "2024-11-03 20:00", "2024-11-03", "2024-11-04 06:00"}, // a day of 25 hours
		{"Africa/Cairo", "2024-04-25 21:59", "2024-04-25", "2024-04-25 22:00"},    // midnight is left out
		{"Africa/Cairo", "2024-04-25 22:00", "2024-04-26", "2024-04-26 21:00"},
		{"Africa/Cairo", "2024-10-31 20:59", "2024-10-31", "2024-10-31 22:00"}, // 24:00 becomes 23:00: still the 31st
		{"Africa/Cairo", "2024-10-31 21:30", "2024-10-31", "2024-10-31 22:00"},
		{"Pacific/Apia", "2011-12-30 09:59", "2011-12-29", "2011-12-30 10:00"}, // the 30th is left out
		{"Pacific/Apia", "2011-12-30 10:00", "2011-12-31", "2011-12-31 10:00"},
		{"America/Havana", "2024-11-03 05:30", "2024-11-03", "2024-11-04 05:00"}, // 00:30, the second one
	} {
		now, err := time.Parse("2006-01-02 15:04", c.now)
		if err != nil {
			t.Fatal(err)
		}
		now = now.In(zone(t, c.zone))
		if day, end := wanprofile.Day(now).String(), wanprofile.DayEnd(now).UTC().Format("2006-01-02 15:04"); day != c.day || end != c.end {
			t.Errorf("%s at %s: day %s to %s, want %s to %s", c.zone, c.now, day, end, c.day, c.end)
		}
	}
}

// oracle knows the zone's clock at every minute of some days, and finds everything by looking.
type oracle struct {
	from int64          // UTC minute of wall[0]
	wall []int64        // what the clock shows, in minutes since 1970 as if it were UTC
	days []int64        // the local day that is counted
	on   map[int][]bool // rule: is it on
}

func newOracle(p *wanprofile.Profile, z *time.Location, from time.Time, days int) *oracle {
	o := &oracle{from: from.Unix() / 60, on: map[int][]bool{}}
	for i := range int64(days * 24 * 60) {
		_, off := time.Unix((o.from+i)*60, 0).In(z).Zone()
		o.wall = append(o.wall, o.from+i+int64(off)/60)
	}
	day := int64(0)
	for _, w := range o.wall {
		day = max(day, w/1440)
		o.days = append(o.days, day)
	}
	first := func(w int64) int { // when the clock first shows w or more
		i := slices.IndexFunc(o.wall, func(x int64) bool { return x >= w })
		if i < 0 {
			return len(o.wall)
		}
		return i
	}
	for i, r := range p.Rules {
		o.on[i] = make([]bool, len(o.wall))
		for d := o.wall[0]/1440 + 1; d < o.wall[len(o.wall)-1]/1440; d++ {
			if r.Days>>(time.Unix(d*86400, 0).UTC().Weekday())&1 == 0 {
				continue
			}
			end := d*1440 + int64(r.To)
			if r.To <= r.From {
				end += 1440
			}
			for m := first(d*1440 + int64(r.From)); m < first(end); m++ {
				o.on[i][m] = true
			}
		}
	}
	return o
}

// at is the rate at a minute, -1 when paused.
func (o *oracle) at(p *wanprofile.Profile, m int, full bool) int64 {
	if full {
		return -1
	}
	for i, r := range p.Rules {
		if o.on[i][m] {
			switch {
			case r.Blackout:
				return -1
			case r.Rate > 0 && (p.Cap == 0 || r.Rate < p.Cap):
				return r.Rate
			}
			break
		}
	}
	return p.Cap
}

// Whatever the profile, the zone and the season: Allow says what the oracle says, and Until is the very next change.
func TestUntil(t *testing.T) {
	places := []struct{ zone, around string }{
		{"America/Chicago", "2026-11-01"}, {"America/Chicago", "2027-03-14"}, {"Europe/Berlin", "2026-10-25"}, {"Africa/Cairo", "2026-10-29"},
		{"Africa/Cairo", "2027-04-29"}, {"Australia/Lord_Howe", "2027-04-04"}, {"Pacific/Apia", "2011-12-30"}, {"Asia/Kathmandu", "2026-05-01"},
		{"America/Havana", "2026-11-01"}, {"America/Sao_Paulo", "2018-02-17"}, {"Antarctica/Troll", "2027-03-28"}, {"UTC", "2026-02-28"},
	}
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.SampledFrom(places).Draw(t, "place")
		z, err := time.LoadLocation(at.zone)
		if err != nil {
			t.Fatal(err)
		}
		d, err := time.Parse(time.DateOnly, at.around)
		if err != nil {
			t.Fatal(err)
		}
		p := rapid.Custom(drawProfile).Draw(t, "profile")
		o := newOracle(&p, z, d.Add(-5*24*time.Hour), 20)
		begin := rapid.IntRange(3*1440, 7*1440).Draw(t, "minute")
		now := time.Unix((o.from+int64(begin))*60+int64(rapid.IntRange(0, 59).Draw(t, "second")), 0).In(z)
		sent := rapid.SampledFrom([]int64{0, 1, p.PerDay, p.PerDay + 1}).Draw(t, "sent")
		full := func(m int) bool { return p.PerDay > 0 && sent >= p.PerDay && o.days[m] == o.days[begin] }

		a := p.Allow(now, sent)
		have := a.BytesPerSecond
		if a.Paused {
			have = -1
		}
		want := o.at(&p, begin, full(begin))
		if have != want || a.Why == "" {
			t.Fatalf("%s: %+v, want %d", now, a, want)
		}
		if p.Cap > 0 && (a.BytesPerSecond > p.Cap || !a.Paused && a.BytesPerSecond == 0) {
			t.Fatalf("the cap of %d does not hold: %+v", p.Cap, a)
		}
		next := time.Time{}
		for m := begin + 1; m < begin+7*1440; m++ {
			if o.at(&p, m, full(m)) != want {
				next = time.Unix((o.from+int64(m))*60, 0)
				break
			}
		}
		if !next.Equal(a.Until) && !(next.IsZero() && a.Until.Sub(now) > 7*24*time.Hour-time.Hour) {
			t.Fatalf("%s: until %s, want %s\n%s", now, a.Until, next.In(z), p.Text())
		}
	})
}

func drawProfile(t *rapid.T) wanprofile.Profile {
	rate := rapid.SampledFrom([]int64{0, 8_000, 125_000, 250_000, 187_500, 750_000})
	p := wanprofile.Profile{Cap: rate.Draw(t, "cap"), PerDay: rapid.SampledFrom([]int64{0, 5_000_000_000, 4 << 20}).Draw(t, "per day")}
	for range rapid.IntRange(0, 5).Draw(t, "rules") {
		r := wanprofile.Rule{Days: wall.Days(rapid.IntRange(1, 127).Draw(t, "days")), Rate: rate.Draw(t, "rate"),
			Hours: wall.Hours{From: 15 * rapid.IntRange(0, 95).Draw(t, "from"), To: 15 * rapid.IntRange(1, 96).Draw(t, "to")}}
		if rapid.Bool().Draw(t, "blackout") {
			r.Blackout, r.Rate = true, 0
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

// A local day never goes back and lasts about a day, in every zone through years of changes.
func TestDaysFollowEachOther(t *testing.T) {
	for _, name := range []string{"America/Chicago", "Africa/Cairo", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Atlantic/Azores", "Asia/Amman"} {
		now := time.Date(2015, 1, 1, 0, 0, 0, 0, zone(t, name))
		for range 15 * 365 {
			end := wanprofile.DayEnd(now)
			if d := end.Sub(now); d < 22*time.Hour || d > 26*time.Hour {
				t.Fatalf("%s: the day of %s has %s", name, now, d)
			}
			if a, b := wanprofile.Day(end.Add(-time.Second)).String(), wanprofile.Day(end).String(); a != wanprofile.Day(now).String() || b <= a {
				t.Fatalf("%s: %s is followed by %s", name, a, b)
			}
			now = end
		}
	}
}

// The largest profile is computed in no time: the seeder does it for every site at every border.
func BenchmarkAllow(b *testing.B) {
	p := wanprofile.Profile{Cap: 1e6, PerDay: 5e9}
	for i := range wanprofile.MaxRules {
		p.Rules = append(p.Rules, wanprofile.Rule{Days: wall.EveryDay, Hours: wall.Hours{From: 10 * i, To: 10*i + 700}, Rate: 8000})
	}
	now := time.Date(2026, 11, 1, 0, 30, 0, 0, zone(b, "America/Chicago"))
	for b.Loop() {
		p.Allow(now, 0)
	}
}

// One profile has one text.
func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProfile(t)
		again, err := wanprofile.Parse("", []byte(p.Text()))
		if err != nil || again.Text() != p.Text() {
			t.Fatalf("%q is read as %+v, %v", p.Text(), again, err)
		}
		words, err := p.Document().Profile()
		if err != nil || words.Text() != p.Text() {
			t.Fatalf("%+v is read as %+v, %v", p.Document(), words, err)
		}
		if strings.Count(p.Text(), "\n") > 3+len(p.Rules) {
			t.Fatal(p.Text())
		}
	})
}
