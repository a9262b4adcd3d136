package node

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/status"
)

// deferral is an executor that never says yes; reason is asked at each try.
type deferral func(now time.Time) (reason string, retry time.Duration)

// tryFor lets a life with a staged bundle try for so long, in virtual time, and counts what changed and what was reported
// of it.
func tryFor(t *testing.T, long time.Duration, why deferral) (changes, reports, deferred int) {
	t.Helper()
	start := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	facts := manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}
	m := &manifest.Manifest{Name: "app", Version: "1", Sequence: 1, Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64", Format: manifest.FormatFiles}}
	l, said := &Life{}, &told{}
	note := func(now time.Time) {
		changes++
		if said.news(now, l) {
			reports++
			if l.Phase == status.Deferred {
				deferred++
			}
		}
	}
	l.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1"})
	note(start)
	for now := start; now.Sub(start) < long; now = now.Add(time.Second) {
		for range 4 {
			v := l.step(now, &targetFacts{manifest: m, machine: facts, staged: true}, nil)
			if !v.changed {
				break
			}
			note(now)
			if v.install {
				reason, retry := why(now)
				next := now.Add(retry)
				l.finish(now, install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: reason, Next: &next})
				l.Next = next
				note(now)
				break
			}
		}
	}
	return changes, reports, deferred
}

// A node that waits for months, tried each minute, says so once an hour: of what changes in a day a hundredth is
// reported. What takes turns is bounded as well, and another reason is said at once.
func TestWaitingIsQuiet(t *testing.T) {
	const day = 24 * time.Hour
	missing := func(time.Time) (string, time.Duration) { return install.ReasonInstallerMissing, time.Minute }
	changes, reports, deferred := tryFor(t, day, missing)
	if deferred != 24 || reports > deferred+4 {
		t.Errorf("%d reports in a day, %d of them deferrals; want one each hour", reports, deferred)
	}
	if changes < 2*24*60 { // the positive control: this is what would have been reported
		t.Errorf("%d changes of phase: the node hardly tried", changes)
	}
	t.Logf("without an installer, a day: %d changes of phase, %d reports", changes, reports)

	turn := false
	_, _, deferred = tryFor(t, day, func(time.Time) (string, time.Duration) {
		turn = !turn
		return map[bool]string{true: "AppLock", false: "LowPower"}[turn], time.Minute
	})
	if deferred > 24*mostDeferred {
		t.Errorf("two reasons that take turns: %d deferrals reported in a day", deferred)
	}

	first := time.Time{}
	_, _, deferred = tryFor(t, 10*time.Minute, func(now time.Time) (string, time.Duration) {
		if first.IsZero() {
			first = now
		}
		if now.Sub(first) > 5*time.Minute {
			return "LowDisk", time.Minute
		}
		return "AppLock", time.Minute
	})
	if deferred != 2 {
		t.Errorf("a new reason after five minutes: %d deferrals reported, want 2", deferred)
	}
}

// What is news and what is not.
func TestNews(t *testing.T) {
	t0 := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	target := &status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1"}
	later := *target
	later.Revision = 2
	life := func(d *status.Desired, p status.Phase, reason string) *Life {
		return &Life{Target: d, Phase: p, Reason: reason}
	}
	said := &told{}
	for i, c := range []struct {
		after time.Duration
		l     *Life
		news  bool
	}{
		{0, life(target, status.Staging, "Downloading"), true},
		{0, life(target, status.Staged, "Complete"), true},
		{0, life(target, status.Installing, "InstallerRunning"), true},
		{0, life(target, status.Deferred, "AppLock"), true},
		{time.Minute, life(target, status.Installing, "InstallerRunning"), false}, // another try
		{0, life(target, status.Deferred, "AppLock"), false},
		{0, life(target, status.Deferred, "LowDisk"), true},
		{2 * time.Hour, life(target, status.Deferred, "LowDisk"), true},
		{-3 * time.Hour, life(target, status.Deferred, "LowDisk"), true}, // the clock was set back
		{time.Minute, life(&later, status.Deferred, "LowDisk"), true},    // by another revision
		{time.Minute, life(&later, status.Installing, "InstallerRunning"), false},
		{time.Minute, life(&later, status.Installed, "Installed"), true},
		{time.Minute, life(nil, status.Installed, "Unmanaged"), true},
	} {
		t0 = t0.Add(c.after)
		if got := said.news(t0, c.l); got != c.news {
			t.Errorf("%d: %s %s is news: %v", i, c.l.Phase, c.l.Reason, got)
		}
	}
}

// What the executor says comes into the statement and the report in words that an operator can act on.
func TestNote(t *testing.T) {
	r := install.Result{Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonInstalled, Snapshot: "@patchmesh-1", Reboot: []string{"kernel", "libc6"},
		Kept:     []manager.Kept{{Installed: packages.Installed{Name: "openssl"}, Why: manager.KeptHeld}, {Installed: packages.Installed{Name: "curl"}, Why: manager.KeptNewer}},
		Findings: []string{"dpkg: demo: postinst said error"}}
	l := &Life{}
	l.note(r)
	want := Life{Snapshot: "@patchmesh-1", Reboot: "kernel, libc6", Detail: "kept: openssl held, curl newer\nfound: dpkg: demo: postinst said error"}
	got := *l
	got.answer = nil
	if d := cmp.Diff(want, got, cmp.AllowUnexported(Life{})); d != "" {
		t.Error(d)
	}
	l.note(install.Result{Phase: status.Installed, Reason: install.ReasonNothingToDo})
	if l.Reboot == "" {
		t.Error("nothing was done, and the machine need not be started again any more")
	}
	l.note(install.Result{Phase: status.Installed, Reason: install.ReasonInstalled})
	if l.Reboot != "" {
		t.Errorf("reboot %q after an install that needs none", l.Reboot)
	}
	l.note(install.Result{Detail: strings.Repeat("x\x1b", 4000)})
	if len(l.Detail) > maxDetail || strings.ContainsRune(l.Detail, 0x1b) {
		t.Errorf("detail of %d bytes", len(l.Detail))
	}
}
