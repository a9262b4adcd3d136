package node

import (
	"errors"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// A life is told as a conversation: what happened, and the phase and reason after it.
func TestLife(t *testing.T) {
	t0 := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	one, two := manifest.Digest{1}, manifest.Digest{2}
	want := func(d manifest.Digest, v string) *status.Desired {
		return &status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: v, Checksum: d}
	}
	man := func(v string, seq uint64, os string) *manifest.Manifest {
		return &manifest.Manifest{Name: "app", Version: v, Sequence: seq, Target: manifest.Target{OS: os, Release: "12", Arch: "amd64"}}
	}
	machine := manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}
	done := func(d manifest.Digest, v string, seq uint64) install.Result {
		return install.Result{Outcome: install.Success, Phase: status.Installed, Reason: "Installed", Bundle: "app", Version: v, Checksum: &d,
			Installed: &ledger.Release{Bundle: "app", Version: v, Sequence: seq, Checksum: d, Format: manifest.FormatFiles}}
	}
	type turn struct {
		after   time.Duration
		aim     *status.Desired
		unaim   bool
		restart bool
		facts   *targetFacts
		result  *install.Result
		phase   status.Phase
		reason  string
		install bool
	}
	ready := func(v string, seq uint64) *targetFacts {
		return &targetFacts{manifest: man(v, seq, "debian"), machine: machine, staged: true}
	}
	deferred := install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "DiskFull"}
	rolled := install.Result{Outcome: install.RolledBack, Phase: status.RolledBack, Reason: "HealthCheck", Code: problem.HealthFailed}
	r1, r2 := done(one, "1", 1), done(two, "2", 2)
	for name, turns := range map[string][]turn{
		"straight through": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: &targetFacts{manifest: man("1", 1, "debian"), machine: machine}, phase: status.Staging, reason: "Downloading"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &r1, phase: status.Installed, reason: "Installed"},
			{facts: ready("1", 1), phase: status.Installed, reason: "Installed"},
		},
		"deferred, tried again only when due": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &deferred, phase: status.Deferred, reason: "DiskFull"},
			{after: retryFirst - time.Second, facts: ready("1", 1), phase: status.Deferred, reason: "DiskFull"},
			{after: time.Second, facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &r1, phase: status.Installed, reason: "Installed"},
		},
		"rolled back and held until the target changes": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &rolled, phase: status.RolledBack, reason: "HealthCheck"},
			{after: 48 * time.Hour, facts: ready("1", 1), phase: status.RolledBack, reason: "HealthCheck"},
			{aim: want(two, "2"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("2", 2), phase: status.Staged, reason: "Complete"},
			{facts: ready("2", 2), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &r2, phase: status.Installed, reason: "Installed"},
		},
		"an older sequence is not installed": {
			{aim: want(two, "2"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("2", 2), phase: status.Staged, reason: "Complete"},
			{facts: ready("2", 2), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &r2, phase: status.Installed, reason: "Installed"},
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("1", 1), phase: status.Deferred, reason: "SequenceTooOld"},
			{after: 2 * time.Hour, facts: ready("1", 1), phase: status.Deferred, reason: "SequenceTooOld"},
			{aim: want(two, "2"), phase: status.Installed, reason: "Installed"},
		},
		"for another system": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: &targetFacts{manifest: man("1", 1, "rhel"), machine: machine, staged: true}, phase: status.Deferred, reason: "TargetMismatch"},
		},
		"the checksum names another version than the policy": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("7", 1), phase: status.Quarantined, reason: "ChecksumMismatch"},
		},
		"withdrawn": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{unaim: true, phase: status.Pending, reason: "NoPolicy"},
		},
		"daemon restarted while the installer ran": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{restart: true, facts: &targetFacts{manifest: man("1", 1, "debian"), machine: machine}, phase: status.Staging, reason: "Downloading"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
		},
		"restarted after a clock in 2099 was put right": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{after: 73 * 365 * 24 * time.Hour, facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &deferred, phase: status.Deferred, reason: "DiskFull"},
			{after: -73 * 365 * 24 * time.Hour, restart: true, facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
		},
		"the installer finds a chunk missing that is back at once": {
			{aim: want(one, "1"), phase: status.Pending, reason: "ManifestUnknown"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
			{result: &deferred, phase: status.Deferred, reason: "DiskFull"},
			{facts: &targetFacts{manifest: man("1", 1, "debian"), machine: machine}, phase: status.Staging, reason: "Downloading"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"},
			{facts: ready("1", 1), phase: status.Staged, reason: "Complete"}, // it keeps its distance
			{after: retryFirst, facts: ready("1", 1), phase: status.Installing, reason: "InstallerRunning", install: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, now := &Life{}, t0
			for i, tn := range turns {
				now = now.Add(tn.after)
				if tn.restart {
					l.resume()
				}
				var v verdict
				switch {
				case tn.aim != nil:
					l.aim(tn.aim)
				case tn.unaim:
					l.aim(nil)
				case tn.result != nil:
					l.finish(now, *tn.result)
				default:
					v = l.step(now, tn.facts, nil)
				}
				if l.Phase != tn.phase || l.Reason != tn.reason || v.install != tn.install {
					t.Fatalf("turn %d: %s (%s), install %v; want %s (%s), install %v", i, l.Phase, l.Reason, v.install, tn.phase, tn.reason, tn.install)
				}
				// Every phase that is not final and waits for time says until when.
				if l.Phase == status.Deferred && !l.Next.After(now.Add(-time.Nanosecond)) {
					t.Fatalf("turn %d: %s without a next attempt", i, l.Phase)
				}
			}
		})
	}
}

// What is in force is what the installer says last, also when that is nothing; who is not asked about the bundle says
// nothing about it.
func TestFound(t *testing.T) {
	one := manifest.Digest{1}
	l := &Life{Phase: status.Installed}
	for i, c := range []struct {
		r  install.Result
		in bool
	}{
		{install.Result{Bundle: "app", Installed: &ledger.Release{Bundle: "app", Checksum: one}}, true},
		{install.Cut(errors.New("killed")), true},
		{install.Result{Bundle: "app", Outcome: install.RolledBack}, false},
		{install.Result{Bundle: "app", Outcome: install.Deferred}, false},
	} {
		if l.found(c.r); (l.Installed != nil) != c.in {
			t.Errorf("turn %d: %+v", i, l.Installed)
		}
	}
	if l.Previous == nil || *l.Previous != one {
		t.Errorf("previous: %v", l.Previous)
	}
}

// A node that waits for its window to install what an order has put in force meanwhile waits for nothing any more.
func TestInForceByAnOrder(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	shut := timingOf(policy.Schedule{Windows: "Tue 02:00-04:00", Zone: "UTC"}, now, 0, nil)
	facts := &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1", Sequence: 1, Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64"}},
		machine: manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}, staged: true, downgrade: true}
	l := Life{Installed: &status.InstalledItem{Bundle: "app", Version: "2", Sequence: 2, Checksum: manifest.Digest{2}}}
	l.aim(&status.Desired{Policy: "p", Revision: 3, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
	for range 3 {
		l.step(now, facts, shut)
	}
	if l.Phase != status.Scheduled {
		t.Fatalf("it is %s %s, and does not wait for its window", l.Phase, l.Reason)
	}
	l.found(install.Result{Bundle: "app", Installed: &ledger.Release{Bundle: "app", Version: "1", Sequence: 1, Checksum: manifest.Digest{1}}})
	if v := l.step(now, facts, shut); l.Phase != status.Installed || !v.changed || v.install || !l.Next.IsZero() {
		t.Errorf("it is %s %s, changed %v", l.Phase, l.Reason, v.changed)
	}
}

// A claim that is not held on to is given up, whatever ends it: this node's other bundles wait for it, and its neighbours.
func TestClaimIsGivenUp(t *testing.T) {
	for _, phase := range []status.Phase{status.RolledBack, status.Installed, status.Quarantined, status.Pending, status.Staged} {
		l := &Life{Target: &status.Desired{Bundle: "app"}, Phase: phase, claimed: time.Now()}
		l.step(time.Now(), nil, nil)
		if !l.claimed.IsZero() {
			t.Errorf("%s: the claim stands", phase)
		}
	}
}
