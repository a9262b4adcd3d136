package node

import (
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node/turn"
)

// Life is where a node stands with one bundle name: a pure state machine, persisted in state.json before its
// actions are carried out.
//
//	Pending -> Staging -> Staged -> Scheduled -> Installing -> Installed
//	              |          |          |            |-> RolledBack | InstallFailed
//	              v          v          v            v
//	         Quarantined    Deferred(reason, next attempt) -> Installing …
//
// Without a schedule in the policy Scheduled is left out; schedule.go says when it is left. A final phase holds until the target's checksum changes: what was rolled back is not tried again by itself.
type Life struct {
	Target    *status.Desired       `json:"target,omitempty"`
	Phase     status.Phase          `json:"phase"`
	Reason    string                `json:"reason"`
	Code      problem.Code          `json:"code,omitempty"`
	Detail    string                `json:"detail,omitempty"`
	Outcome   string                `json:"outcome,omitempty"`
	Next      time.Time             `json:"next"` // of a non-final phase: when something is tried again
	Tries     int                   `json:"tries"`
	Installed *status.InstalledItem `json:"installed,omitempty"`
	Previous  *manifest.Digest      `json:"previous,omitempty"` // the bundle before Installed, kept for going back
	Snapshot  string                `json:"snapshot,omitempty"` // of the machine before the last install
	Reboot    string                `json:"reboot,omitempty"`   // why the machine has to be started again
	Order     uint64                `json:"order,omitempty"`    // the operator's order that brought the phase about
	Asked     time.Time             `json:"asked"`              // since when the target is asked for, by the clock of the site
	Window    *slot                 `json:"window,omitempty"`   // the window to install in
	Missed    int                   `json:"missed,omitempty"`   // windows that passed since Asked
	Begun     bool                  `json:"begun,omitempty"`    // the installer was asked and has not answered
	Ready     time.Time             `json:"ready,omitzero"`     // when the target was first all here, by the clock of the site; zero: not known

	waiting bool      // Next is the schedule's, and the schedule says when it is over
	claimed time.Time // since when we hold that it is our turn; zero: it is not

	took time.Duration // from Asked to Ready, until it is reported

	answer *install.Result // what the executor said, until it is reported
}

// Facts about the target that Life asks for; nil while the manifest is unknown.
type targetFacts struct {
	manifest *manifest.Manifest
	machine  manifest.Facts
	staged   bool           // every chunk on disk and synced
	bad      error          // the signed index breaks a rule
	noRoom   *problem.Error // the bundle is not begun

	downgrade bool  // the policy allows an older sequence
	early     bool  // and wants the target here before its window opens
	hold      *hold // what beside the schedule has a say; nil: nothing
}

// Waits between attempts.
const (
	retryFirst = 30 * time.Second
	retryMost  = time.Hour
)

// verdict is a step of Life: what to do after the new state is on disk.
type verdict struct {
	install bool // start the installer
	changed bool // phase, reason or target changed: persist and report
}

// Final reports whether a phase lasts until the target changes.
func Final(p status.Phase) bool { return status.Final(p) }

// aim sets what the policies ask for; nil: nothing any more. It reports a change.
func (l *Life) aim(t *status.Desired) bool {
	same := t != nil && l.Target != nil && *t == *l.Target
	if same || t == nil && l.Target == nil {
		return false
	}
	newChecksum := t == nil || l.Target == nil || t.Checksum != l.Target.Checksum
	l.Target = t
	l.Window = nil
	if !newChecksum {
		if l.waiting {
			l.Next = time.Time{}
		}
		return true // another policy or revision asks for the same: what happened still holds
	}
	l.Asked, l.Missed, l.Begun, l.waiting, l.claimed, l.Ready = time.Time{}, 0, false, false, time.Time{}, time.Time{}
	l.Tries, l.Next, l.Outcome, l.Code, l.Detail, l.Order = 0, time.Time{}, "", "", "", 0
	switch {
	case t == nil && l.Installed != nil:
		l.Phase, l.Reason = status.Installed, "Unmanaged"
	case t == nil:
		l.Phase, l.Reason = status.Pending, "NoPolicy"
	case l.Installed != nil && l.Installed.Checksum == t.Checksum:
		l.Phase, l.Reason = status.Installed, install.ReasonInstalled
	default:
		l.Phase, l.Reason = status.Pending, "ManifestUnknown"
	}
	return true
}

// resume is called at the start of the daemon: waits do not outlive it. The clock that set them may have been wrong by
// decades, and a restart may have put right what was waited for.
func (l *Life) resume() { l.Next = time.Time{} }

// step moves on as far as the facts and the schedule allow.
func (l *Life) step(now time.Time, f *targetFacts, w *timing) (v verdict) {
	before := *l
	defer func() {
		v.changed = v.changed || before.Phase != l.Phase || before.Reason != l.Reason || before.Code != l.Code
	}()
	claimed := l.claimed
	l.claimed = time.Time{} // given up, unless we hold on to it below
	if l.Target == nil || Final(l.Phase) {
		return v
	}
	if !l.Begun && l.inForce() { // an order went back to what is asked for, and waited for no window
		l.Phase, l.Reason, l.Code, l.Detail, l.Outcome, l.Next = status.Installed, install.ReasonInstalled, "", "", "", time.Time{}
		l.Window, l.Missed, l.waiting = nil, 0, false
		return v
	}
	if l.watch(w) {
		v.changed = true
		return v
	}
	if f == nil {
		l.Phase, l.Reason = status.Pending, "ManifestUnknown"
		return v
	}
	m := f.manifest
	switch {
	case m.Name != l.Target.Bundle || m.Version != l.Target.Version:
		l.Phase, l.Reason, l.Code, l.Outcome = status.Quarantined, "ChecksumMismatch", problem.ChecksumMismatch, string(install.VerificationFailure)
		return v
	case f.bad != nil:
		l.Phase, l.Reason, l.Code, l.Outcome = status.Quarantined, "IndexInvalid", problem.IndexInvalid, string(install.VerificationFailure)
		l.Detail = clip(f.bad.Error(), maxDetail)
		return v
	case !m.Target.Matches(f.machine):
		l.refuse(now, "TargetMismatch", problem.TargetMismatch)
		return v
	case l.Installed != nil && m.Sequence < l.Installed.Sequence && !f.downgrade:
		l.refuse(now, "SequenceTooOld", problem.SequenceTooOld)
		return v
	}
	if !f.staged && f.noRoom != nil {
		l.Phase, l.Reason, l.Code, l.Detail = status.Staging, "NoRoom", f.noRoom.Code, clip(f.noRoom.Error(), maxDetail)
		return v
	}
	if !f.staged {
		if l.Reason == "NoRoom" {
			l.Detail = ""
		}
		l.Phase, l.Reason, l.Code = status.Staging, "Downloading", ""
		return v
	}
	switch l.Phase {
	case status.Pending, status.Staging:
		l.Phase, l.Reason, l.Code = status.Staged, "Complete", ""
		if l.Next.Before(now) { // else the installer refused a moment ago, for whatever is whole again
			l.Next = now
		}
		if w != nil && l.Ready.IsZero() {
			l.Ready = w.now
			if !l.Asked.IsZero() {
				l.took = max(0, l.Ready.Sub(l.Asked))
			}
		}
		v.changed = true
		return v
	case status.Staged, status.Scheduled, status.Deferred, status.Installing:
		// Begun: the daemon was restarted meanwhile. The installer is safe to ask twice: what it has started it
		// finishes, at any time, and it starts nothing outside the window.
		if !l.Begun && w != nil && w.early {
			return v
		}
		if !l.Begun && !l.may(w) {
			l.wait(now, w)
			return v
		}
		prev := l.Next
		if l.waiting {
			l.waiting, l.Next = false, time.Time{}
		}
		if now.Before(l.Next) {
			return v
		}
		if h := l.heldUp(f, w); h != nil && !l.Begun {
			if h.Step == turn.Wait {
				l.hold(h, prev, w)
				return v
			}
			if h.Step == turn.Claim {
				if l.claimed = claimed; claimed.IsZero() {
					l.claimed = now
				}
				l.waiting, l.Next = true, l.claimed.Add(turn.Settle)
				return v
			}
		}
		l.Phase, l.Reason, l.Code, l.Detail, l.Order = status.Installing, "InstallerRunning", "", "", 0
		l.Tries++
		l.Next = now.Add(retryMost) // the phase's deadline: should the installer never answer
		l.Begun, v.install, v.changed = true, true, true
	}
	return v
}

func (l *Life) refuse(now time.Time, reason string, code problem.Code) {
	if l.Reason == reason && now.Before(l.Next) {
		return
	}
	l.Phase, l.Reason, l.Code, l.Outcome, l.Next = status.Deferred, reason, code, string(install.Deferred), now.Add(retryMost)
}

// found notes what the installer says is in force, whatever became of the request. A result that names the bundle and
// nothing in force says that nothing is; one that does not name it says nothing.
func (l *Life) found(r install.Result) {
	i := r.Installed
	if r.Bundle == "" && i == nil {
		return
	}
	if l.Installed != nil && (i == nil || l.Installed.Checksum != i.Checksum) {
		p := l.Installed.Checksum
		l.Previous = &p
	}
	if i == nil {
		l.Installed = nil
		return
	}
	receipt := ""
	if l.Installed != nil && l.Installed.Checksum == i.Checksum {
		receipt = l.Installed.Receipt
	}
	l.Installed = &status.InstalledItem{Receipt: receipt, Bundle: i.Bundle, Version: i.Version, Sequence: i.Sequence, Checksum: i.Checksum, Since: i.Since.UTC().Truncate(time.Second)}
}

// finish takes the installer's result.
func (l *Life) finish(now time.Time, r install.Result) {
	l.found(r)
	l.note(r)
	l.Begun = r.Open // what the executor has begun it finishes, whatever the window says
	l.Phase, l.Reason, l.Code, l.Outcome = r.Phase, r.Reason, r.Code, string(r.Outcome)
	if r.Outcome == install.Success && r.Reason == install.ReasonOperator && !l.inForce() { // it succeeded in going back
		l.Phase, l.Outcome = status.RolledBack, string(install.RolledBack)
	}
	if !Final(l.Phase) {
		l.Next = now.Add(min(retryMost, retryFirst<<min(max(l.Tries-1, 0), 10)))
		if r.Next != nil && r.Next.After(now) {
			if l.Next = *r.Next; l.Next.After(now.Add(mostNext)) {
				l.Next = now.Add(mostNext)
			}
		}
		return
	}
	l.Window, l.Missed = nil, 0
}

// inForce reports whether the target is.
func (l *Life) inForce() bool {
	return l.Target != nil && l.Installed != nil && l.Installed.Checksum == l.Target.Checksum
}

// unmanaged: no policy asks for what is in force, or nothing is any more.
func (l *Life) unmanaged() {
	switch {
	case l.Target != nil:
	case l.Installed != nil:
		l.Phase, l.Reason = status.Installed, "Unmanaged"
	case l.Phase == status.Installed:
		l.Phase, l.Reason = status.Pending, "NoPolicy"
	}
}
