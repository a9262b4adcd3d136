package wall_test

import (
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// Where no clock is changed, an instant is what package time says, on every day of leap years and others, and also on
// the last day of a leap year, for which time.Time.ZoneBounds names an end that is past.
func TestInstant(t *testing.T) {
	for _, name := range []string{"UTC", "America/Chicago", "Australia/Sydney", "Asia/Kolkata", "Pacific/Kiritimati", "Etc/GMT+12"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for d := (wall.Date{Year: 2027, Month: 1, Day: 1}); d.Year < 2034; d = d.Add(1) {
			for _, hour := range []int{0, 12, 23} {
				want := time.Date(d.Year, d.Month, d.Day, hour, 0, 0, 0, zone)
				if got := wall.Instant(zone, d, 60*hour); !got.Equal(want) {
					t.Fatalf("%s %d:00 in %s: %v, want %v", d, hour, name, got, want)
				}
			}
		}
	}
}

func TestDate(t *testing.T) {
	d, err := wall.ParseDate("2028-02-28")
	if err != nil || d.Add(2).String() != "2028-03-01" || d.Until(d.Add(-400)) != -400 || d.Weekday() != time.Monday {
		t.Errorf("%s, %v", d, err)
	}
	for _, s := range []string{"", "2028-2-28", "2027-02-29", "28.02.2028", "2028-02-28T00:00:00Z"} {
		if d, err := wall.ParseDate(s); err == nil {
			t.Errorf("%q is read as %s", s, d)
		}
	}
}
