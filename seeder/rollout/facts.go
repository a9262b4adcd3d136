package rollout

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Fact is what is known of one node that the policy selects.
type Fact struct {
	Site, Node  string
	Canary      bool // the canary's selector picks it
	Silent      bool
	Staged      bool // it holds the whole bundle
	Quarantined bool // it gets no place
	Said        Said
	Reason      string // of a deferral
}

// Said is what a node says of the bundle of the rollout.
type Said string

// What it may say.
const (
	SaidWaiting     Said = "waiting"
	SaidDeferred    Said = "deferred" // for a reason of its own
	SaidStarted     Said = "started"
	SaidRebooting   Said = "rebooting"
	SaidInstalled   Said = "installed"
	SaidRolledBack  Said = "rolled back"
	SaidFailed      Said = "failed"
	SaidUnverified  Said = "unverified"
	SaidTakenBack   Said = "taken back" // by an order: no failure
	reasonByOrder        = "RolledBackByOperator"
	reasonHeld           = "HeldBackByOperator"
	reasonRebooting      = "RebootPending"
)

// Say reads a node's statement.
func Say(n *status.Node, bundle string, sum manifest.Digest) (_ Said, reason string, staged bool) {
	if n.Desired == nil || n.Desired.Checksum != sum || n.Desired.Bundle != bundle {
		for _, i := range n.Installed {
			if i.Bundle == bundle && i.Checksum == sum {
				return SaidInstalled, "", true
			}
		}
		return SaidWaiting, "", false // of an earlier revision: it will hear of this one
	}
	staged = n.Transfer.Chunks > 0 && n.Transfer.ChunksHave == n.Transfer.Chunks
	switch n.Phase {
	case status.Installed:
		return SaidInstalled, "", true
	case status.Installing:
		if n.Reason == reasonRebooting {
			return SaidRebooting, "", true
		}
		return SaidStarted, "", true
	case status.RolledBack:
		if n.Reason == reasonByOrder || n.Reason == reasonHeld {
			return SaidTakenBack, n.Reason, staged
		}
		return SaidRolledBack, n.Reason, staged
	case status.InstallFailed:
		return SaidFailed, n.Reason, staged
	case status.Quarantined:
		return SaidUnverified, n.Reason, staged
	case status.Deferred:
		if n.Reason == reasonRebooting {
			return SaidRebooting, "", true
		}
		return SaidDeferred, n.Reason, staged
	case status.Pending, status.Staging, status.Staged, status.Scheduled:
	}
	return SaidWaiting, n.Reason, staged
}

// Result is how it ended for a node.
type Result string

// The results. The four after Installed and TakenBack are failures.
const (
	Installed     Result = "Installed"
	TakenBack     Result = "TakenBack" // by a person's order
	InstallFailed Result = "InstallFailed"
	VerifyFailed  Result = "VerifyFailed"
	RolledBack    Result = "RolledBack"
	Lost          Result = "Lost" // did not come back after it was started again
)

// Failed reports whether the result counts against the budget.
func (r Result) Failed() bool {
	return r == InstallFailed || r == VerifyFailed || r == RolledBack || r == Lost
}

func (s Said) result() Result {
	switch s {
	case SaidInstalled:
		return Installed
	case SaidRolledBack:
		return RolledBack
	case SaidFailed:
		return InstallFailed
	case SaidUnverified:
		return VerifyFailed
	case SaidTakenBack:
		return TakenBack
	case SaidWaiting, SaidDeferred, SaidStarted, SaidRebooting:
	}
	return ""
}

func (s Said) terminal() bool { return s.result() != "" }

// own are the deferrals that are the rollout's own doing, or the window's: a node that says so keeps its place, and its
// batch waits for it.
func own(reason string) bool {
	switch reason {
	case "WindowClosed", "BatchNotReached", "LeaseMissing", "Paused", "Blackout", "NotBefore":
		return true
	}
	return false
}

// look makes the facts easy to find.
func (x *stepper) look() {
	x.facts = make(map[place]*Fact, len(x.w.Nodes))
	x.alive = map[string]bool{}
	for i := range x.w.Nodes {
		f := &x.w.Nodes[i]
		x.facts[place{f.Site, f.Node}] = f
		if !f.Silent {
			x.alive[f.Site] = true
		}
	}
	x.cohorts = map[string]int{}
	for i := range x.Nodes {
		x.cohorts[x.Nodes[i].Site] = x.Nodes[i].Cohort
	}
}

// watch notes which cohorts have an open window.
func (x *stepper) watch() {
	x.open = make([]bool, len(x.Cohorts))
	for site, c := range x.cohorts {
		x.open[c] = x.open[c] || x.w.Sites[site].open(x.now)
	}
}

func (x *stepper) progress() time.Duration {
	if x.r.ProgressDeadline > 0 {
		return x.r.ProgressDeadline
	}
	return policy.DefaultProgressDeadline
}

// fold brings every node up to date with what is known of it.
func (x *stepper) fold() {
	halted := x.halted() != ""
	for i := range x.Nodes {
		n := &x.Nodes[i]
		x.release(n, halted)
		f := x.facts[place{n.Site, n.Name}]
		switch {
		case f == nil:
			n.settle(x.now, "NotATarget")
		case f.Said.terminal():
			x.ended(n, f.Said.result())
		case f.Said == SaidStarted || f.Said == SaidRebooting:
			x.underWay(n, f)
		case n.Result == Lost && f.Silent || n.Before && n.Result != Installed && f.Silent:
		default:
			if n.Result != "" { // it is to do it again, by an order, or it went another way meanwhile
				n.again()
			}
			x.unstarted(n, f, halted)
		}
	}
}

// again: the node is as if nothing had been tried.
func (n *Node) again() {
	n.Result, n.Before, n.Reason = "", false, ""
	n.Started, n.Settled, n.SentBack = time.Time{}, time.Time{}, time.Time{}
}

func (n *Node) settle(now time.Time, reason string) {
	n.Reason = reason
	if n.Settled.IsZero() {
		n.Settled = now
	}
}

func (x *stepper) ended(n *Node, r Result) {
	if n.Result == r {
		return
	}
	if n.Started.IsZero() && !n.Before { // we did not hear of the start
		n.Started = x.now
	}
	n.Result, n.Reason, n.Settled = r, "", x.now
}

// underWay is about a node that has started. One that nobody hears of while its neighbours are heard is lost, if it was
// to start itself again; where the whole site is silent nothing can be said.
func (x *stepper) underWay(n *Node, f *Fact) {
	if n.Result != "" && n.Result != Lost || n.Started.IsZero() {
		n.again()
		n.Started = x.now
	}
	late := !x.now.Before(n.Started.Add(x.progress()))
	switch {
	case !late && (n.Result == "" || f.Silent):
		n.Settled, n.Reason = time.Time{}, ""
	case f.Silent && f.Said == SaidRebooting && x.alive[n.Site]:
		if n.Result != Lost {
			n.Result, n.Reason, n.Settled = Lost, "", x.now
		}
	case f.Silent:
		n.settle(x.now, "Unreachable")
	default:
		n.Result = "" // it was lost and is heard again
		n.settle(x.now, "ProgressDeadline")
	}
}

// release notes since when a node may start, and that a window closed over one that did not.
func (x *stepper) release(n *Node, halted bool) {
	site := x.w.Sites[n.Site]
	open := site.open(x.now)
	switch {
	case halted:
		n.Released = time.Time{}
	case !n.Released.IsZero() && (!open || n.Released.Before(site.Opens)):
		if n.Started.IsZero() && n.Result == "" {
			n.Missed++
		}
		n.Released = time.Time{}
	}
	if !halted && open && n.Released.IsZero() && x.reached(n) {
		n.Released = x.now
	}
}

// reached: the node's batch may start.
func (x *stepper) reached(n *Node) bool {
	return n.Batch == 0 && x.r.Canary != nil || x.Canary.Passed && n.Batch <= x.Cohorts[n.Cohort].Batch
}

// unstarted says whether a node that has not started still holds up its batch.
func (x *stepper) unstarted(n *Node, f *Fact, halted bool) {
	c := &x.Cohorts[n.Cohort]
	switch {
	case halted && n.Settled.IsZero() || !x.reached(n):
		n.Settled, n.Reason = time.Time{}, ""
	case halted:
	case n.Released.IsZero(): // its window is closed; those of others in its cohort may be open
		if n.Settled.IsZero() && n.Batch > 0 && x.open[n.Cohort] && !x.now.Before(c.At[n.Batch-1].Add(x.progress())) {
			n.settle(x.now, "WindowClosed")
		}
	case f.Quarantined:
		n.settle(x.now, "Quarantined")
	case f.Silent:
		n.settle(x.now, "Unreachable")
	case f.Said == SaidDeferred && !own(f.Reason):
		n.settle(x.now, f.Reason)
	case !x.now.Before(n.Released.Add(x.progress())) || n.Missed >= 2:
		reason := f.Reason
		switch {
		case !f.Staged:
			reason = "NotStaged"
		case reason == "":
			reason = "WindowClosed"
		}
		n.settle(x.now, reason)
	default:
		n.Settled, n.Reason = time.Time{}, ""
	}
}

// Word says in one word where the node is, as screens count it.
func (n *Node) Word() string {
	switch {
	case n.Result != "":
		return string(n.Result)
	case !n.Settled.IsZero():
		return "Deferred"
	case !n.Started.IsZero():
		return "Installing"
	}
	return "Waiting"
}
