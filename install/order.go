package install

import (
	"context"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// ordered carries out an operator's order. Nothing of what the daemon found out about it is believed: signature,
// addressee and sequence are looked at here. What is remembered of it is written together with what it brings about, so
// that it is carried out once whatever happens in between.
func (s *session) ordered(ctx context.Context, r Request) Result {
	set, err := readTrust(s.Config.Trust)
	if err != nil {
		return s.refuse(err)
	}
	o, err := s.openOrder(set, r)
	if err != nil {
		return s.refuse(err)
	}
	return s.signedBy(o, s.obey(ctx, o))
}

// openOrder verifies the order of a request: an operator's, or the seeder's if the policy that came with it, which is no
// older than one that this machine has acted on, lets the seeder give it.
func (s *session) openOrder(set *trust.Set, r Request) (*order.Order, error) {
	signed, at := trust.Signed{Doc: r.Order, Sig: r.OrderSignature}, trust.Floor(s.Built, s.ledger.Time)
	o, err := order.Open(set, signed, at)
	if err == nil {
		return o, nil
	}
	o, delegated := order.OpenDelegated(set, signed, at)
	if delegated != nil {
		return nil, err
	}
	if len(r.Policy) == 0 {
		return nil, order.Delegated(o, 0, nil)
	}
	d, p, err := policy.Open(set, trust.Signed{Doc: r.Policy, Sig: r.PolicySignature}, at)
	if err != nil {
		return nil, err
	}
	if err := s.ledger.AdmitPolicy(d.Name, d.Revision); err != nil {
		return nil, err
	}
	if p != nil && len(s.Config.Labels) > 0 && !p.Matches(s.Config.Labels) {
		p = nil
	}
	return o, order.Delegated(o, d.Revision, p)
}

// obey goes on with an order whose signature is right.
func (s *session) obey(ctx context.Context, o *order.Order) Result {
	if !s.Config.addressee(o.Targets) {
		return s.refuse(problem.New(problem.Denied, "order %d, %s, is not for this machine", o.Sequence, o).WithDone("nothing was changed"))
	}
	if o.Kind == order.Release { // the daemon's own affair: here it would look like a rollback
		return s.refuse(problem.New(problem.Denied, "order %d, %s, is not for the executor", o.Sequence, o).WithDone("nothing was changed"))
	}
	done, err := s.admitOrder(o)
	if err != nil {
		return s.refuse(err)
	}
	if done { // by the run before this one, which was cut off before it could say so
		return newResult(Success, ExitDone, status.Installed, ReasonCarriedOut)
	}
	b := s.ledger.Bundle(o.Bundle)
	switch {
	case o.Kind == order.Retry:
		return s.forgive(o)
	case b.Current == nil || b.Current.Checksum != o.Checksum:
		return s.holdBack(o)
	}
	r := s.rollback(ctx, o.Bundle, o)
	switch r.Code { // and there never will be: a deferral would wait for ever
	case problem.NotFound:
		r.Outcome, r.Exit, r.Phase, r.Reason, r.Code = RollbackFailed, ExitRollbackFailed, status.Installed, ReasonNoWayBack, problem.RollbackFailed
	case problem.BundleRevoked:
		r.Outcome, r.Exit, r.Phase, r.Reason = RollbackFailed, ExitRollbackFailed, status.Installed, ReasonNoWayBack
	}
	return r
}

// admitOrder compares an order with what was carried out before; done: it is the last one that was.
func (s *session) admitOrder(o *order.Order) (done bool, err error) {
	last := s.ledger.Orders[o.Bundle]
	if o.Under == nil {
		if o.Sequence == last {
			return true, nil
		}
		return false, order.Admit(last, o)
	}
	mark := s.ledger.Delegated[o.Under.Policy]
	if o.Mark() == mark {
		return true, nil
	}
	return false, order.AdmitDelegated(mark, last, o)
}

// under fills in by which order a transaction is made; nil: by a person on this machine.
func under(t journal.Transaction, o *order.Order) journal.Transaction {
	if o == nil {
		return t
	}
	t.Order = o.Sequence
	if u := o.Under; u != nil {
		t.Policy, t.Revision = u.Policy, u.Revision
	}
	return t
}

// carryOut writes down that an order was carried out.
func carryOut(l *ledger.Ledger, o *order.Order) bool {
	t := under(journal.Transaction{}, o)
	return l.CarryOut(o.Bundle, t.Order, t.Policy, t.Revision)
}

// forgive lets a release that failed or was rolled back be tried again.
func (s *session) forgive(o *order.Order) Result {
	r := newResult(Success, ExitDone, status.Installed, ReasonNothingToDo)
	err := s.change(func(l *ledger.Ledger) bool {
		if t := l.Bundle(o.Bundle).Trial; t != nil && t.Checksum == o.Checksum {
			l.Forget(o.Bundle)
			r.Reason = ReasonForgotten
		}
		return carryOut(l, o)
	})
	if err != nil {
		return s.refuse(err)
	}
	return r
}

// holdBack keeps a release that is to be rolled back, and is not in force, from coming into force. A release that is
// held for another reason is no less held.
func (s *session) holdBack(o *order.Order) Result {
	err := s.change(func(l *ledger.Ledger) bool {
		l.Hold(o.Bundle, o.Checksum, ReasonOperator)
		return carryOut(l, o)
	})
	if err != nil {
		return s.refuse(err)
	}
	return newResult(Success, ExitDone, status.RolledBack, ReasonHeldBack)
}

// signedBy fills in which order the result is about.
func (s *session) signedBy(o *order.Order, r Result) Result {
	r.Order = o.Sequence
	if r.Bundle == "" {
		r.Bundle, r.Version, r.Checksum = o.Bundle, o.Version, &o.Checksum
	}
	return r
}

// addressee reports whether the machine is among the targets. What its configuration does not say of it is known to the
// daemon only, and is taken to fit.
func (c Config) addressee(t order.Targets) bool {
	site, node, labels := c.Site, c.Node, c.Labels
	if site == "" && len(t.Sites) > 0 {
		site = t.Sites[0]
	}
	if node == "" && len(t.Nodes) > 0 {
		node = t.Nodes[0]
	}
	if len(labels) == 0 {
		labels = t.Labels
	}
	return t.Names(site, node, labels)
}
