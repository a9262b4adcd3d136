package install_test

import (
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/trust"
)

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
	named := func(o *order.Order) { o.Targets.Nodes = []string{"n1"} }
	back := func(change func(*order.Order)) install.Request {
		return install.NewOrderRequest(signed(t, bid(two, order.Rollback, 5, change), b.Keys.Roster), b.Store)
	}
	with := func(r install.Request, p trust.Signed) install.Request { return r.WithPolicy(p) }
	may := b.Policy(t, two, says("Rollback"))
	foreign := says("Rollback")
	foreign.Key = b.Keys.Roster
	for name, c := range map[string]struct {
		r    install.Request
		line string
	}{
		"no policy":               {back(named), refused},
		"one that says Pause":     {with(back(named), b.Policy(t, two, says("Pause"))), refused},
		"one for another release": {with(back(named), b.Policy(t, one, says("Rollback"))), refused},
		"one without a rollout":   {with(back(named), b.Policy(t, two, installtest.Want{Revision: 2})), refused},
		"the seeder's own policy": {with(back(named), b.Policy(t, two, foreign)), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"at once":                 {with(back(func(o *order.Order) { named(o); o.Now = true }), may), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"the whole site":          {with(back(nil), may), "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"a retry": {with(install.NewOrderRequest(signed(t, bid(two, order.Retry, 5, named), b.Keys.Roster), b.Store), may),
			"verification_failure 3 Quarantined SignatureInvalid E2102"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, installer(b).Apply(t.Context(), c.r), c.line)
			inForce(t, b, two, one)
		})
	}
	want(t, installer(b).Apply(t.Context(), with(back(named), may)), "success 0 Installed RolledBackByOperator ") // the positive control
	inForce(t, b, one, two)
}
