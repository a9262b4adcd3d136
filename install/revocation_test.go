package install_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// withdrawn is a list that revokes bundles, made hours after the bench.
func withdrawn(t *testing.T, k *signer.KeyFile, hours int, bundles ...*installtest.Bundle) trust.Signed {
	t.Helper()
	at := installtest.Created.Add(time.Duration(hours) * time.Hour)
	l := &revocation.List{Schema: revocation.Schema, Sequence: uint64(at.Unix()), Created: revocation.Timestamp(at), Bundles: []revocation.Bundle{}}
	for _, b := range bundles {
		l = l.Add(revocation.Bundle{Bundle: b.Name, Version: b.Manifest.Version, Checksum: b.Digest, Revoked: revocation.Timestamp(at), Reason: "tills freeze"}, at)
	}
	doc, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return installtest.Sign(t, k, doc)
}

const refusedRevoked = "deferred 1 Deferred BundleRevoked E2113"

// A revoked bundle is not installed, by the executor's own word: also when the daemon withholds the list afterwards, or
// brings an older one, or one that is not genuine. What it never heard of it cannot know: that is the control.
func TestRevokedIsNotInstalled(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	want(t, apply(t, b, one, installtest.Want{}), done)
	ask := func(l trust.Signed) install.Result {
		return installer(b).Apply(t.Context(), b.Request(t, two, installtest.Want{Revision: 2}).WithRevocations(l))
	}
	list, older := withdrawn(t, b.Keys.Policy, 2, two), withdrawn(t, b.Keys.Policy, 1)
	want(t, ask(list), refusedRevoked)
	want(t, ask(trust.Signed{}), refusedRevoked)
	want(t, ask(older), refusedRevoked)
	want(t, ask(withdrawn(t, b.Keys.Stranger, 3)), refusedRevoked)
	want(t, ask(withdrawn(t, b.Keys.Policy, 3)), refusedRevoked) // newer, and made without knowing: it does not bring the bundle back
	inForce(t, b, one, two)

	// The control: without what was written down, the older list and one of a stranger's let it in.
	known := filepath.Join(b.Config.State, "revoked.json")
	if err := os.Remove(known); err != nil {
		t.Fatal(err)
	}
	want(t, ask(withdrawn(t, b.Keys.Release, 9, two)), done)
	inForce(t, b, two, one)

	// A node that runs it goes on: there is nothing to do, and nothing is ripped out.
	want(t, ask(list), "success 0 Installed NothingToDo ")
	inForce(t, b, two, one)
}

// Nobody's word goes back to a revoked bundle: not an order's, not a person's on the machine, not a policy's that allows
// a downgrade. Away from one is allowed, and a failed health check restores what was there.
func TestRevokedIsNotGoneBackTo(t *testing.T) {
	b := installtest.New(t, nil)
	one, two, three := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2)), b.Bundle(t, spec("3", 3))
	for _, v := range []*installtest.Bundle{one, two} {
		want(t, apply(t, b, v, installtest.Want{}), done)
	}
	list := withdrawn(t, b.Keys.Policy, 2, one)
	back := install.NewOrderRequest(signed(t, bid(two, order.Rollback, 5, nil), b.Keys.Policy), b.Store)
	want(t, installer(b).Apply(t.Context(), back.WithRevocations(list)), "rollback_failed 5 Installed NothingToGoBackTo E2113")
	want(t, installer(b).Rollback(t.Context(), "pos"), refusedRevoked)
	want(t, installer(b).Apply(t.Context(), b.Request(t, one, installtest.Want{Revision: 3, Spec: "  allowDowngrade: true\n"})), refusedRevoked)
	inForce(t, b, two, one)

	// A bundle that fails its health check on a machine that runs a revoked one: the machine is put back to that.
	want(t, installer(b).Apply(t.Context(), b.Request(t, three, installtest.Want{Revision: 4, URL: "http://127.0.0.1:1/", Timeout: 1}).WithRevocations(withdrawn(t, b.Keys.Policy, 3, one, two))),
		"rolled_back 4 RolledBack HealthCheck E5103")
	inForce(t, b, two, one, three)

	// The control: with the memory taken away the same order goes back.
	if err := os.Remove(filepath.Join(b.Config.State, "revoked.json")); err != nil {
		t.Fatal(err)
	}
	want(t, installer(b).Apply(t.Context(), back), "success 0 Installed RolledBackByOperator ")
	inForce(t, b, one, two)
}

// What is known of revoked bundles is on disk before the request is acted upon, in one piece. Where it cannot be read,
// nothing new is started until the daemon brings the signed list.
func TestRevokedIsDamaged(t *testing.T) {
	b := installtest.New(t, nil)
	one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	want(t, apply(t, b, one, installtest.Want{}), done)
	name := filepath.Join(b.Config.State, "revoked.json")
	if err := os.Mkdir(name, 0o755); err != nil { // cannot be replaced: nothing can be written down
		t.Fatal(err)
	}
	ask := b.Request(t, two, installtest.Want{})
	if r := installer(b).Apply(t.Context(), ask.WithRevocations(withdrawn(t, b.Keys.Policy, 2))); r.Outcome != install.Deferred {
		t.Errorf("not on disk, and yet: %+v", r)
	}
	inForce(t, b, one, two)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, name, []byte("{"))
	want(t, installer(b).Apply(t.Context(), ask), "deferred 1 Deferred StateDamaged E4103")
	want(t, installer(b).Rollback(t.Context(), "pos"), "deferred 1 Deferred NotFound E1204") // nothing to go back to is said first
	want(t, installer(b).Apply(t.Context(), ask.WithRevocations(withdrawn(t, b.Keys.Policy, 2))), done)
	inForce(t, b, two, one)
}

// A list comes with its signature.
func TestRevocationsInRequest(t *testing.T) {
	b := installtest.New(t, nil)
	r := b.Request(t, b.Bundle(t, spec("1", 1)), installtest.Want{}).WithRevocations(withdrawn(t, b.Keys.Policy, 1))
	for _, c := range []struct {
		sig []byte
		ok  bool
	}{{r.RevocationsSignature, true}, {nil, false}} {
		r.RevocationsSignature = c.sig
		raw, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := install.ParseRequest(raw); (err == nil) != c.ok {
			t.Errorf("signature of %d bytes: %v", len(c.sig), err)
		}
	}
}

// Of packages too: the snapshot of a state in which a revoked bundle ran is not put back by anybody's word, nor is that
// bundle installed as a downgrade.
func TestRevokedPackagesAreNotGoneBackTo(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, pair("1.0-1")...)
		two, three := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")}), p.bundle("3", 3, managertest.Spec{Packages: pair("3.0-1")})
		want(t, p.apply(two), done)
		want(t, p.apply(three), done)
		again := p.Request(t, three, installtest.Want{Revision: p.rev}).WithRevocations(withdrawn(t, p.Keys.Policy, 2, two))
		want(t, p.installer().Apply(t.Context(), again), nothing)
		want(t, p.installer().Rollback(t.Context(), "os"), refusedRevoked)
		if got := p.version("demo"); got != "3.0-1" {
			t.Errorf("demo %s", got)
		}
		p.clean()
		if err := os.Remove(filepath.Join(p.Config.State, "revoked.json")); err != nil { // the control
			t.Fatal(err)
		}
		want(t, p.installer().Rollback(t.Context(), "os"), "success 0 Installed RolledBackByOperator ")
		if got := p.version("demo"); got != "2.0-1" {
			t.Errorf("demo %s", got)
		}
	})
}

// Whatever the daemon asks for, the list that comes with it is written down: a daemon that is taken over afterwards cannot withhold
// any more what one in order has handed over while there was nothing to install.
func TestRevokedIsLearntFromEveryRequest(t *testing.T) {
	for name, ask := range map[string]func(b *installtest.Bench, two *installtest.Bundle) install.Request{
		"notice": func(b *installtest.Bench, two *installtest.Bundle) install.Request {
			return install.NewNotice(b.Policy(t, two, installtest.Want{Revision: 2}), b.Store)
		},
		"audit": func(b *installtest.Bench, two *installtest.Bundle) install.Request {
			return install.NewAuditRequest(install.Request{}, b.Store)
		},
		"order of a stranger": func(b *installtest.Bench, two *installtest.Bundle) install.Request {
			return install.NewOrderRequest(signed(t, bid(two, order.Rollback, 5, nil), b.Keys.Stranger), b.Store)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, told := range []bool{true, false} { // not told: the control
				b := installtest.New(t, nil)
				one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
				want(t, apply(t, b, one, installtest.Want{}), done)
				r := ask(b, two)
				if told {
					r = r.WithRevocations(withdrawn(t, b.Keys.Policy, 2, two))
				}
				installer(b).Apply(t.Context(), r)
				after := installer(b).Apply(t.Context(), b.Request(t, two, installtest.Want{Revision: 2}))
				if told {
					want(t, after, refusedRevoked)
				} else {
					want(t, after, done)
				}
			}
		})
	}
}
