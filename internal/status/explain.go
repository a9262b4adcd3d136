package status

import (
	"slices"
	"time"
)

// Unsaid is the reason of a node that gives none.
const Unsaid = "NotSaid"

// Final reports whether a phase lasts until something else is asked of the node.
func Final(p Phase) bool {
	switch p {
	case Installed, RolledBack, InstallFailed, Quarantined:
		return true
	case Pending, Staging, Staged, Scheduled, Installing, Deferred:
	}
	return false
}

// Explain gives a statement what none may lack: in every phase that is not final, a reason, and the time of the next
// attempt. A node says no time while it is at it all along, as when it downloads; the attempt is then now. Whoever shows a
// statement calls this, with the time at which the statement held: nowhere else is either filled in. What n shares with
// others is not changed.
func (n *Node) Explain(now time.Time) {
	now = now.UTC().Truncate(time.Second)
	explain(n.Phase, &n.Reason, &n.NextAttempt, &now)
	lacks := func(s Standing) bool { return !Final(s.Phase) && (s.Reason == "" || s.NextAttempt == nil) }
	if !slices.ContainsFunc(n.Beside, lacks) {
		return
	}
	n.Beside = slices.Clone(n.Beside)
	for i := range n.Beside {
		explain(n.Beside[i].Phase, &n.Beside[i].Reason, &n.Beside[i].NextAttempt, &now)
	}
}

func explain(p Phase, reason *string, next **time.Time, now *time.Time) {
	if Final(p) {
		return
	}
	if *reason == "" {
		*reason = Unsaid
	}
	if *next == nil {
		*next = now
	}
}
