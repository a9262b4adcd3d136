package seeder

import (
	"fmt"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// rolling signs a policy with a rollout; strategy is more of it.
func (b *bed) rolling(x *chunker.Bundle, rev uint64, strategy string) {
	b.t.Helper()
	text := policyText("pos", x, x.Digest, "  targets: {selector: {matchLabels: {role: pos}}}\n  rolloutStrategy: {type: RollingUpdate, "+strategy+"}\n")
	if _, err := b.admin.PutPolicy(b.t.Context(), b.signed(text, rev, b.operator)); err != nil {
		b.t.Fatal(err)
	}
	b.look()
}

// look makes a step now.
func (b *bed) look() {
	b.t.Helper()
	if err := b.rollouts.step(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// granted is the grant on a site's board, verified as nodes do.
func (b *bed) granted(site string) *grant.Grant {
	b.t.Helper()
	board := b.boards.site(site)
	for _, e := range board.entries {
		if e.Kind == wire.DocGrant {
			d := board.docs[e.Digest]
			g, err := grant.Open(&b.set, trust.Signed{Doc: d.Doc, Sig: d.Sig}, b.trustedNow())
			if err != nil {
				b.t.Fatal(err)
			}
			return g
		}
	}
	return nil
}

// says has a node make a statement about the bundle.
func (b *bed) says(site, node string, x *chunker.Bundle, phase status.Phase) {
	b.t.Helper()
	n, ok := b.members.named(site, node)
	if !ok {
		b.t.Fatalf("no node %s", node)
	}
	was, _ := b.presence.get(n.PeerID)
	b.presence.said(n.PeerID, status.Node{Site: site, Node: node, PeerID: n.PeerID, Seq: was.Node.Seq + 1, Phase: phase,
		Desired:  &status.Desired{Policy: "pos", Bundle: "app", Version: x.Manifest.Version, Checksum: x.Digest},
		Transfer: status.Transfer{Chunks: 1, ChunksHave: 1}}, b.now())
	b.look()
}

func names(g *grant.Grant) string {
	var out []string
	for _, s := range g.Starts {
		out = append(out, s.Node)
	}
	return strings.Join(out, " ")
}

// A rollout on a real seeder: grants are signed and on the board, a person stops it and lets it go on, and after a
// restart everything is where it was.
func TestRollout(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	for _, name := range []string{"a", "b", "c"} {
		b.join("s1", name, api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	}
	x := b.bundle("2.0", 2, b.release)
	b.push(x, -1)
	if b.granted("s1") != nil {
		t.Fatal("a grant without a policy")
	}
	b.rolling(x, 1, `batchSize: 1, batchDelayMinutes: 0, maxUnavailablePerSite: 1, canary: {selector: {matchLabels: {role: kiosk}}}`)
	if g := b.granted("s1"); g != nil {
		t.Fatalf("a grant before the canary: %+v", g)
	}
	_, err := b.admin.PromoteRollout(t.Context(), "pos", api.RolloutChange{})
	wantCode(t, "without a reason", err, problem.Usage)
	_, err = b.admin.PauseRollout(t.Context(), "other", api.RolloutChange{Reason: "x"})
	wantCode(t, "no such policy", err, problem.NotFound)
	r, err := b.admin.PromoteRollout(t.Context(), "pos", api.RolloutChange{Reason: "no kiosk here", By: "ann"})
	if err != nil || r.State != string(api.RolloutRunning) || r.Nodes != 3 || r.Batches != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	g := b.granted("s1")
	if g == nil || g.Revision != 1 || g.Checksum != x.Digest || g.MaxUnavailable != 1 || len(g.Starts) == 0 {
		t.Fatalf("%+v", g)
	}
	first := g.Starts[0].Node
	b.says("s1", first, x, status.Installing)
	b.says("s1", first, x, status.Installed)
	if r, err = b.admin.Rollout(t.Context(), "pos"); err != nil || r.Phases["Installed"] != 1 || r.Batch != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = b.admin.PauseRollout(t.Context(), "pos", api.RolloutChange{Reason: "freeze", By: "ann"}); err != nil || r.State != string(api.RolloutPaused) {
		t.Fatalf("%+v, %v", r, err)
	}
	if h := b.granted("s1"); h.Halted == "" || h.Serial <= g.Serial || len(h.Starts) != 0 {
		t.Fatalf("%+v", h)
	}
	if len(r.Pauses) != 1 || !strings.HasPrefix(r.Pauses[0].By, "ann") || r.Pauses[0].Reason != "freeze" {
		t.Errorf("%+v", r.Pauses)
	}
	serial := b.granted("s1").Serial
	b.stop()
	b.run()
	if h := b.granted("s1"); h == nil || h.Halted == "" || h.Serial != serial {
		t.Fatalf("after a restart: %+v", h)
	}
	if r, err = b.admin.ResumeRollout(t.Context(), "pos", api.RolloutChange{Reason: "over"}); err != nil || r.State == string(api.RolloutPaused) || r.Pauses[0].Why != "over" {
		t.Fatalf("%+v, %v", r, err)
	}
	if h := b.granted("s1"); h.Halted != "" || h.Serial <= serial || !strings.Contains(names(h), first) {
		t.Fatalf("%+v", h)
	}
	_, err = b.admin.ResumeRollout(t.Context(), "pos", api.RolloutChange{Reason: "again"})
	wantCode(t, "nothing to resume", err, problem.RolloutState)
	if l := b.rollouts.lines(); len(l) != 1 || l[0].Policy != "pos" || l[0].Nodes != 3 {
		t.Errorf("%+v", l)
	}
	// A new revision takes its place.
	b.rolling(x, 2, `batchSize: 3`)
	if g := b.granted("s1"); g == nil || g.Revision != 2 || g.Serial <= serial {
		t.Fatalf("%+v", g)
	}
	if _, _, err := b.putQuarantine(t.Context(), fleet.Quarantine{Scope: string(api.QuarantineNode), Site: "s1", Node: "c", Reason: "x", By: "ann", Since: b.now()}, false); err != nil {
		t.Fatal(err)
	}
	b.look()
	if g := b.granted("s1"); strings.Contains(names(g), "c") || len(g.Starts) != 2 {
		t.Errorf("a place under quarantine: %+v", g.Starts)
	}
	h, err := b.admin.RolloutHistory(t.Context(), "pos")
	if err != nil || len(h) != 2 || h[1].State != string(api.RolloutSuperseded) {
		t.Fatalf("%+v, %v", h, err)
	}
}

// onExceeded: Rollback sends the nodes of the revision back, with orders that the seeder signs and that count by the
// policy's word only.
func TestRolloutGoesBack(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	for _, name := range []string{"a", "b", "c", "d"} {
		b.join("s1", name, api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	}
	x := b.bundle("2.0", 2, b.release)
	b.push(x, -1)
	b.rolling(x, 1, `batchSize: 4, maxUnavailablePerSite: 4, failureBudget: {max: 1, onExceeded: Rollback}`)
	b.says("s1", "a", x, status.Installed)
	b.says("s1", "b", x, status.RolledBack)
	if len(b.ordered("s1")) != 0 {
		t.Fatal("an order within the budget")
	}
	b.says("s1", "c", x, status.InstallFailed)
	k, _ := b.rollouts.state("pos")
	if k.Phase != rollout.RollingBack {
		t.Fatalf("%s %s", k.Phase, k.Reason)
	}
	all := b.orders.all()
	if len(all) != 1 || len(b.ordered("s1")) != 1 {
		t.Fatalf("%d orders", len(all))
	}
	if _, err := order.Open(&b.set, all[0].Document, b.trustedNow()); err == nil {
		t.Error("the seeder signs as an operator")
	}
	o, err := order.OpenDelegated(&b.set, all[0].Document, b.trustedNow())
	if err != nil || strings.Join(o.Targets.Nodes, " ") != "a" || o.Checksum != x.Digest || o.Now {
		t.Fatalf("%+v, %v", o, err)
	}
	if err := order.Delegated(o, b.desired.all()[0].Revision, b.desired.all()[0].policy); err != nil {
		t.Error(err)
	}
	log, err := b.db.AuditLog(t.Context(), 0, 1, true)
	if want := fmt.Sprintf("order %d: rollback of app 2.0: rollout of pos: the failure budget is exceeded", o.Sequence); err != nil || log[0].Who != "rollout" || log[0].Subject != want {
		t.Errorf("%+v, %v", log, err)
	}
	// The next revision puts an end to it: no site hears of it any more.
	b.rolling(x, 2, `batchSize: 4, maxUnavailablePerSite: 4`)
	if got := b.ordered("s1"); len(got) != 0 {
		t.Errorf("on the board are %v", got)
	}
}

// Who puts a policy in force and pauses its rollout at once, before the next step, has paused that one.
func TestPauseAtOnce(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	b.join("s1", "a", api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	x := b.bundle("2.0", 2, b.release)
	b.push(x, -1)
	text := policyText("pos", x, x.Digest, "  targets: {selector: {matchLabels: {role: pos}}}\n  rolloutStrategy: {type: RollingUpdate, batchSize: 1}\n")
	for rev := uint64(1); rev <= 3; rev++ {
		if _, err := b.admin.PutPolicy(t.Context(), b.signed(text, rev, b.operator)); err != nil {
			t.Fatal(err)
		}
		r, err := b.admin.PauseRollout(t.Context(), "pos", api.RolloutChange{Reason: "freeze"})
		if err != nil || r.Revision != rev || r.State != string(api.RolloutPaused) {
			t.Fatalf("revision %d: %d %s, %v", rev, r.Revision, r.State, err)
		}
	}
}
