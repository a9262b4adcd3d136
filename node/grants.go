package node

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/node/turn"
)

// heldGrant is the newest grant for a policy at this site. We hand on those that only name neighbours, too.
type heldGrant struct {
	g *grant.Grant
	s trust.Signed
}

// hold is what keeps an install from starting although its window is open; or, with a step other than turn.Wait, what
// has nothing against it any more.
type hold struct {
	turn.Verdict
	code problem.Code
	now  time.Time // by the clock that Next is of
}

const reasonConflict = "Conflict"

// loadGrants reads what is on disk. Called by load, after the policies.
func (n *Node) loadGrants() {
	if err := n.d.eachSigned("grants", func(_ string, s trust.Signed) error {
		g, err := grant.Open(&n.e.Trust, s, n.rec.Floor)
		if err != nil {
			return err
		}
		if g.Site == n.e.Site && n.ours(g) && !g.Mark().Before(n.rec.Granted[g.Policy]) {
			n.grants[g.Policy], n.rec.Granted[g.Policy] = &heldGrant{g, s}, g.Mark()
		}
		return nil
	}); err != nil {
		n.log.Error("a grant on disk is not used; it is asked for again", "err", err)
	}
	for name := range n.grants {
		n.dropGrant(name)
	}
}

// wantsGrant: by its serial a grant is worth having. One for a policy that is not in force is not: so many there are.
// Under a new revision the serials count anew.
func (n *Node) wantsGrant(name string, serial uint64) bool {
	p, newest := n.policies[name], n.rec.Granted[name]
	switch {
	case p == nil || p.p == nil:
		return false
	case newest.Revision < p.doc.Revision:
		return true
	case n.grants[name] == nil: // it was lost
		return serial >= newest.Number
	}
	return serial > newest.Number
}

// ours: the grant is for a policy that is in force, and for no revision that no operator has signed yet, as far as we know.
func (n *Node) ours(g *grant.Grant) bool {
	p := n.policies[g.Policy]
	return p != nil && p.p != nil && g.Revision <= p.doc.Revision
}

// takeGrant verifies and keeps a newer grant. One for a revision that is still to come is asked for again then.
func (n *Node) takeGrant(s trust.Signed) error {
	g, err := grant.Open(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return err
	}
	if g.Site != n.e.Site {
		return problem.New(problem.InvalidGrant, "a grant for site %s was offered", g.Site).WithDone("it was not kept")
	}
	if held := n.grants[g.Policy]; !n.ours(g) || g.Mark().Before(n.rec.Granted[g.Policy]) || held != nil && held.g.Mark() == g.Mark() {
		return nil
	}
	if err := n.d.saveSigned("grants", g.Policy, s); err != nil {
		return localError{err}
	}
	n.grants[g.Policy] = &heldGrant{g, s}
	n.rec.Granted[g.Policy], n.dirty = g.Mark(), true
	n.log.Info("grant", "policy", g.Policy, "serial", g.Serial, "revision", g.Revision, "expires", g.Expires, "halted", g.Halted)
	n.refreshDocs()
	return nil
}

// dropGrant forgets the grant of a policy that is not in force any more. Its serial is remembered.
func (n *Node) dropGrant(name string) {
	if p := n.policies[name]; n.grants[name] == nil || p != nil && p.p != nil {
		return
	}
	delete(n.grants, name)
	if err := durable.Remove(n.d.path("grants", name+".json")); err != nil {
		n.log.Warn("grant cannot be removed", "err", err)
	}
}

// grantOf is the grant for what a life is to install, nil if there is none.
func (n *Node) grantOf(l *Life) *heldGrant {
	if l.Target == nil {
		return nil
	}
	if h := n.grants[l.Target.Policy]; h != nil && h.g.Fits(n.e.Site, l.Target.Policy, l.Target.Revision, l.Target.Checksum) {
		return h
	}
	return nil
}

// holdOf says what beside the schedule has a say about the start of an install: the operators, who may have suspended
// the policy or contradict each other, and the rollout. nil: nothing has.
func (n *Node) holdOf(l *Life) *hold {
	p := n.policies[l.Target.Policy]
	own, skew := n.cfg.now().Round(0), n.skew()
	h := &hold{now: own.Add(skew)}
	wait := func(reason, text string, after time.Duration) *hold {
		h.Verdict = turn.Verdict{Step: turn.Wait, Reason: reason, Text: text, Next: h.now.Add(after)}
		return h
	}
	if text, next, held := n.quarantineHold(); held { // before every policy
		h.code = problem.NodeQuarantined
		return wait(ReasonQuarantined, text, next)
	}
	if err := n.conflicts[l.Target.Bundle]; err != nil {
		h.code = problem.PolicyConflict
		return wait(reasonConflict, err.Error(), retryMost)
	}
	switch {
	case p == nil || p.p == nil: // n.install says so
		return nil
	case p.p.Suspend:
		return wait(grant.Paused, "suspended by the policy", retryMost)
	case p.p.Rollout == nil:
		return nil
	case skew.Abs() > maxSkew:
		return wait(string(preflight.ClockUnsure), fmt.Sprintf("the clock of this node is %s from its site's: set it", roughly(skew.Abs())), time.Minute)
	}
	if n.busy || n.claims(l) { // a claim would keep a place for nothing, and neighbours hear of one
		return wait(grant.BatchNotReached, "this node is at something else", time.Minute)
	}
	held := n.grantOf(l)
	if held == nil {
		held = &heldGrant{}
	}
	now := time.Now()
	v := turn.View{Self: n.e.Node, Now: h.now, Others: n.others(held.g, now), Caps: n.caps(held.g), Settling: now.Sub(n.began) < clockGrace,
		Claimed: !l.claimed.IsZero(), ClaimFor: now.Sub(l.claimed)}
	if p.p.Rollout.Strict {
		v.Fresh = policy.GrantFresh
	}
	if h.Verdict = turn.Decide(held.g, v); h.Step != turn.Wait { // as with windows, it must be time by both clocks
		v.Now = own
		h.Verdict = turn.Decide(held.g, v)
	}
	return h
}

// claims: this node has claimed its turn for another bundle.
func (n *Node) claims(l *Life) bool {
	for _, other := range n.rec.Lives {
		if other != l && !other.claimed.IsZero() {
			return true
		}
	}
	return false
}

// caps is how many may be at it by the site's other grants.
func (n *Node) caps(g *grant.Grant) map[manifest.Digest]int {
	out := map[manifest.Digest]int{}
	for _, h := range n.grants {
		if g != nil && h.g.Checksum != g.Checksum {
			out[h.g.Checksum] = h.g.MaxUnavailable
		}
	}
	return out
}

// others is what the nodes of the site have said of themselves, as it matters to a grant.
func (n *Node) others(g *grant.Grant, now time.Time) map[string]turn.Said {
	if g == nil {
		return nil
	}
	connected := make(map[string]bool, len(n.nb))
	for _, nb := range n.nb {
		connected[nb.name] = true
	}
	all := n.inForce.Load().r.Nodes
	out := make(map[string]turn.Said, len(all))
	for _, r := range all {
		st := n.byName[r.Name]
		if r.Name == n.e.Node {
			continue
		}
		if st == nil || st.st.Node == "" {
			out[r.Name] = turn.Said{Silent: !connected[r.Name], Unheard: true, Quiet: now.Sub(n.began)}
			continue
		}
		o := saidOf(st.st, g.Bundle)
		o.For, o.Silent = now.Sub(st.since), !connected[r.Name]
		if o.Silent {
			o.Quiet = now.Sub(st.heard)
		}
		out[r.Name] = o
	}
	return out
}

// saidOf is what a statement says about a bundle name. A node that is at another bundle is at it all the same, and a claim
// is one for whatever bundle.
func saidOf(st status.Node, bundle string) turn.Said {
	o := said(st, bundle)
	if st.Reason == turn.Starting && st.Desired != nil {
		o.Claims = st.Desired.Checksum
	}
	return o
}

func said(st status.Node, bundle string) turn.Said {
	o := turn.Said{Phase: st.Phase, Reason: st.Reason}
	if st.NextAttempt != nil {
		o.Next = *st.NextAttempt
	}
	if st.Desired != nil {
		o.Checksum = st.Desired.Checksum
		if st.Desired.Bundle == bundle || st.Phase == status.Installing {
			return o
		}
	}
	for _, b := range st.Beside {
		if b.Bundle == bundle {
			o = turn.Said{Phase: b.Phase, Reason: b.Reason, Checksum: b.Checksum}
			if b.NextAttempt != nil {
				o.Next = *b.NextAttempt
			}
		}
	}
	return o
}

// same reports whether two statements say the same of where a node stands with its turn.
func same(a, b status.Node) bool {
	if a.Phase != b.Phase || (a.Reason == turn.Starting) != (b.Reason == turn.Starting) || (a.Desired == nil) != (b.Desired == nil) {
		return false
	}
	return a.Desired == nil || a.Desired.Checksum == b.Desired.Checksum
}

// heldUp is what holds an install up although its window is open: that the target came too late for it, or else what the
// node has found out.
func (l *Life) heldUp(f *targetFacts, w *timing) *hold {
	if f.early && w != nil && w.verdict.Start && !w.verdict.Opens.IsZero() && !l.Ready.Before(w.verdict.Opens) {
		next := w.after
		if next.IsZero() {
			next = w.verdict.Closes
		}
		return &hold{now: w.now, Verdict: turn.Verdict{Step: turn.Wait, Reason: reasonNotStaged, Next: next,
			Text: "it came after the window had opened, at " + w.verdict.Opens.UTC().Format(time.RFC3339) + ", and the policy wants it before"}}
	}
	return f.hold
}

// hold waits for what holds the install up. prev is when it last was to be tried again: while nothing is new, that stands.
func (l *Life) hold(h *hold, prev time.Time, w *timing) {
	l.claimed, l.waiting = time.Time{}, true
	if l.Next = h.Next; l.Reason == h.Reason && prev.After(h.now) {
		l.Next = prev
	}
	l.Phase, l.Outcome = status.Scheduled, ""
	l.Reason, l.Code, l.Detail = h.Reason, h.code, clip(h.Text, maxDetail)
	if l.Missed > 0 && w != nil {
		l.Phase, l.Outcome = status.Deferred, string(install.Deferred)
		l.Detail = clip(h.Text+"; "+l.score(w), maxDetail)
	}
}

// held are the reasons of hold. A window that passes while one of them stands was missed for it.
func held(reason string) bool {
	switch reason {
	case grant.BatchNotReached, grant.Paused, grant.LeaseMissing, reasonNotStaged, reasonConflict, ReasonQuarantined:
		return true
	}
	return false
}
