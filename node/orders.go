package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/window"
)

// heldOrder is an order whose signature is verified. We hand on those for our neighbours too.
type heldOrder struct {
	o *order.Order
	s trust.Signed
}

// errand is what became of the newest order of an operator to this node about a bundle name, or of the seeder under a
// policy. It is on disk before the executor is asked, and the executor remembers for itself what it carried out: an errand
// that is forgotten is asked for once more and does nothing.
type errand struct {
	Sequence uint64    `json:"sequence"`
	Revision uint64    `json:"revision,omitempty"` // of the policy, with an order of the seeder
	Done     bool      `json:"done"`
	Tries    int       `json:"tries"`
	Next     time.Time `json:"next"`             // when it is looked at again
	Opens    time.Time `json:"opens,omitzero"`   // when it may be carried out, as far as is known
	Reason   string    `json:"reason,omitempty"` // why it waits
	Told     time.Time `json:"told"`             // when that was reported
}

// wait lets the errand wait, and says whether that is to be reported.
func (e *errand) wait(now, next time.Time, reason string) (news bool) {
	news = e.Reason != reason || now.Sub(e.Told) >= repeatAfter || now.Before(e.Told)
	e.Next, e.Reason = next, reason
	if news {
		e.Told = now
	}
	return news
}

// loadOrders reads what is on disk. Called by load.
func (n *Node) loadOrders() {
	if err := n.d.eachSigned("orders", func(name string, s trust.Signed) error {
		if isBack(name) {
			return n.loadBack(name, s)
		}
		o, err := order.Open(&n.e.Trust, s, n.rec.Floor)
		if err != nil {
			return err
		}
		n.orders[o.Sequence] = &heldOrder{o, s}
		return nil
	}); err != nil {
		n.log.Error("an order on disk is not used; it is asked for again", "err", err)
	}
	n.hurryErrands() // see Life.resume
	n.assign()
}

// wantsOrder: by its sequence an order is worth keeping.
func (n *Node) wantsOrder(sequence uint64) bool {
	if n.orders[sequence] != nil {
		return false
	}
	return len(n.orders) < order.MaxKept || sequence > slices.Min(slices.Collect(maps.Keys(n.orders)))
}

// takeOrder verifies and keeps an order of an operator. It is refused when it cannot be for this site.
func (n *Node) takeOrder(s trust.Signed) error {
	o, err := order.Open(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return err
	}
	if !o.Targets.Concerns(n.e.Site) {
		return problem.New(problem.Denied, "order %d is for another site", o.Sequence).WithDone("it was not kept")
	}
	if !n.wantsOrder(o.Sequence) {
		return nil
	}
	if err := n.d.saveSigned("orders", orderName(o.Sequence), s); err != nil {
		return localError{err}
	}
	if at, err := o.Time(); err == nil {
		n.trustedTime(at)
	}
	n.orders[o.Sequence] = &heldOrder{o, s}
	sequences := order.Newest(slices.Collect(maps.Keys(n.orders)), func(q uint64) uint64 { return q })
	for q := range n.orders {
		if q < sequences[0] {
			delete(n.orders, q)
			if err := durable.Remove(n.d.path("orders", orderName(q)+".json")); err != nil {
				n.log.Warn("order cannot be removed", "err", err)
			}
		}
	}
	n.log.Info("order", "sequence", o.Sequence, "kind", o.Kind, "bundle", o.Bundle, "version", o.Version, "reason", o.Reason)
	n.assign()
	n.refreshDocs()
	return nil
}

func orderName(sequence uint64) string { return fmt.Sprintf("%020d", sequence) }

// assign makes the newest order to this node about each bundle name its errand, and the seeder's newest under each policy.
func (n *Node) assign() {
	labels := n.labels()
	for q, h := range n.orders {
		if h.o.Kind == order.Release { // see obeyRelease
			continue
		}
		if e := n.rec.Errands[h.o.Bundle]; (e == nil || e.Sequence < q) && h.o.Targets.Names(n.e.Site, n.e.Node, labels) {
			n.rec.Errands[h.o.Bundle], n.dirty = &errand{Sequence: q}, true
		}
	}
	n.assignBacks(labels)
}

// hurryErrands looks at every errand at once: what it waits for may be another thing now.
func (n *Node) hurryErrands() {
	for _, errands := range []map[string]*errand{n.rec.Errands, n.rec.Backs} {
		for _, e := range errands {
			e.Next = time.Time{}
		}
	}
}

// duty is an order to this node that is not carried out yet.
type duty struct {
	e *errand
	h *heldOrder
}

// duties are those of operators, in the order of the bundles' names, and then those of the seeder.
func (n *Node) duties() (out []duty) {
	for _, name := range slices.Sorted(maps.Keys(n.rec.Errands)) {
		if e := n.rec.Errands[name]; !e.Done && n.orders[e.Sequence] != nil {
			out = append(out, duty{e, n.orders[e.Sequence]})
		}
	}
	return append(out, n.backDuties()...)
}

// errandOf is what the newest order has become that is of the same kind as this one.
func (n *Node) errandOf(o *order.Order) *errand {
	if o.Under != nil {
		return n.rec.Backs[o.Under.Policy]
	}
	return n.rec.Errands[o.Bundle]
}

// forbidden: an order says that the bundle is not to come into force, and the executor has yet to hear of it.
func (n *Node) forbidden(l *Life) bool {
	if l.Target == nil || l.Phase == status.Pending || l.Phase == status.Staging {
		return false
	}
	return slices.ContainsFunc(n.duties(), func(d duty) bool { return d.h.o.Kind == order.Rollback && d.h.o.Checksum == l.Target.Checksum })
}

// mayGoBack says whether the policy that asks for the bundle lets what runs be changed now. Without a policy there is no
// window to wait for.
func (n *Node) mayGoBack(l *Life) window.Verdict {
	if l.Target == nil {
		return window.Verdict{Start: true}
	}
	p := n.policies[l.Target.Policy]
	if p == nil || p.p == nil {
		return window.Verdict{Reason: reasonUnreadable, Text: "the policy on disk cannot be read; it is asked for again"}
	}
	w := timingOf(p.p.Schedule, n.cfg.now(), n.skew(), n.siteZone())
	switch {
	case w == nil:
		return window.Verdict{Start: true}
	case w.unsure != "":
		return window.Verdict{Reason: window.Reason(w.unsure), Text: w.detail}
	}
	return w.verdict
}

// carryOut asks the executor to do what orders say, one at a time, each in its own time. A rollback of what is in force
// waits for the maintenance window, unless the order says now; what changes nothing that runs does not wait.
func (n *Node) carryOut() {
	now := time.Now()
	early := n.tooEarly(now)
	for _, d := range n.duties() {
		e, o := d.e, d.h.o
		name := o.Bundle
		if n.busy || now.Before(e.Next) || early && !o.Now {
			continue
		}
		l := n.rec.Lives[name]
		if o.Kind == order.Rollback && !o.Now && l != nil && l.Installed != nil && l.Installed.Checksum == o.Checksum {
			if v := n.mayGoBack(l); !v.Start {
				wait := retryMost // a policy, or a clock, may change
				if !v.Next.IsZero() {
					wait = min(wait, max(0, v.Next.Sub(n.cfg.now())))
				}
				e.Opens = v.Next
				if e.wait(now, now.Add(wait), string(v.Reason)) {
					r := install.Result{Outcome: install.Deferred, Reason: string(v.Reason), Detail: v.Text}
					if !v.Next.IsZero() {
						r.Next = &v.Next
					}
					n.reportOrder(name, o, r, false)
				}
				n.dirty = true
				continue
			}
		}
		n.busy = true
		e.Tries++
		e.Next, e.Opens = now.Add(retryMost), time.Time{}
		request := install.NewOrderRequest(d.h.s, n.d.path("chunks"))
		if o.Under != nil {
			if p := n.lets(o, true); p != nil { // otherwise the executor says why not
				request = request.WithPolicy(p.s)
			}
		}
		n.save(func(err error) {
			if err != nil { // not on disk, so not done
				n.busy = false
				e.Next = time.Now().Add(retryFirst)
				return
			}
			n.execute(request, func(r install.Result) { n.carried(name, o, r) })
		})
		return
	}
}

// carried takes the executor's answer to an order.
func (n *Node) carried(name string, o *order.Order, r install.Result) {
	n.busy = false
	l := n.rec.Lives[name]
	if l == nil {
		l = &Life{Phase: status.Pending, Reason: "NoPolicy"}
		n.rec.Lives[name] = l
	}
	r = n.own(name, r)
	n.suspect(r, name, o.Version, o.Checksum)
	l.found(r)
	l.unmanaged()
	e := n.errandOf(o)
	latest := e != nil && e.Sequence == o.Sequence
	// A result that names no order is of something that stood in the way of this one.
	again := r.Order == 0 || r.Outcome == install.Deferred || r.Outcome == install.RollbackFailed && r.Reason != install.ReasonNoWayBack
	switch {
	case again && !latest: // and a newer one comes next
		n.save(nil)
	case again:
		next := time.Now().Add(min(retryMost, retryFirst<<min(max(e.Tries-1, 0), 10)))
		if r.Next != nil && r.Next.After(time.Now()) {
			next = *r.Next
		}
		if most := time.Now().Add(mostNext); next.After(most) {
			next = most
		}
		r.Next = &next
		if e.wait(time.Now(), next, r.Reason) {
			n.reportOrder(name, o, r, false)
		}
		n.save(nil)
	case latest:
		e.Done = true
		fallthrough
	default:
		n.settled(name, l, o, r)
	}
	n.log.Info("order", "sequence", o.Sequence, "outcome", r.Outcome, "reason", r.Reason, "detail", r.Detail)
	n.reconcileBundles()
}

// settled: the order is carried out, or it never will be.
func (n *Node) settled(name string, l *Life, o *order.Order, r install.Result) {
	back := l.Installed == nil || l.Installed.Checksum != o.Checksum
	if r.Reason == install.ReasonCarriedOut && o.Kind == order.Rollback && back { // before we were started again
		r.Reason = install.ReasonOperator
	}
	r.Detail = strings.TrimSpace(fmt.Sprintf("order %d: %s\n%s", o.Sequence, o.Reason, r.Detail))
	mine := l.Target != nil && l.Target.Checksum == o.Checksum
	switch {
	case r.Outcome != install.Success:
		code := r.Code
		if code == "" {
			code = problem.InstallFailed
		}
		n.event(code, "the %s was not carried out: %s: %s", o, r.Reason, strings.ReplaceAll(r.Detail, "\n", "; "))
	case o.Kind == order.Rollback && mine && back:
		l.Phase, l.Reason, l.Code, l.Outcome, l.Next, l.Order = status.RolledBack, r.Reason, "", string(install.RolledBack), time.Time{}, o.Sequence
		l.note(r)
		n.lifeChanged(name, l, nil)
		return
	case o.Kind == order.Retry && mine && Final(l.Phase) && l.Phase != status.Installed:
		n.reportOrder(name, o, r, false)
		l.Phase, l.Reason, l.Code, l.Detail, l.Outcome, l.Next, l.Tries, l.Order = status.Pending, "OrderedAgain", "", "", "", time.Time{}, 0, 0
		n.lifeChanged(name, l, nil)
		return
	}
	n.reportOrder(name, o, r, o.Kind == order.Rollback)
	n.save(nil)
}

// reportOrder reports what became of an order apart from the life of its bundle; final: nothing more will.
func (n *Node) reportOrder(name string, o *order.Order, r install.Result, final bool) {
	n.rec.Report++
	body := status.ReportBody{Site: n.e.Site, Node: n.e.Node, Seq: n.rec.Report, Occurred: n.cfg.now().UTC(), Phase: status.Pending,
		Outcome: string(r.Outcome), Reason: r.Reason, Code: string(r.Code), Bundle: name, Version: o.Version, Checksum: o.Checksum, Order: o.Sequence,
		Detail: detailOf(r), Packages: r.Changes, Seconds: r.Seconds, Snapshot: r.Snapshot, Reboot: r.Reboot, Next: r.Next, Log: r.Log}
	if o.Kind == order.Rollback && r.Reason != install.ReasonCarriedOut {
		switch r.Outcome {
		case install.Success:
			body.Outcome = string(install.RolledBack)
		case install.RolledBack, install.InstallFailure: // to what was in force before: the release that was to go
			body.Outcome = string(install.RollbackFailed)
		case install.Deferred, install.VerificationFailure, install.RollbackFailed:
		}
	}
	if l := n.rec.Lives[name]; l != nil {
		body.Phase = l.Phase
		if t := l.Target; t != nil {
			body.Policy, body.Revision = t.Policy, t.Revision
		}
		if final {
			n.stub(&body, &r, l.Installed)
		}
	}
	n.file(body)
}

// standing says which orders wait, for the statement; "" when none does.
func (n *Node) standing() string {
	var out string
	for _, d := range n.duties() {
		e, o := d.e, d.h.o
		line := fmt.Sprintf("order %d: %s", o.Sequence, o)
		at := e.Next
		if !e.Opens.IsZero() {
			at = e.Opens
		}
		if e.Reason != "" {
			line += fmt.Sprintf(" waits: %s, until %s", e.Reason, at.UTC().Format(time.RFC3339))
		}
		if out != "" {
			out += "; "
		}
		out += line
	}
	return status.Clip(out, maxMessage)
}
