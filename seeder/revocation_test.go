package seeder

import (
	"slices"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// lineOf is the line by which a bundle is revoked.
func lineOf(x *chunker.Bundle) revocation.Bundle {
	return revocation.Bundle{Bundle: x.Manifest.Name, Version: x.Manifest.Version, Checksum: x.Digest, Revoked: revocation.Timestamp(time.Now()), Reason: "tills freeze"}
}

// list is a signed list: those in force and more.
func (b *bed) list(k *signer.KeyFile, more ...*chunker.Bundle) trust.Signed {
	b.t.Helper()
	l := b.revocations.inForce().list
	for _, x := range more {
		l = l.Add(lineOf(x), time.Now())
	}
	return b.sign(l, k)
}

// Which lists are taken; the one in force is on the board of every site, also of one without any policy, and after a
// restart.
func TestRevocationsReachEverySite(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	one, two := b.bundle("1.0", 1, b.release), b.bundle("2.0", 2, b.release)
	if got, err := b.admin.Revocations(t.Context()); err != nil || got.Sequence != 0 || len(got.Bundles) != 0 || got.Document != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	first := b.list(b.operator, one)
	ahead := (*revocation.List)(nil).Add(lineOf(one), time.Now().Add(47*time.Hour))
	for _, c := range []struct {
		what string
		s    trust.Signed
		code problem.Code
	}{
		{"a stranger's key", b.list(key(t), one), problem.SignatureInvalid},
		{"the key of releases", b.list(b.release, one), problem.SignatureInvalid},
		{"made in two days", b.sign(ahead, b.operator), problem.InvalidRevocation},
		{"the first", first, ""},
		{"the same again", first, ""},
		{"made without knowing it", b.sign((*revocation.List)(nil).Add(lineOf(two), time.Now().Add(time.Minute)), b.operator), problem.ChangedMeanwhile},
		{"no newer", b.sign((*revocation.List)(nil).Add(lineOf(two), time.Now().Add(-time.Minute)), b.operator), problem.ChangedMeanwhile},
	} {
		_, err := b.admin.PutRevocations(t.Context(), c.s)
		if c.code == "" && err != nil {
			t.Errorf("%s: %v", c.what, err)
		} else if c.code != "" {
			wantCode(t, c.what, err, c.code)
		}
	}
	for range 2 {
		board := b.boards.site("s1")
		i := slices.IndexFunc(board.entries, func(e wire.DocEntry) bool { return e.Kind == wire.DocRevocations })
		if i < 0 {
			t.Fatal("no list on the board")
		}
		d := board.docs[board.entries[i].Digest]
		l, err := revocation.Open(&b.set, trust.Signed{Doc: d.Doc, Sig: d.Sig}, b.trustedNow())
		if err != nil || l.Find(one.Digest) == nil || l.Sequence != board.entries[i].Revision {
			t.Errorf("%+v, %v", l, err)
		}
		b.stop()
		b.run()
	}
}

// What a revocation does: the rollout stops at once and no person lets it go on, no policy may name the bundle, plans and
// lists say so, and a node that runs it is shown, whether it has heard of it or not. The control is what was before it.
func TestRevokedEverywhere(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	for _, name := range []string{"a", "b"} {
		b.join("s1", name, api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	}
	one, two := b.bundle("1.0", 1, b.release), b.bundle("2.0", 2, b.release)
	b.push(one, -1)
	b.push(two, -1)
	b.rolling(two, 1, `batchSize: 1, batchDelayMinutes: 0`)
	g := b.granted("s1")
	if g == nil || len(g.Starts) == 0 {
		t.Fatalf("control: no grant before: %+v", g)
	}
	b.says("s1", "a", two, status.Installed)
	n, _ := b.members.named("s1", "a")
	was, _ := b.presence.get(n.PeerID)
	was.Node.Seq++
	was.Node.Installed = []status.InstalledItem{{Bundle: "app", Version: "2.0", Sequence: 2, Checksum: two.Digest}}
	b.presence.said(n.PeerID, was.Node, b.now())
	before := b.events.newest()

	got, err := b.admin.PutRevocations(t.Context(), b.list(b.operator, two))
	if err != nil || len(got.Bundles) != 1 || got.Bundles[0].Running != 1 || !slices.Equal(got.Bundles[0].Policies, []string{"pos"}) || got.Bundles[0].Recorded.IsZero() {
		t.Fatalf("%+v, %v", got, err)
	}
	if h := b.granted("s1"); h.Halted == "" || len(h.Starts) != 0 || h.Serial <= g.Serial {
		t.Errorf("the grant goes on: %+v", h)
	}
	if r, err := b.admin.Rollout(t.Context(), "pos"); err != nil || r.State != string(api.RolloutPaused) || r.Reason != "the bundle is revoked: tills freeze" {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = b.admin.ResumeRollout(t.Context(), "pos", api.RolloutChange{Reason: "it is fine"})
	wantCode(t, "resume", err, problem.BundleRevoked)
	var told []string
	events, _, _ := b.events.since(before, 100)
	for _, e := range events {
		if e.Severity == "critical" {
			told = append(told, e.Kind+" "+e.Name)
		}
	}
	if !slices.Equal(told, []string{"bundle revoked", "rollout paused"}) {
		t.Errorf("events: %v", told)
	}

	_, err = b.admin.PutPolicy(t.Context(), b.policy(two, 2, two.Digest, b.operator))
	wantCode(t, "a policy that names it", err, problem.BundleRevoked)
	would, err := b.admin.Plan(t.Context(), api.PlanRequest{Policies: []api.PlanFile{{File: "new.yaml", Text: policyText("new", two, two.Digest, "  targets: {selector: {matchLabels: {role: pos}}}\n")}}})
	if err != nil || len(would.Changes) != 1 || !would.Changes[0].Revoked || !slices.ContainsFunc(would.Warnings, func(w plan.Warning) bool { return w.Error && w.Code == string(problem.BundleRevoked) }) {
		t.Errorf("%+v, %v", would, err)
	}
	infos, err := b.admin.Bundles(t.Context())
	if err != nil || len(infos) != 2 || infos[0].Revoked != "tills freeze" || infos[1].Revoked != "" {
		t.Errorf("%+v, %v", infos, err)
	}
	site, err := b.admin.Site(t.Context(), "s1")
	if err != nil || site.Nodes[0].Installed[0].Revoked != "tills freeze" || len(site.Nodes[0].Alarms) != 1 || site.Nodes[0].Alarms[0].Code != "E2113" || len(site.Nodes[1].Alarms) != 0 {
		t.Errorf("%+v, %v", site.Nodes, err)
	}
	if x, _ := b.presence.get(n.PeerID); x.Node.Installed[0].Revoked != "" || len(x.Node.Alarms) != 0 {
		t.Errorf("what the node said was changed: %+v", x.Node)
	}

	// Another bundle is the way out, older ones included where the policy says that.
	text := policyText("pos", one, one.Digest, "  targets: {selector: {matchLabels: {role: pos}}}\n  allowDowngrade: true\n  rolloutStrategy: {type: RollingUpdate, batchSize: 1}\n")
	if _, err := b.admin.PutPolicy(t.Context(), b.signed(text, 2, b.operator)); err != nil {
		t.Fatal(err)
	}
	b.look()
	if r, err := b.admin.Rollout(t.Context(), "pos"); err != nil || r.Revision != 2 || r.State == string(api.RolloutPaused) {
		t.Errorf("%+v, %v", r, err)
	}
}

// A commit that names a revoked bundle, by a revert too, is not in force: the last good one stays. A commit that leaves a
// policy as it is goes on, or a revocation would hold up everything else in the repository.
func TestRevokedInGit(t *testing.T) {
	g := startGit(t)
	one, two := g.bundle("1.0", 1, g.release), g.bundle("2.0", 2, g.release)
	g.push(one, -1)
	g.push(two, -1)
	first := g.r.Commit(g.key, "one", map[string]string{"policies/pos.yaml": text("pos", one, "")})
	g.taken("one", first)
	second := g.r.Commit(g.key, "two", map[string]string{"policies/pos.yaml": text("pos", two, "")})
	g.taken("two", second)
	revoke := func(x *chunker.Bundle) {
		t.Helper()
		doc, err := g.revocations.inForce().list.Add(lineOf(x), time.Now()).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.admin.PutRevocations(t.Context(), trust.Signed{Doc: doc, Sig: g.r.Home.Sign(time.Now().Add(-time.Minute), g.key, doc)}); err != nil {
			t.Fatal(err)
		}
	}
	revoke(one)
	g.r.Revert(g.key, second)
	g.refused("a revert to it", second, problem.BundleRevoked, "tills freeze")
	third := g.r.Commit(g.key, "two again", map[string]string{"policies/pos.yaml": text("pos", two, "")})
	g.taken("put right", third)

	revoke(two)
	fourth := g.r.Commit(g.key, "a site", map[string]string{"sites/s1.yaml": "name: s1\n"})
	g.taken("nothing of the policy", fourth)
	g.r.Commit(g.key, "suspend", map[string]string{"policies/pos.yaml": text("pos", two, "  priority: 7\n")})
	g.refused("the policy changed, and still names it", fourth, problem.BundleRevoked, "2.0")
	if got := g.inForce(); got != "pos=2.0" {
		t.Errorf("in force: %s", got)
	}
}

// Whether a row of compliance says revoked follows from when the bundle was revoked, and since when that was known.
func TestRevokedAsOf(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	bad, fine := manifest.DigestOf([]byte("bad")), manifest.DigestOf([]byte("fine"))
	l := recalled{lines: map[manifest.Digest]recordedLine{bad: {revocation.Bundle{Checksum: bad, Revoked: revocation.Timestamp(day(5))}, day(6)}}}
	for _, c := range []struct {
		what          string
		d             *manifest.Digest
		asOf, knownAt int
		want          bool
	}{
		{"before", &bad, 4, 20, false}, {"after", &bad, 5, 20, true}, {"after, not known yet", &bad, 5, 5, false}, {"the day it was known", &bad, 5, 6, true},
		{"another bundle", &fine, 10, 20, false}, {"nothing in force", nil, 10, 20, false},
	} {
		if got := l.revoked(c.d, day(c.asOf), day(c.knownAt)); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
