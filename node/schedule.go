package node

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/window"
)

// Reasons of the closed list that nobody else has a name for.
const (
	reasonNotStaged   = "NotStaged"
	reasonZoneUnknown = "ZoneUnknown"
)

// mostNext bounds what the installer may have us wait: its clock may be one from 2099.
const mostNext = 8 * 24 * time.Hour

// slot is a time in which the install could start or could have started.
type slot struct {
	Opens  time.Time `json:"opens"` // zero: it has been open for more than a week
	Closes time.Time `json:"closes"`
}

// timing is what the policy's schedule says at one instant; nil where there is none.
type timing struct {
	now          time.Time // by the clock of the site
	verdict      window.Verdict
	anytime      bool   // without windows, it would let one start; known if runAnytime
	unsure       string // why it cannot be said; then detail says more, and verdict nothing
	detail       string
	early        bool      // it cannot be said yet: nothing starts and nothing is counted
	after        time.Time // when the next one opens after the window that is open; zero: never, or none is open
	maxDeferrals int
	deadline     time.Duration
	runAnytime   bool
}

// timingOf asks a schedule. An install starts when it may by our own clock and by the site's: who moves the site's clock
// can keep us from starting and cannot make us start.
func timingOf(s policy.Schedule, own time.Time, skew time.Duration, site *time.Location) *timing {
	if s.Windows == "" && len(s.Blackouts) == 0 && s.NotBefore.IsZero() && s.Deadline == 0 {
		return nil
	}
	own = own.Round(0)
	w := &timing{now: own.Add(skew), maxDeferrals: s.MaxDeferrals, deadline: s.Deadline, runAnytime: s.RunAnytime}
	if skew.Abs() > maxSkew {
		w.unsure = string(preflight.ClockUnsure)
		w.detail = fmt.Sprintf("the clock of this node is %s from its site's: set it", roughly(skew.Abs()))
		return w
	}
	r, err := s.Rules(site)
	if err != nil {
		w.unsure, w.detail = reasonZoneUnknown, err.Error()
		return w
	}
	decide := func() window.Verdict {
		v := r.Decide(w.now)
		if v.Start {
			return r.Decide(own)
		}
		return v
	}
	w.verdict = decide()
	if c := w.verdict.Closes; w.verdict.Start && !c.IsZero() {
		w.after = r.Decide(c).Next
	}
	if s.RunAnytime {
		r.Windows, r.Cutoff = nil, 0
		w.anytime = decide().Start
	}
	return w
}

func roughly(d time.Duration) time.Duration {
	if d > time.Hour {
		return d.Round(time.Hour)
	}
	return d.Round(time.Minute)
}

// overdue reports whether so much time or so many windows have passed that somebody should know.
func (l *Life) overdue(w *timing) bool {
	if w == nil || l.Target == nil || Final(l.Phase) {
		return false
	}
	return w.maxDeferrals > 0 && l.Missed >= w.maxDeferrals ||
		w.deadline > 0 && w.unsure == "" && !l.Asked.IsZero() && w.now.Sub(l.Asked) >= w.deadline
}

// may reports whether the schedule lets an install start.
func (l *Life) may(w *timing) bool {
	return w == nil || w.unsure == "" && (w.verdict.Start || w.runAnytime && w.anytime && l.overdue(w))
}

// watch notes which window is the one to use, and counts one that has passed. One counts for all that pass while the
// node is off, or its clock is not to be trusted. It reports whether one was missed, which is said once.
func (l *Life) watch(w *timing) (missed bool) {
	if w == nil || w.unsure != "" || w.early || l.Begun {
		return false
	}
	if l.Asked.IsZero() || l.Asked.After(w.now) {
		l.Asked = w.now
	}
	v := w.verdict
	if missed = l.Window != nil && !w.now.Before(l.Window.Closes); missed {
		l.Missed++
		switch {
		case l.Phase == status.Deferred || held(l.Reason): // the reason stands
		case l.Phase == status.Pending || l.Phase == status.Staging:
			l.Reason, l.Code = reasonNotStaged, ""
		default:
			l.Reason, l.Code = string(window.Closed), ""
		}
		l.Phase, l.Outcome = status.Deferred, string(install.Deferred)
		l.Detail = clip(fmt.Sprintf("the window until %s has passed; %s", l.Window.Closes.UTC().Format(time.RFC3339), l.score(w)), maxDetail)
		if !v.Next.IsZero() {
			l.Next = v.Next
		}
		l.Window = nil
	}
	switch s := (slot{v.Opens, v.Closes}); {
	case v.Closes.IsZero(): // always open, or never again
		l.Window = nil
	case l.Window == nil || s.Opens.Before(l.Window.Opens) || s.Opens.Equal(l.Window.Opens) && !s.Closes.Equal(l.Window.Closes):
		l.Window = &s // what is noted stays until it closes, also when it is too late to start in it
	}
	return missed
}

// score says how many windows were missed.
func (l *Life) score(w *timing) string {
	s := fmt.Sprintf("%d missed", l.Missed)
	if w.maxDeferrals > 0 {
		s = fmt.Sprintf("%d of %d missed", l.Missed, w.maxDeferrals)
	}
	if l.overdue(w) {
		s += ", overdue"
	}
	return s
}

// wait waits for the schedule.
func (l *Life) wait(now time.Time, w *timing) {
	l.waiting = true
	if w.unsure != "" {
		if l.Phase == status.Deferred && l.Reason == w.unsure && now.Before(l.Next) {
			return
		}
		l.Phase, l.Reason, l.Code, l.Outcome, l.Detail = status.Deferred, w.unsure, "", string(install.Deferred), clip(w.detail, maxDetail)
		l.Next = now.Add(time.Minute)
		return
	}
	if l.Next = w.verdict.Next; l.Next.IsZero() {
		l.Next = w.now.Add(retryMost)
	}
	if l.Phase == status.Deferred && !ours(l.Reason) { // what the installer said stands until it is asked again
		return
	}
	if held(l.Reason) && l.Window != nil && !w.now.Before(l.Window.Opens) { // it was that, until it was too late for this window
		return
	}
	l.Phase, l.Outcome = status.Scheduled, ""
	l.Reason, l.Code, l.Detail = string(w.verdict.Reason), "", clip(w.verdict.Text, maxDetail)
	if l.Missed > 0 {
		l.Phase, l.Outcome = status.Deferred, string(install.Deferred)
		l.Detail = clip(w.verdict.Text+"; "+l.score(w), maxDetail)
	}
}

// ours are the reasons that hold for as long as we say so ourselves.
func ours(reason string) bool {
	switch reason {
	case string(window.Closed), string(window.Blackout), string(window.TooEarly), string(preflight.ClockUnsure), reasonZoneUnknown,
		"TargetMismatch", "SequenceTooOld", install.ReasonRevoked:
		return true
	}
	return false
}

// timing asks the schedule of the policy that a life follows, and remembers the answer for a moment: the loop turns
// with each chunk.
func (n *Node) timing(name string, l *Life) *timing {
	if l.Target == nil || Final(l.Phase) {
		return nil
	}
	p := n.policies[l.Target.Policy]
	if p == nil || p.p == nil { // n.install says so
		return nil
	}
	now := time.Now()
	t, ok := n.timings[name]
	if !ok || t.of != p || now.Sub(t.at) >= timingLasts {
		t = timed{of: p, at: now, w: timingOf(p.p.Schedule, n.cfg.now(), n.skew(), n.siteZone())}
		if t.w != nil {
			t.w.early = n.tooEarly(now)
		}
		n.timings[name] = t
	}
	return t.w
}

const timingLasts = 250 * time.Millisecond

// timed is a timing that is a moment old.
type timed struct {
	of *heldPolicy
	at time.Time
	w  *timing
}

// showOverdue raises or clears the alarm about installs that are overdue.
func (n *Node) showOverdue() {
	var late string
	for name, l := range n.rec.Lives {
		if w := n.timing(name, l); l.overdue(w) && (late == "" || name < late) {
			late = name
		}
	}
	if late == "" {
		n.clearAlarm(problem.InstallOverdue)
		return
	}
	l := n.rec.Lives[late]
	n.alarm(problem.InstallOverdue, "%s %s was asked for at %s and is not installed: %s, %d windows missed",
		late, l.Target.Version, l.Asked.UTC().Format(time.RFC3339), l.Reason, l.Missed)
}
