package install_test

import (
	"math"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// delegated makes an order of the seeder under a revision of policy pos.
func delegated(b *installtest.Bundle, sequence, revision uint64, change func(*order.Order)) *order.Order {
	return bid(b, order.Rollback, sequence, func(o *order.Order) {
		o.Under = &order.Under{Policy: "pos", Revision: revision}
		if change != nil {
			change(o)
		}
	})
}

func named(o *order.Order) { o.Targets.Nodes = []string{"n1"} }

// The seeder's key sends a machine back only if the operator's policy for that very release says that it may, and never
// at once, never everybody, never to try again.
func TestDelegatedRollback(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	const refused = "verification_failure 3 Quarantined NotSelected E1203"
	says := func(word string) installtest.Want {
		return installtest.Want{Revision: 2, Spec: "  rolloutStrategy: {type: RollingUpdate, failureBudget: {max: \"2%\", onExceeded: " + word + "}}\n"}
	}
	want(t, apply(t, b, one, installtest.Want{}), "success 0 Installed Installed ")
	want(t, apply(t, b, two, installtest.Want{}), "success 0 Installed Installed ")
	back := func(change func(*order.Order)) install.Request {
		return install.NewOrderRequest(signed(t, delegated(two, 5, 2, change), b.Keys.Roster), b.Store)
	}
	with := func(r install.Request, p trust.Signed) install.Request { return r.WithPolicy(p) }
	may := b.Policy(t, two, says("Rollback"))
	foreign := says("Rollback")
	foreign.Key = b.Keys.Roster
	for name, c := range map[string]struct {
		r    install.Request
		line string
	}{
		"no policy":                 {back(named), refused},
		"one that says Pause":       {with(back(named), b.Policy(t, two, says("Pause"))), refused},
		"one for another release":   {with(back(named), b.Policy(t, one, says("Rollback"))), refused},
		"one without a rollout":     {with(back(named), b.Policy(t, two, installtest.Want{Revision: 2})), refused},
		"the seeder's own policy":   {with(back(named), b.Policy(t, two, foreign)), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"at once":                   {with(back(func(o *order.Order) { named(o); o.Now = true }), may), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"the whole site":            {with(back(nil), may), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"a retry":                   {with(back(func(o *order.Order) { named(o); o.Kind = order.Retry }), may), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"under no policy":           {with(back(func(o *order.Order) { named(o); o.Under = nil }), may), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"under another policy":      {with(back(func(o *order.Order) { named(o); o.Under.Policy = "till" }), may), refused},
		"under the revision before": {with(back(func(o *order.Order) { named(o); o.Under.Revision = 1 }), may), refused},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, installer(b).Apply(t.Context(), c.r), c.line)
			inForce(t, b, two, one)
		})
	}
	want(t, installer(b).Apply(t.Context(), with(back(named), may)), "success 0 Installed RolledBackByOperator ") // the positive control
	inForce(t, b, one, two)
}

// What number the seeder gives its orders bars no order of an operator: a person's order is carried out after it, and puts
// an end to those of the seeder that are older.
func TestDelegatedNumbersBarNobody(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	policy := func(revision uint64) installtest.Want {
		return installtest.Want{Revision: revision, Spec: "  rolloutStrategy: {type: RollingUpdate, failureBudget: {max: \"2%\", onExceeded: Rollback}}\n"}
	}
	sendBack := func(sequence, revision uint64) install.Result {
		t.Helper()
		o := signed(t, delegated(two, sequence, revision, named), b.Keys.Roster)
		return installer(b).Apply(t.Context(), install.NewOrderRequest(o, b.Store).WithPolicy(b.Policy(t, two, policy(revision))))
	}
	const back, tooOld, again = "success 0 Installed RolledBackByOperator ", "verification_failure 3 Quarantined OrderTooOld E2111", "success 0 Installed CarriedOutAlready "
	want(t, apply(t, b, one, installtest.Want{}), done)
	want(t, apply(t, b, two, installtest.Want{}), done)
	want(t, sendBack(math.MaxInt64, 2), back)
	inForce(t, b, one, two)

	want(t, obey(t, b, bid(two, order.Retry, 1000, nil)), "success 0 Installed FailuresForgotten ")
	want(t, apply(t, b, two, installtest.Want{Revision: 2}), done)
	want(t, sendBack(math.MaxInt64, 2), again)
	want(t, sendBack(999, 2), tooOld)
	inForce(t, b, two, one)

	// The next revision of the policy counts anew, and the operator's order is older than this one.
	want(t, sendBack(1000, 3), tooOld)
	want(t, sendBack(1001, 3), back)
	inForce(t, b, one, two)
	want(t, obey(t, b, bid(two, order.Retry, 1002, nil)), "success 0 Installed FailuresForgotten ")
	want(t, apply(t, b, two, installtest.Want{Revision: 3}), done)
	want(t, sendBack(math.MaxInt64, 2), "verification_failure 3 Quarantined SequenceTooOld E2106") // the revision is over
	inForce(t, b, two, one)

	// The positive control: with one floor for both, as the seeder's number in the operators' makes it, no person's order
	// would be carried out any more.
	edit(t, b, func(l *ledger.Ledger) { l.Orders["pos"] = math.MaxInt64 })
	want(t, obey(t, b, bid(two, order.Rollback, 1003, nil)), tooOld)
	inForce(t, b, two, one)
}
