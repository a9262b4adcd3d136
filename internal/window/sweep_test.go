package window_test

import (
	"archive/zip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/window"
)

// zones are all of the time zone database that this Go brings along.
func zones(t *testing.T) (all map[string]*time.Location, version string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "lib/time")
	script, err := os.ReadFile(filepath.Join(dir, "update.bash"))
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^DATA=(\S+)$`).FindSubmatch(script); m != nil {
		version = string(m[1])
	}
	z, err := zip.OpenReader(filepath.Join(dir, "zoneinfo.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	all = map[string]*time.Location{}
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		loc, err := time.LoadLocationFromTZData(f.Name, b)
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name] = loc
	}
	return all, version
}

// counts of a sweep.
type counts struct{ all, overlap, none, short, long int }

func (c *counts) add(d counts) {
	c.all, c.overlap, c.none, c.short, c.long = c.all+d.all, c.overlap+d.overlap, c.none+d.none, c.short+d.short, c.long+d.long
}

// sweep counts the occurrences of a daily two-hour window that begins at an hour, on dates from first to last, each of
// which is compared with the one before it.
func sweep(zone *time.Location, hour int, first, last wall.Date) (c counts) {
	w := window.Window{Days: wall.EveryDay, Hours: wall.Hours{From: 60 * hour, To: (60*hour + 120) % wall.WholeDay}}
	if w.To == 0 {
		w.To = wall.WholeDay
	}
	_, end := w.On(first.Add(-1), zone)
	for o := range (window.Set{w}).Occurrences(zone, first, last) {
		c.all++
		switch l := o.Length(); {
		case !o.Exists():
			c.none++
			continue
		case l < 2*time.Hour:
			c.short++
		case l > 2*time.Hour:
			c.long++
		}
		if o.Opens.Before(end) {
			c.overlap++
		}
		end = o.Closes
	}
	return c
}

// Daily two-hour windows at every full hour, in every zone, for five years: none overlaps another, and the few that are
// not two hours long are counted. The short form looks at the days around each change of a clock, which is where
// anything can happen, and counts the others; the long form looks at every day.
//
// The design's policy.md gives 26,294,400 occurrences of 600 zones: 0 overlap, 5 do not exist, 2,030 are short, 2,024
// long. Those are the 598 zones of Go's database in these five years, and the two links that a system's directory has
// beside them: posixrules, which is New York, and localtime, which was UTC.
func TestSweep(t *testing.T) {
	all, version := zones(t)
	all["posixrules"], all["localtime"] = all["America/New_York"], time.UTC
	total := sweepAll(all, date(t, "2026-01-01"), date(t, "2030-12-31"), os.Getenv("PATCHMESH_LONG") != "")
	t.Logf("tzdata %s: %d zones: %+v", version, len(all), total)
	if total.overlap != 0 || total.all != 24*1826*len(all) {
		t.Errorf("%+v", total)
	}
	if want := (counts{26_294_400, 0, 5, 2030, 2024}); version == "2025c" && total != want {
		t.Errorf("%+v, want %+v", total, want)
	}
}

func sweepAll(zones map[string]*time.Location, first, last wall.Date, everyDay bool) (total counts) {
	for _, z := range zones {
		spans := [][2]wall.Date{{first, last}}
		if !everyDay {
			spans = changes(z, first, last)
		}
		for hour := range 24 {
			c := counts{all: first.Until(last) + 1}
			for _, s := range spans {
				d := sweep(z, hour, s[0], s[1])
				d.all = 0
				c.add(d)
			}
			total.add(c)
		}
	}
	return total
}

// The two forms agree: on a few zones, in years of which none is like another.
func TestSweepForms(t *testing.T) {
	all, _ := zones(t)
	some := map[string]*time.Location{}
	for _, name := range []string{"America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Asia/Kolkata", "Antarctica/Troll"} {
		some[name] = all[name]
	}
	first, last := date(t, "2009-01-01"), date(t, "2013-12-31")
	if short, long := sweepAll(some, first, last, false), sweepAll(some, first, last, true); short != long || long.none == 0 {
		t.Errorf("short form %+v, long form %+v", short, long)
	}
}

// changes are the dates around each change of a zone's clock, three days to each side, without overlap.
func changes(zone *time.Location, first, last wall.Date) (out [][2]wall.Date) {
	at, end := wall.Instant(zone, first.Add(-3), 0), wall.Instant(zone, last.Add(4), 0)
	_, offset := at.Zone()
	for ; at.Before(end); at = at.Add(6 * time.Hour) {
		_, o := at.Zone()
		if o == offset {
			continue
		}
		offset = o
		from, to := wall.DateOf(at).Add(-3), wall.DateOf(at).Add(3)
		if n := len(out); n > 0 && from.Until(out[n-1][1]) >= 0 {
			from = out[n-1][1].Add(1)
		}
		if from.Until(first) > 0 {
			from = first
		}
		if last.Until(to) > 0 {
			to = last
		}
		if from.Until(to) >= 0 {
			out = append(out, [2]wall.Date{from, to})
		}
	}
	return out
}
