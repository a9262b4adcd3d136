package install_test

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// floorBench is a machine with the first release in force, in a window in which the second one is granted.
type floorBench struct {
	*installtest.Bench
	t        *testing.T
	one, two *installtest.Bundle
}

var floorOpens = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)

const floorSpec = "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: UTC}\n  rolloutStrategy: {type: RollingUpdate, batchSize: 10}\n"

func newFloorBench(t *testing.T) *floorBench {
	b := &floorBench{Bench: installtest.New(t, nil), t: t}
	b.one, b.two = b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	want(t, apply(t, b.Bench, b.one, installtest.Want{}), done)
	return b
}

// grant is a grant of site s1 for the second release.
func (b *floorBench) grant(serial, revision uint64, change func(*grant.Grant)) trust.Signed {
	b.t.Helper()
	g := &grant.Grant{Schema: grant.Schema, Serial: serial, Created: grant.Timestamp(installtest.Created), Site: "s1", Policy: "pos", Revision: revision, Bundle: "pos",
		Version: b.two.Version, Checksum: b.two.Digest, Opens: grant.Timestamp(floorOpens), Expires: grant.Timestamp(floorOpens.Add(2 * time.Hour)),
		Starts: []grant.Start{{Node: "n1", After: grant.Timestamp(floorOpens)}}, MaxUnavailable: 1, Deadline: 60}
	if change != nil {
		change(g)
	}
	return installtest.Sign(b.t, b.Keys.Roster, encoded(b.t, g))
}

func halted(g *grant.Grant) { g.Halted = "paused by alice" }

func (b *floorBench) policy(revision uint64) trust.Signed {
	return b.Policy(b.t, b.two, installtest.Want{Revision: revision, Spec: floorSpec})
}

// ask applies a request in the middle of the window.
func (b *floorBench) ask(r install.Request) install.Result {
	b.t.Helper()
	in := installer(b.Bench)
	in.Now = func() time.Time { return floorOpens.Add(time.Hour) }
	return in.Apply(b.t.Context(), r)
}

// start asks for the second release by a grant.
func (b *floorBench) start(revision uint64, g trust.Signed) install.Result {
	b.t.Helper()
	return b.ask(install.NewRequest(b.two.Docs, b.policy(revision), b.Store).WithGrant(g))
}

const paused, missing, noted = "deferred 1 Deferred Paused ", "deferred 1 Deferred LeaseMissing ", "success 0 Installed Noted "

// A daemon that was taken over shows the grant from before a pause: the executor remembers that it has seen a newer one.
func TestOldGrantIsNotFollowed(t *testing.T) {
	b := newFloorBench(t)
	before := b.grant(5, 2, nil)
	want(t, b.start(2, b.grant(6, 2, halted)), paused)
	r := b.start(2, before)
	want(t, r, missing)
	if !strings.Contains(r.Detail, "grant 5 for revision 2 of policy pos is older than grant 6") || !strings.Contains(r.Detail, "a new revision of the policy") {
		t.Error(r.Detail)
	}
	inForce(t, b.Bench, b.one, b.two)
	want(t, b.start(2, b.grant(6, 2, halted)), paused) // the newest may be shown again

	// The positive control: with nothing remembered the old grant starts it.
	edit(t, b.Bench, func(l *ledger.Ledger) { l.Grants = nil })
	want(t, b.start(2, before), done)
	inForce(t, b.Bench, b.two, b.one)
}

// The floor is that of one site, one policy and one revision, as far as it holds grants back; a newer grant, and any
// grant for a newer revision, is followed whatever numbers were seen before.
func TestFloorOfGrants(t *testing.T) {
	for name, c := range map[string]struct {
		seen     func(b *floorBench) install.Result
		revision uint64
		shown    func(b *floorBench) trust.Signed
		want     string
	}{
		"newer": {func(b *floorBench) install.Result { return b.start(2, b.grant(6, 2, halted)) }, 2, func(b *floorBench) trust.Signed { return b.grant(7, 2, nil) }, done},
		"of another site": {func(b *floorBench) install.Result {
			return b.start(2, b.grant(6, 2, func(g *grant.Grant) { halted(g); g.Site = "s2" }))
		}, 2, func(b *floorBench) trust.Signed { return b.grant(5, 2, nil) }, done},
		"for a newer revision": {func(b *floorBench) install.Result { return b.start(2, b.grant(1<<62, 2, halted)) }, 3,
			func(b *floorBench) trust.Signed { return b.grant(5, 3, nil) }, done},
		"for an older revision": {func(b *floorBench) install.Result { return b.start(3, b.grant(5, 3, halted)) }, 2,
			func(b *floorBench) trust.Signed { return b.grant(6, 2, nil) }, missing},
		"signed by somebody": {func(b *floorBench) install.Result {
			g := b.grant(6, 2, halted)
			return b.start(2, installtest.Sign(t, b.Keys.Stranger, g.Doc))
		}, 2, func(b *floorBench) trust.Signed { return b.grant(5, 2, nil) }, done},
		"of another policy": {func(b *floorBench) install.Result {
			return b.start(2, b.grant(6, 2, func(g *grant.Grant) { halted(g); g.Policy = "till" }))
		}, 2, func(b *floorBench) trust.Signed { return b.grant(5, 2, nil) }, done},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFloorBench(t)
			if r := c.seen(b); r.Outcome != install.Deferred {
				t.Fatalf("%+v", r)
			}
			want(t, b.start(c.revision, c.shown(b)), c.want)
		})
	}
}

// A notice makes the executor forget what was granted before, and does nothing else; what is not genuine makes it forget
// nothing.
func TestNotice(t *testing.T) {
	notice := func(b *floorBench, revision uint64, g *trust.Signed) install.Request {
		r := install.NewNotice(b.policy(revision), b.Store)
		if g != nil {
			r = r.WithGrant(*g)
		}
		raw, err := r.Encode()
		if err != nil {
			b.t.Fatal(err)
		}
		if r, err = install.ParseRequest(raw); err != nil {
			b.t.Fatal(err)
		}
		return r
	}
	const tooOld = "verification_failure 3 Quarantined SequenceTooOld E2106"
	for name, c := range map[string]struct {
		notice  func(b *floorBench) install.Request
		said    string
		started string // of the grant from before, then
	}{
		"of a pause":                        {func(b *floorBench) install.Request { g := b.grant(6, 2, halted); return notice(b, 2, &g) }, noted, missing},
		"of a newer revision":               {func(b *floorBench) install.Request { return notice(b, 3, nil) }, noted, tooOld},
		"of an older revision":              {func(b *floorBench) install.Request { return notice(b, 1, nil) }, noted, done},
		"of a grant under another revision": {func(b *floorBench) install.Request { g := b.grant(6, 2, halted); return notice(b, 3, &g) }, missing, done},
		"of a grant of somebody": {func(b *floorBench) install.Request {
			g := installtest.Sign(t, b.Keys.Stranger, b.grant(6, 2, halted).Doc)
			return notice(b, 2, &g)
		}, "verification_failure 3 Quarantined SignatureInvalid E2102", done},
		"of a policy of somebody": {func(b *floorBench) install.Request {
			return install.NewNotice(b.Policy(t, b.two, installtest.Want{Revision: 3, Key: b.Keys.Roster}), b.Store)
		}, "verification_failure 3 Quarantined SignatureInvalid E2102", done},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFloorBench(t)
			want(t, b.ask(c.notice(b)), c.said)
			inForce(t, b.Bench, b.one, b.two)
			want(t, b.start(2, b.grant(5, 2, nil)), c.started)
		})
	}
}
