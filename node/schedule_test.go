package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
)

// diary is the life of one bundle in virtual time: what happened, a line for each change of phase.
type diary struct {
	t        *testing.T
	life     *Life
	zone     *time.Location
	now      time.Time
	schedule policy.Schedule
	staged   bool
	off      bool
	early    bool // the neighbours' clocks are not heard yet
	before   bool // requireBeforeWindow
	hold     func(now time.Time, l *Life) *hold
	skew     time.Duration // of the site's clocks against ours
	takes    time.Duration // of an install
	answer   func(now time.Time) install.Result
	busy     time.Time // until when the installer runs
	lines    []string
	starts   []time.Time
}

func newDiary(t *testing.T, zone, start string, s policy.Schedule) *diary {
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	now, err := time.ParseInLocation("2006-01-02 15:04", start, z)
	if err != nil {
		t.Fatal(err)
	}
	if s.Zone == "" {
		s.Zone = zone
	}
	d := &diary{t: t, life: &Life{}, zone: z, now: now, schedule: s, takes: 5 * time.Minute}
	d.answer = func(time.Time) install.Result {
		return install.Result{Outcome: install.Success, Phase: status.Installed, Reason: "Installed", Installed: &ledger.Release{Bundle: "app", Version: "1", Checksum: manifest.Digest{1}}}
	}
	d.life.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
	return d
}

// until lets time pass in steps of a minute at night and while the installer runs, and of a quarter of an hour else. The state is written and read again
// each time: nothing is remembered that is not on disk.
func (d *diary) until(end string) *diary {
	d.t.Helper()
	to, err := time.ParseInLocation("2006-01-02 15:04", end, d.zone)
	if err != nil {
		d.t.Fatal(err)
	}
	facts := &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1", Sequence: 1, Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64"}},
		machine: manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}}
	pass := func() {
		step := 15 * time.Minute
		if !d.busy.IsZero() || d.now.Hour() < 6 || d.now.Minute()%15 != 0 {
			step = time.Minute
		}
		d.now = d.now.Add(step)
	}
	for ; d.now.Before(to); pass() {
		if !d.busy.IsZero() {
			if d.now.Before(d.busy) {
				continue
			}
			d.busy = time.Time{}
			d.life.finish(d.now, d.answer(d.now))
			d.note()
		}
		if d.off {
			continue
		}
		for range 4 {
			facts.staged, facts.early, facts.hold = d.staged, d.before, nil
			if d.hold != nil {
				facts.hold = d.hold(d.now, d.life)
			}
			w := timingOf(d.schedule, d.now, d.skew, nil)
			if w != nil {
				w.early = d.early
			}
			v := d.life.step(d.now, facts, w)
			if !v.changed {
				break
			}
			d.note()
			if v.install {
				d.starts, d.busy = append(d.starts, d.now), d.now.Add(d.takes)
				break
			}
		}
		d.restart(false)
	}
	return d
}

func (d *diary) note() {
	line := fmt.Sprintf("%s %s %s", d.now.Format("Mon 15:04"), d.life.Phase, d.life.Reason)
	if n := len(d.lines); n == 0 || d.lines[n-1] != line {
		d.lines = append(d.lines, line)
	}
	if l := d.life; !Final(l.Phase) && (l.Phase == status.Scheduled || l.Phase == status.Deferred) && !l.Next.After(d.now) {
		d.t.Errorf("%s: next attempt %v is not in the future", line, l.Next)
	}
}

// restart reads the state back, as after a crash; the daemon itself then forgets its waits.
func (d *diary) restart(daemon bool) {
	b, err := json.Marshal(d.life)
	l := &Life{waiting: d.life.waiting && !daemon, claimed: d.life.claimed}
	if daemon {
		l.claimed = time.Time{}
	}
	if err == nil {
		err = json.Unmarshal(b, l)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	if d.life = l; daemon {
		l.resume()
		d.busy = time.Time{}
	}
}

func (d *diary) want(lines ...string) {
	d.t.Helper()
	if diff := cmp.Diff(lines, d.lines); diff != "" {
		d.t.Errorf("(-want +got)\n%s", diff)
	}
}

const newYork = "America/New_York"

var tuesday = policy.Schedule{Windows: "Tue 02:00-04:00", Cutoff: 20 * time.Minute}

func TestStagedDaysBefore(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-21 12:00", tuesday)
	d.until("2026-11-21 18:00").staged = true
	d.until("2026-11-25 00:00").want("Sat 12:00 Staging Downloading", "Sat 18:00 Staged Complete", "Sat 18:00 Scheduled WindowClosed",
		"Tue 02:00 Installing InstallerRunning", "Tue 02:05 Installed Installed")
}

// What has started finishes, long after the window has closed.
func TestStartedFinishes(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.staged, d.takes = true, 5*time.Hour
	d.until("2026-11-25 00:00").want("Tue 01:00 Staged Complete", "Tue 01:00 Scheduled WindowClosed", "Tue 02:00 Installing InstallerRunning", "Tue 07:00 Installed Installed")
}

// What the executor has begun and not ended, it is asked to go on with, whatever the window says; what it has not begun waits.
func TestOpenIsFinished(t *testing.T) {
	for open, starts := range map[bool]int{true: 2, false: 1} {
		d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
		d.staged, d.takes = true, 3*time.Hour
		good := d.answer
		d.answer = func(now time.Time) install.Result {
			d.answer = good
			return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: install.ReasonRebootPending, Open: open}
		}
		if d.until("2026-11-25 00:00"); len(d.starts) != starts {
			t.Errorf("open %t: started at %v", open, d.starts)
		}
	}
}

// Content that comes during the window is installed in it if the cut-off allows, and else in the next.
func TestStagedLate(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.until("2026-11-24 03:40").staged = true
	d.until("2026-11-25 00:00").want("Tue 01:00 Staging Downloading", "Tue 03:40 Staged Complete", "Tue 03:40 Installing InstallerRunning", "Tue 03:45 Installed Installed")

	d = newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.until("2026-11-24 03:41").staged = true
	d.until("2026-12-02 00:00").want("Tue 01:00 Staging Downloading", "Tue 03:41 Staged Complete", "Tue 03:41 Scheduled WindowClosed", "Tue 04:00 Deferred WindowClosed",
		"Tue 02:00 Installing InstallerRunning", "Tue 02:05 Installed Installed")
}

// Windows that pass are counted, with what stood in the way; the fourth is one too many.
func TestOverdue(t *testing.T) {
	s := tuesday
	s.MaxDeferrals = 2
	d := newDiary(t, newYork, "2026-11-23 12:00", s)
	d.until("2026-12-01 00:00").staged = true
	locked := true
	d.takes = time.Minute
	d.answer = func(now time.Time) install.Result {
		if next := now.Add(time.Hour); locked {
			return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "AppLock", Next: &next}
		}
		return install.Result{Outcome: install.Success, Phase: status.Installed, Reason: "Installed"}
	}
	d.until("2026-12-02 00:00").want("Mon 12:00 Staging Downloading", "Tue 04:00 Deferred NotStaged", "Tue 04:00 Staging Downloading",
		"Tue 00:00 Staged Complete", "Tue 00:00 Deferred WindowClosed", "Tue 02:00 Installing InstallerRunning", "Tue 02:01 Deferred AppLock",
		"Tue 03:01 Installing InstallerRunning", "Tue 03:02 Deferred AppLock", "Tue 04:00 Deferred AppLock")
	w := timingOf(d.schedule, d.now, 0, nil)
	if d.life.Missed != 2 || !d.life.overdue(w) || d.life.may(w) || !strings.Contains(d.life.Detail, "2 of 2 missed, overdue") {
		t.Fatalf("%+v", d.life)
	}
	// Only if the policy says so does it start outside the window then, and in no blackout.
	d.schedule.RunAnytime, locked = true, false
	d.schedule.Blackouts = []policy.Blackout{{From: "2026-12-02", To: "2026-12-02"}}
	d.lines = nil
	d.until("2026-12-04 00:00").want("Thu 00:00 Installing InstallerRunning", "Thu 00:01 Installed Installed")
	if d.life.overdue(timingOf(d.schedule, d.now, 0, nil)) {
		t.Error("installed and overdue")
	}
}

func TestDeadline(t *testing.T) {
	s := tuesday
	s.Deadline = 36 * time.Hour
	for _, anytime := range []bool{false, true} {
		s.RunAnytime = anytime
		d := newDiary(t, newYork, "2026-11-25 12:00", s)
		d.staged = true
		d.until("2026-11-26 23:45")
		if w := timingOf(s, d.now, 0, nil); d.life.overdue(w) || d.life.Phase != status.Scheduled {
			t.Errorf("before the deadline: %+v", d.life)
		}
		d.until("2026-11-27 01:00")
		if want := map[bool]int{false: 0, true: 1}[anytime]; len(d.starts) != want {
			t.Errorf("RunAnytime %v: started at %v", anytime, d.starts)
		}
		if w := timingOf(s, d.now, 0, nil); !anytime && !d.life.overdue(w) {
			t.Errorf("after the deadline: %+v", d.life)
		}
	}
}

func TestBlackout(t *testing.T) {
	s := tuesday
	s.Blackouts = []policy.Blackout{{From: "2026-11-24", To: "2026-11-30", Reason: "Black Friday"}}
	d := newDiary(t, newYork, "2026-11-23 12:00", s)
	d.staged = true
	d.until("2026-12-01 12:00").want("Mon 12:00 Staged Complete", "Mon 12:00 Scheduled Blackout", "Tue 03:41 Scheduled WindowClosed",
		"Tue 02:00 Installing InstallerRunning", "Tue 02:05 Installed Installed")
	if d.life.Missed != 0 {
		t.Errorf("%d missed: a window in a blackout is none", d.life.Missed)
	}
}

// On the night on which clocks go forward, a window in the gap does not exist, and the next is used.
func TestClocksGoForward(t *testing.T) {
	d := newDiary(t, newYork, "2027-03-13 12:00", policy.Schedule{Windows: "Sun 02:00-03:00"})
	d.staged = true
	d.until("2027-03-22 00:00").want("Sat 12:00 Staged Complete", "Sat 12:00 Scheduled WindowClosed", "Sun 02:00 Installing InstallerRunning", "Sun 02:05 Installed Installed")
	if got := d.starts[0].Format("2006-01-02"); got != "2027-03-21" || d.life.Missed != 0 {
		t.Errorf("started on %s, %d missed", got, d.life.Missed)
	}
	// On the night on which they go back it opens once.
	d = newDiary(t, newYork, "2027-11-07 00:00", policy.Schedule{Windows: "Sun 01:15-01:45", MaxDeferrals: 9})
	d.staged = true
	d.answer = func(now time.Time) install.Result {
		next := now.Add(10 * time.Minute)
		return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "LowPower", Next: &next}
	}
	d.until("2027-11-08 00:00")
	for _, at := range d.starts {
		if at.UTC().Format("15:04") < "05:15" || at.UTC().Format("15:04") >= "05:45" {
			t.Errorf("started at %v", at)
		}
	}
	if len(d.starts) != 2 || d.life.Missed != 1 {
		t.Errorf("started at %v, %d missed", d.starts, d.life.Missed)
	}
}

// A daemon that is started in the window may start an install; one that was off all along has missed one window, however
// many went by; one that was stopped while the installer ran asks it again, at any time, to hear what became of it.
func TestRestart(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-23 12:00", tuesday)
	d.staged = true
	d.until("2026-11-23 13:00").off = true
	d.until("2026-11-24 03:00").restart(true)
	d.off = false
	d.until("2026-11-24 12:00").want("Mon 12:00 Staged Complete", "Mon 12:00 Scheduled WindowClosed", "Tue 03:00 Installing InstallerRunning", "Tue 03:05 Installed Installed")

	d = newDiary(t, newYork, "2026-11-23 12:00", tuesday)
	d.staged = true
	d.until("2026-11-23 13:00").off = true
	d.until("2026-12-16 12:00").restart(true)
	d.off, d.lines = false, nil
	d.until("2026-12-16 13:00").want("Wed 12:00 Deferred WindowClosed")
	if d.life.Missed != 1 || d.life.Next.In(d.zone).Format("2006-01-02 15:04") != "2026-12-22 02:00" {
		t.Errorf("%+v", d.life)
	}

	d = newDiary(t, newYork, "2026-11-24 02:30", tuesday)
	d.staged, d.takes = true, 3*time.Hour
	d.until("2026-11-24 02:31").off = true
	d.until("2026-11-24 05:00").restart(true)
	d.off, d.lines, d.takes = false, nil, time.Minute
	d.until("2026-11-24 06:00").want("Tue 05:00 Installing InstallerRunning", "Tue 05:01 Installed Installed")
}

// With a clock that nobody can vouch for, nothing starts; nothing is counted either.
func TestClockUnsure(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.staged, d.skew = true, 6*time.Minute
	d.until("2026-11-24 03:00").skew = time.Minute
	d.until("2026-11-24 12:00").want("Tue 01:00 Staged Complete", "Tue 01:00 Deferred ClockUnsure", "Tue 03:00 Installing InstallerRunning", "Tue 03:05 Installed Installed")
}

// A daemon that has not heard its neighbours' clocks yet waits for them in silence; then it may, or it may not.
func TestClocksNotHeardYet(t *testing.T) {
	for skew, want := range map[time.Duration]string{0: "Tue 03:00 Installing InstallerRunning", time.Hour: "Tue 03:00 Deferred ClockUnsure"} {
		d := newDiary(t, newYork, "2026-11-24 02:30", tuesday)
		d.staged, d.early = true, true
		d.until("2026-11-24 03:00").early, d.skew = false, skew
		d.until("2026-11-24 03:01").want("Tue 02:30 Staged Complete", want)
	}
}

// A site's clock that is off by less can shorten a window and never opens one by itself.
func TestSkewNeverOpens(t *testing.T) {
	for _, skew := range []time.Duration{-4 * time.Minute, 0, 4 * time.Minute} {
		d := newDiary(t, newYork, "2026-11-24 01:00", policy.Schedule{Windows: "Tue 02:00-04:00", MaxDeferrals: 9})
		d.staged, d.skew, d.takes = true, skew, time.Minute
		d.answer = func(now time.Time) install.Result {
			return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "AppLock"}
		}
		d.until("2026-11-24 12:00")
		first, last := d.starts[0].Format("15:04"), d.starts[len(d.starts)-1].Format("15:04")
		if first < "02:00" || last >= "04:00" || skew < 0 && first != "02:04" || skew > 0 && last >= "03:56" {
			t.Errorf("skew %v: started from %s to %s", skew, first, last)
		}
	}
}

// "timezone: site" without one is a clear no, not UTC.
func TestNoSiteZone(t *testing.T) {
	s := tuesday
	s.Zone = policy.ZoneSite
	d := newDiary(t, newYork, "2026-11-23 01:00", s)
	d.staged = true
	d.until("2026-11-26 00:00").want("Mon 01:00 Staged Complete", "Mon 01:00 Deferred ZoneUnknown")
	if !strings.Contains(d.life.Detail, "the site has none") {
		t.Errorf("%+v", d.life)
	}
}

// Another revision of the policy with another window is followed at once.
func TestWindowIsMoved(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-23 12:00", tuesday)
	d.staged = true
	d.until("2026-11-23 13:00")
	d.schedule.Windows = "Mon 15:00-16:00"
	d.life.aim(&status.Desired{Policy: "p", Revision: 2, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
	d.until("2026-11-24 12:00").want("Mon 12:00 Staged Complete", "Mon 12:00 Scheduled WindowClosed", "Mon 15:00 Installing InstallerRunning", "Mon 15:05 Installed Installed")
	d = newDiary(t, newYork, "2026-11-23 12:00", tuesday)
	d.staged = true
	d.until("2026-11-23 13:00")
	d.schedule = policy.Schedule{}
	d.life.aim(&status.Desired{Policy: "p", Revision: 2, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
	d.until("2026-11-24 12:00").want("Mon 12:00 Staged Complete", "Mon 12:00 Scheduled WindowClosed", "Mon 13:00 Installing InstallerRunning", "Mon 13:05 Installed Installed")
}

// An installer that says it is not the time, though we think it is, is asked again when it says, not all the time; and
// not decades later because its clock is wrong.
func TestInstallerKnowsBetter(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.staged, d.takes = true, time.Minute
	d.answer = func(now time.Time) install.Result {
		next := now.Add(time.Hour)
		return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "WindowClosed", Next: &next}
	}
	d.until("2026-11-24 12:00")
	if len(d.starts) != 2 {
		t.Errorf("asked at %v", d.starts)
	}
	l, now, far := &Life{}, time.Now(), time.Now().AddDate(73, 0, 0)
	l.finish(now, install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "WindowClosed", Next: &far})
	if l.Next.Sub(now) != mostNext {
		t.Errorf("next in %v", l.Next.Sub(now))
	}
}

func TestSkew(t *testing.T) {
	own := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(minutes ...int) (out []time.Time) {
		for _, m := range minutes {
			out = append(out, own.Add(time.Duration(m)*time.Minute))
		}
		return out
	}
	for name, c := range map[string]struct {
		neighbours []time.Time
		seeder     time.Time
		want       time.Duration
	}{
		"alone":                             {},
		"alone with the seeder":             {seeder: at(7)[0], want: 7 * time.Minute},
		"one neighbour is not heard":        {neighbours: at(60)},
		"one neighbour and the seeder":      {neighbours: at(60), seeder: at(1)[0], want: time.Minute},
		"two agree, we are wrong":           {neighbours: at(60, 62), want: 60 * time.Minute},
		"two, the seeder is not asked":      {neighbours: at(1, 2), seeder: at(99)[0], want: time.Minute},
		"two, one is of 2099":               {neighbours: append(at(1), own.AddDate(73, 0, 0)), want: time.Minute},
		"two, one is of 1970":               {neighbours: append(at(1), own.AddDate(-56, 0, 0))},
		"three, one is far off":             {neighbours: at(1, 2, 100_000), want: 90 * time.Second},
		"four, two are far off on one side": {neighbours: at(1, 2, 100_000, 100_000), want: 2 * time.Minute},
		"beyond what a duration holds":      {neighbours: []time.Time{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), {}}, want: (1<<63 - 1) / 2},
	} {
		if got := skew(own, c.neighbours, c.seeder); got.Round(time.Second) != c.want.Round(time.Second) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// As long as those who lie are fewer than half, ourselves counted among the honest, the site's clock is between two
// honest ones. The control: more than half of them set it to what they please.
func TestSkewIsBounded(t *testing.T) {
	own := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var clocks []time.Time
		var least, most time.Duration
		honest := rapid.IntRange(1, 9).Draw(t, "honest") // and ourselves
		for range honest {
			d := time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "off")) * time.Millisecond
			least, most = min(least, d), max(most, d)
			clocks = append(clocks, own.Add(d))
		}
		for range max(rapid.IntRange(0, honest).Draw(t, "liars"), 2-honest) {
			clocks = append(clocks, own.Add(time.Duration(rapid.Int64Range(-1<<60, 1<<60).Draw(t, "lie"))))
		}
		if got := skew(own, clocks, time.Time{}); got < least || got > most {
			t.Fatalf("%v, honest clocks are from %v to %v", got, least, most)
		}
	})
	for honest := 1; honest <= 9; honest++ {
		clocks := slices.Repeat([]time.Time{own}, honest)
		clocks = append(clocks, slices.Repeat([]time.Time{own.Add(time.Hour)}, honest+2)...)
		if got := skew(own, clocks, time.Time{}); got != time.Hour {
			t.Errorf("%d honest clocks beside ours and one liar more: %v", honest, got)
		}
	}
}

// What somebody else's clock shows goes on, whatever becomes of ours.
func TestReading(t *testing.T) {
	at := time.Now()
	r := reading{time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), at}
	if got := r.now(at.Add(time.Hour)); !got.Equal(r.clock.Add(time.Hour)) {
		t.Errorf("%v", got)
	}
}
