package node

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node/turn"
)

// Wherever a life gets to, it says why it is there, and what it shows has a next attempt unless it is final.
func TestEveryPhaseIsExplained(t *testing.T) {
	machine := manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
		var l Life
		schedule := rapid.SampledFrom([]policy.Schedule{{}, {Windows: "Tue 02:00-04:00", Zone: "UTC"}, {Windows: "Daily 02:00-05:00", Zone: policy.ZoneSite},
			{Windows: "Tue 02:00-04:00", Zone: "UTC", MaxDeferrals: 1, Deadline: time.Hour, RunAnytime: true}})
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 72*60).Draw(t, "minutes")) * time.Minute)
			what := rapid.IntRange(0, 12).Draw(t, "what")
			if l.Phase == status.Installing && what > 3 {
				what = 3 // the installer answers
			}
			switch what {
			case 0:
				l.aim(nil)
			case 1:
				v := rapid.SampledFrom([]byte{1, 2}).Draw(t, "version")
				l.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: string('0' + rune(v)), Checksum: manifest.Digest{v}})
			case 2:
				l.resume()
			case 3:
				if l.Phase != status.Installing {
					continue
				}
				r := rapid.SampledFrom([]install.Result{
					{Outcome: install.Deferred, Phase: status.Deferred, Reason: "LowDisk"},
					{Outcome: install.RolledBack, Phase: status.RolledBack, Reason: "HealthCheck"},
					{Outcome: install.InstallFailure, Phase: status.InstallFailed, Reason: "InstallFailed"},
					{Outcome: install.VerificationFailure, Phase: status.Quarantined, Reason: "ChecksumMismatch"},
					{Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonInstalled, Bundle: "app",
						Installed: &ledger.Release{Bundle: "app", Version: l.Target.Version, Sequence: uint64(l.Target.Checksum[0]), Checksum: l.Target.Checksum}},
				}).Draw(t, "result")
				l.finish(now, r)
			default:
				var f *targetFacts
				if l.Target != nil && rapid.IntRange(0, 5).Draw(t, "manifest") > 0 {
					m := &manifest.Manifest{Name: "app", Version: l.Target.Version, Sequence: uint64(l.Target.Checksum[0]),
						Target: manifest.Target{OS: rapid.SampledFrom([]string{"debian", "debian", "debian", "rhel"}).Draw(t, "os"), Release: "12", Arch: "amd64"}}
					f = &targetFacts{manifest: m, machine: machine, staged: rapid.IntRange(0, 3).Draw(t, "staged") > 0}
					if rapid.IntRange(0, 5).Draw(t, "room") == 0 {
						f.noRoom = problem.New(problem.QuotaExceeded, "no room")
					}
					if rapid.IntRange(0, 3).Draw(t, "hold") == 0 {
						f.hold = &hold{now: now, Verdict: turn.Verdict{Step: rapid.SampledFrom([]turn.Step{turn.Wait, turn.Claim}).Draw(t, "step"), Reason: "BatchNotReached", Next: now.Add(time.Minute)}}
					}
				}
				l.step(now, f, timingOf(schedule.Draw(t, "schedule"), now, time.Duration(rapid.IntRange(0, 20).Draw(t, "skew"))*time.Minute, nil))
			}
			if l.Phase != "" { // never asked for anything: the statement says NoPolicy
				explained(t, now, &l)
			}
		}
	})
}

func explained(t interface{ Fatalf(string, ...any) }, now time.Time, l *Life) {
	if l.Reason == "" {
		t.Fatalf("%s without a reason", l.Phase)
	}
	st := status.Node{Phase: l.Phase, Reason: l.Reason}
	if l.Target != nil {
		s := l.beside("app")
		st.NextAttempt = s.NextAttempt
	}
	if st.Explain(now); !Final(l.Phase) && st.NextAttempt == nil {
		t.Fatalf("%s %s without a next attempt", l.Phase, l.Reason)
	}
}

// The same of a few lives that are told, which lead through every phase there is: the property is not about nothing.
func TestEveryPhaseIsReached(t *testing.T) {
	met := map[status.Phase]bool{}
	for _, answer := range []install.Result{
		{Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonInstalled},
		{Outcome: install.Deferred, Phase: status.Deferred, Reason: "LowDisk"},
		{Outcome: install.RolledBack, Phase: status.RolledBack, Reason: "HealthCheck"},
		{Outcome: install.InstallFailure, Phase: status.InstallFailed, Reason: "InstallFailed"},
		{Outcome: install.VerificationFailure, Phase: status.Quarantined, Reason: "ChecksumMismatch"},
	} {
		now := time.Date(2026, 11, 24, 1, 0, 0, 0, time.UTC) // an hour before the window
		schedule := policy.Schedule{Windows: "Tue 02:00-04:00", Zone: "UTC"}
		f := &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1", Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64"}},
			machine: manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}}
		var l Life
		note := func() { explained(t, now, &l); met[l.Phase] = true }
		step := func(f *targetFacts) {
			l.step(now, f, timingOf(schedule, now, 0, nil))
			note()
		}
		l.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
		note()
		step(nil)
		step(f)
		f.staged = true
		step(f)
		step(f)
		now = now.Add(90 * time.Minute)
		step(f)
		if l.Phase != status.Installing {
			t.Fatalf("%s %s in the middle of the window", l.Phase, l.Reason)
		}
		l.finish(now, answer)
		note()
	}
	for _, p := range status.Order() {
		if !met[p] {
			t.Errorf("no life got to %s", p)
		}
	}
}
