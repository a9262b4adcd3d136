package node

import (
	"maps"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// noticeAgain is how long a notice that the executor could not take waits.
const noticeAgain = 5 * time.Minute

// giveNotice tells the executor that it is not to follow any more what was granted before: a newer grant is halted or does
// not name this node, or the policy has a newer revision. We hold back by ourselves; but whoever takes this daemon over
// later holds all that it ever held, and the executor has to know by then. A newer grant by which we start comes with the
// request.
func (n *Node) giveNotice() {
	now := time.Now()
	if n.busy || now.Before(n.noticeNext) || n.cfg.Handoff == "" && len(n.cfg.Installer) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(n.grants)) {
		request, mark, due := n.noticeOf(name)
		if !due || !n.rec.Noticed[name].Before(mark) {
			continue
		}
		n.busy, n.noticeNext = true, now.Add(noticeAgain)
		n.execute(request, func(r install.Result) {
			n.busy = false
			if r.Bundle != "" { // of something that had to be carried on first
				n.noticed(r)
			}
			if !taken(r) {
				n.log.Warn("the executor was not told that a grant is over; trying again", "policy", name, "reason", r.Reason, "detail", r.Detail)
				return
			}
			n.rec.Noticed[name], n.dirty, n.noticeNext = mark, true, time.Time{}
		})
		return
	}
}

// taken: the executor has taken a notice, or knows of something newer. Nothing else that it says counts, such as what became
// of a transaction that it had to end first and could not.
func taken(r install.Result) bool {
	return r.Bundle == "" && (r.Reason == install.ReasonNoted || r.Code == problem.SequenceTooOld)
}

// noticeOf is what the executor has to know of a policy whose grant we hold; due is false if the request to install, or
// nothing, says it.
func (n *Node) noticeOf(name string) (_ install.Request, _ policy.Mark, due bool) {
	p, held := n.policies[name], n.grants[name]
	if p == nil || p.p == nil || !p.p.Matches(n.labels()) {
		return install.Request{}, policy.Mark{}, false
	}
	if l := n.rec.Lives[p.p.Bundle.Name]; l != nil && l.inForce() {
		return install.Request{}, policy.Mark{}, false
	}
	request := install.NewNotice(p.s, n.d.path("chunks"))
	if !held.g.Fits(n.e.Site, name, p.doc.Revision, p.p.Bundle.Checksum) {
		return request, policy.Mark{Revision: p.doc.Revision}, true
	}
	_, named := held.g.Place(n.e.Node)
	return request.WithGrant(held.s), held.g.Mark(), held.g.Halted != "" || !named
}
