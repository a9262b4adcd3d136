package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// bid makes an order about a bundle.
func bid(b *installtest.Bundle, kind order.Kind, sequence uint64, change func(*order.Order)) *order.Order {
	o := &order.Order{Schema: order.Schema, Sequence: sequence, Created: order.Timestamp(installtest.Created), Kind: kind, Bundle: b.Name,
		Version: b.Manifest.Version, Checksum: b.Digest, Targets: order.Targets{Sites: []string{"s1"}, Nodes: []string{}, Labels: map[string]string{}}, Reason: "tills freeze"}
	if change != nil {
		change(o)
	}
	return o
}

func signed(t *testing.T, o *order.Order, k *signer.KeyFile) trust.Signed {
	t.Helper()
	doc, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return installtest.Sign(t, k, doc)
}

func obey(t *testing.T, b *installtest.Bench, o *order.Order) install.Result {
	t.Helper()
	return installer(b).Apply(t.Context(), install.NewOrderRequest(signed(t, o, b.Keys.Policy), b.Store))
}

// forget takes away what the executor remembers of orders, as if they had never been.
func forget(t *testing.T, b *installtest.Bench) {
	t.Helper()
	edit(t, b, func(l *ledger.Ledger) { l.Orders = nil })
}

// edit changes what the executor remembers.
func edit(t *testing.T, b *installtest.Bench, change func(*ledger.Ledger)) {
	t.Helper()
	name := filepath.Join(b.Config.State, "installed.json")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	change(l)
	if raw, err = l.Encode(); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, name, raw)
}

// A rollback that was ordered is carried out once: the release before is in force, what it replaced stays back until a
// retry is ordered, and each order that is sent again does nothing.
func TestOrders(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	want(t, apply(t, b, one, installtest.Want{}), "success 0 Installed Installed ")
	want(t, apply(t, b, two, installtest.Want{}), "success 0 Installed Installed ")

	back, again := bid(two, order.Rollback, 7, nil), bid(two, order.Retry, 8, nil)
	r := obey(t, b, back)
	want(t, r, "success 0 Installed RolledBackByOperator ")
	if r.Order != 7 || r.Installed == nil || r.Installed.Checksum != one.Digest {
		t.Errorf("%+v", r)
	}
	inForce(t, b, one, two)
	want(t, apply(t, b, two, installtest.Want{}), "rolled_back 4 RolledBack RolledBackByOperator ")
	want(t, obey(t, b, back), "success 0 Installed CarriedOutAlready ")

	want(t, obey(t, b, again), "success 0 Installed FailuresForgotten ")
	want(t, apply(t, b, two, installtest.Want{}), "success 0 Installed Installed ")
	inForce(t, b, two, one)

	// Sent again, both do nothing, whoever sends them.
	want(t, obey(t, b, back), "verification_failure 3 Quarantined OrderTooOld E2111")
	want(t, obey(t, b, again), "success 0 Installed CarriedOutAlready ")
	inForce(t, b, two, one)
	// The positive control: with the memory taken away the old order goes back once more.
	forget(t, b)
	want(t, obey(t, b, back), "success 0 Installed RolledBackByOperator ")
	inForce(t, b, one, two)
}

// An order acts on the release that it names and on no other.
func TestOrderNamesItsRelease(t *testing.T) {
	b := installtest.New(t, nil)
	one, two, three := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2)), b.Bundle(t, spec("3", 3))
	want(t, apply(t, b, one, installtest.Want{}), "success 0 Installed Installed ")

	// What is not in force yet is kept from coming into force; what is stays.
	r := obey(t, b, bid(two, order.Rollback, 5, nil))
	want(t, r, "success 0 RolledBack HeldBackByOperator ")
	inForce(t, b, one, two)
	want(t, apply(t, b, two, installtest.Want{}), "rolled_back 4 RolledBack RolledBackByOperator ")

	// A retry of another release leaves that as it is.
	want(t, obey(t, b, bid(three, order.Retry, 6, nil)), "success 0 Installed NothingToDo ")
	want(t, apply(t, b, two, installtest.Want{}), "rolled_back 4 RolledBack RolledBackByOperator ")

	// There is nothing before the first release: that is no deferral, since waiting would not help.
	want(t, obey(t, b, bid(one, order.Rollback, 7, nil)), "rollback_failed 5 Installed NothingToGoBackTo E5102")
	inForce(t, b, one)
}

// The executor believes nobody but the operator's key, and none of what the daemon found out.
func TestOrdersAreVerified(t *testing.T) {
	b := installtest.New(t, func(c *install.Config) {
		c.Site, c.Node, c.Labels = "s1", "n1", map[string]string{"role": "pos"}
	})
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	want(t, apply(t, b, one, installtest.Want{}), "success 0 Installed Installed ")
	want(t, apply(t, b, two, installtest.Want{}), "success 0 Installed Installed ")
	mine := bid(two, order.Rollback, 5, nil)
	for name, c := range map[string]struct {
		o    *order.Order
		key  *signer.KeyFile
		line string
	}{
		"a stranger's key": {mine, b.Keys.Stranger, "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"the release key":  {mine, b.Keys.Release, "verification_failure 3 Quarantined SignatureInvalid E2102"},
		"another site": {bid(two, order.Rollback, 5, func(o *order.Order) { o.Targets.Sites = []string{"s2"} }), b.Keys.Policy,
			"verification_failure 3 Quarantined NotSelected E1203"},
		"a neighbour": {bid(two, order.Rollback, 5, func(o *order.Order) { o.Targets.Nodes = []string{"n2"} }), b.Keys.Policy,
			"verification_failure 3 Quarantined NotSelected E1203"},
		"another role": {bid(two, order.Rollback, 5, func(o *order.Order) { o.Targets.Labels = map[string]string{"role": "kiosk"} }), b.Keys.Policy,
			"verification_failure 3 Quarantined NotSelected E1203"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, installer(b).Apply(t.Context(), install.NewOrderRequest(signed(t, c.o, c.key), b.Store)), c.line)
			inForce(t, b, two, one)
		})
	}
	want(t, obey(t, b, mine), "success 0 Installed RolledBackByOperator ") // the positive control
}

// A rollback that was cut off is carried on, and counts as carried out.
func TestOrderIsCutOff(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	want(t, apply(t, b, one, installtest.Want{}), "success 0 Installed Installed ")
	want(t, apply(t, b, two, installtest.Want{}), "success 0 Installed Installed ")
	for _, step := range []journal.Step{journal.Switch, journal.Commit} {
		o := bid(two, order.Rollback, 5, nil)
		tr := journal.Transaction{Schema: journal.Schema, Kind: journal.Rollback, Step: step, Attempt: 1, Order: o.Sequence, Old: two.Dir(),
			New: ledger.ReleaseOf(one.Manifest, one.Digest)}
		raw, err := tr.Encode()
		if err != nil {
			t.Fatal(err)
		}
		installtest.WriteFile(t, filepath.Join(b.Config.State, "journal.json"), raw)
		r := obey(t, b, o)
		want(t, r, "success 0 Installed CarriedOutAlready ")
		if !strings.Contains(r.Recovered, "RolledBackByOperator") || r.Installed == nil || r.Installed.Checksum != one.Digest {
			t.Errorf("%+v", r)
		}
		inForce(t, b, one, two)
		forget(t, b)
		want(t, obey(t, b, bid(two, order.Retry, 1, nil)), "success 0 Installed FailuresForgotten ")
		want(t, apply(t, b, two, installtest.Want{}), "success 0 Installed Installed ")
		forget(t, b)
	}
}

// A request holds an order or a bundle with its policy, and never a part of either.
func TestOrderStandsAlone(t *testing.T) {
	b := installtest.New(t, nil)
	two := b.Bundle(t, spec("2", 2))
	o := signed(t, bid(two, order.Rollback, 5, nil), b.Keys.Policy)
	mixed := b.Request(t, two, installtest.Want{})
	mixed.Order, mixed.OrderSignature = o.Doc, o.Sig
	bare := install.NewOrderRequest(trust.Signed{Doc: o.Doc}, b.Store)
	for name, r := range map[string]install.Request{"with a bundle": mixed, "without a signature": bare} {
		raw, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := install.ParseRequest(raw); err == nil {
			t.Errorf("an order %s was taken", name)
		}
	}
	raw, err := install.NewOrderRequest(o, b.Store).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install.ParseRequest(raw); err != nil {
		t.Error(err)
	}
}

// A release from quarantine is the daemon's affair: a daemon that hands one on does not get a rollback for it.
func TestReleaseIsNoRollback(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	for _, v := range []*installtest.Bundle{one, two} {
		want(t, apply(t, b, v, installtest.Want{}), done)
	}
	named := func(o *order.Order) { o.Targets.Nodes = []string{"n1"} }
	want(t, obey(t, b, bid(two, order.Release, 9, func(o *order.Order) { named(o); o.Quarantine = "00112233445566ff" })), "verification_failure 3 Quarantined NotSelected E1203")
	inForce(t, b, two, one)
	want(t, obey(t, b, bid(two, order.Rollback, 9, named)), "success 0 Installed RolledBackByOperator ") // the positive control
	inForce(t, b, one, two)
}
