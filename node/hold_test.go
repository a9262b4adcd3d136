package node

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node/turn"
)

// waits holds an install up until a time of the diary's day.
func waits(reason string, until time.Time) func(time.Time, *Life) *hold {
	return func(now time.Time, _ *Life) *hold {
		if !now.Before(until) {
			return nil
		}
		return &hold{now: now, Verdict: turn.Verdict{Step: turn.Wait, Reason: reason, Text: "place 2", Next: now.Add(time.Minute)}}
	}
}

// In its window a node waits for its turn; a window that passes meanwhile was missed for that.
func TestHold(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.staged, d.hold = true, waits(grant.BatchNotReached, time.Date(2026, 11, 24, 7, 40, 0, 0, time.UTC)) // 02:40
	d.until("2026-11-25 00:00").want("Tue 01:00 Staged Complete", "Tue 01:00 Scheduled WindowClosed", "Tue 02:00 Scheduled BatchNotReached",
		"Tue 02:40 Installing InstallerRunning", "Tue 02:45 Installed Installed")

	d = newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.staged, d.hold = true, waits(grant.Paused, time.Date(2026, 12, 1, 7, 10, 0, 0, time.UTC))
	d.until("2026-12-02 00:00").want("Tue 01:00 Staged Complete", "Tue 01:00 Scheduled WindowClosed", "Tue 02:00 Scheduled Paused",
		"Tue 04:00 Deferred Paused", "Tue 02:10 Installing InstallerRunning", "Tue 02:15 Installed Installed")

	// What the installer has begun it is asked to finish, whatever holds others up.
	d = newDiary(t, newYork, "2026-11-24 02:00", tuesday)
	d.staged = true
	good := d.answer
	d.answer = func(time.Time) install.Result {
		d.answer, d.hold = good, waits(grant.Paused, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
		return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: install.ReasonRebootPending, Open: true}
	}
	if d.until("2026-11-25 00:00"); len(d.starts) != 2 || d.life.Phase != status.Installed {
		t.Errorf("started at %v, then %s", d.starts, d.life.Phase)
	}
}

// A claim changes nothing that is on disk, ends with what ended it, and does not outlive the daemon.
func TestClaim(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 02:00", tuesday)
	d.staged = true
	d.hold = func(now time.Time, l *Life) *hold {
		if !l.claimed.IsZero() && now.Sub(l.claimed) >= 2*time.Minute {
			return &hold{now: now, Verdict: turn.Verdict{Step: turn.Go}}
		}
		return &hold{now: now, Verdict: turn.Verdict{Step: turn.Claim}}
	}
	d.until("2026-11-24 02:02").restart(true)
	d.until("2026-11-25 00:00").want("Tue 02:00 Staged Complete", "Tue 02:04 Installing InstallerRunning", "Tue 02:09 Installed Installed")
	if !d.life.claimed.IsZero() {
		t.Error("it still claims a turn")
	}
	l := &Life{Target: &status.Desired{Bundle: "app", Version: "1"}, Phase: status.Staged, claimed: time.Now()}
	facts := &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1"}, staged: true, hold: waits(grant.BatchNotReached, time.Now().Add(time.Hour))(time.Now(), nil)}
	if l.step(time.Now(), facts, nil); !l.claimed.IsZero() || l.Reason != grant.BatchNotReached {
		t.Errorf("%+v", l)
	}
	if l.aim(&status.Desired{Bundle: "app", Version: "2", Checksum: manifest.Digest{2}}); !l.claimed.IsZero() || l.Phase != status.Pending {
		t.Errorf("%+v", l)
	}
}

// requireBeforeWindow: what comes during a window waits for the next one; a restart does not make it late.
func TestRequireBeforeWindow(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.before = true
	d.until("2026-11-24 02:30").staged = true
	d.until("2026-12-02 00:00").want("Tue 01:00 Staging Downloading", "Tue 02:30 Staged Complete", "Tue 02:30 Scheduled NotStaged",
		"Tue 04:00 Deferred NotStaged", "Tue 02:00 Installing InstallerRunning", "Tue 02:05 Installed Installed")

	d = newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.before, d.staged = true, true
	d.until("2026-11-24 01:50").off = true
	d.until("2026-11-24 02:20").restart(true)
	d.off, d.staged = false, false // its store is read again
	d.until("2026-11-24 02:25").staged = true
	if d.until("2026-11-25 00:00"); len(d.starts) != 1 || d.life.Missed != 0 {
		t.Errorf("started at %v, %d missed", d.starts, d.life.Missed)
	}
}

// What a neighbour says about a bundle is found whichever bundle its statement is about.
func TestSaidOf(t *testing.T) {
	one, two := manifest.Digest{1}, manifest.Digest{2}
	next := time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
	st := status.Node{Phase: status.Scheduled, Reason: "WindowClosed", Desired: &status.Desired{Bundle: "app", Checksum: one}, NextAttempt: &next,
		Beside: []status.Standing{{Bundle: "os", Checksum: two, Phase: status.RolledBack, Reason: "HealthCheck"}}}
	for bundle, want := range map[string]turn.Said{
		"app": {Phase: status.Scheduled, Reason: "WindowClosed", Checksum: one, Next: next},
		"os":  {Phase: status.RolledBack, Reason: "HealthCheck", Checksum: two},
	} {
		if got := saidOf(st, bundle); got != want {
			t.Errorf("%s: %+v, want %+v", bundle, got, want)
		}
	}
	st.Phase = status.Installing
	if got := saidOf(st, "os"); got.Phase != status.Installing {
		t.Errorf("a node that is at another bundle: %+v", got)
	}
}

// Of a node's bundles the one that it is at is shown, then one that it claims, then one that waits.
func TestUrgency(t *testing.T) {
	final, waiting := &Life{Phase: status.Installed}, &Life{Phase: status.Deferred, Code: problem.DiskFull}
	claims, at := &Life{Phase: status.Scheduled, claimed: time.Now()}, &Life{Phase: status.Installing}
	if !(final.urgency() < waiting.urgency() && waiting.urgency() < claims.urgency() && claims.urgency() < at.urgency()) {
		t.Error(final.urgency(), waiting.urgency(), claims.urgency(), at.urgency())
	}
}
