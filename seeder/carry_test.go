package seeder

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// A site that is never heard is granted its next window when somebody says that the bundle is brought there by hand, and
// not before.
func TestGrantsAreCarried(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	b.join("s1", "a", api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	x := b.bundle("2.0", 2, b.release)
	b.push(x, -1)
	day := b.now().UTC().AddDate(0, 0, 3).Weekday().String()[:3]
	put := func(rev uint64, strategy string) {
		t.Helper()
		text := policyText("pos", x, x.Digest, "  targets: {selector: {matchLabels: {role: pos}}}\n  schedule: {maintenanceWindow: \""+day+" 02:00-04:00\", timezone: UTC}\n"+strategy)
		if _, err := b.admin.PutPolicy(t.Context(), b.signed(text, rev, b.operator)); err != nil {
			t.Fatal(err)
		}
		b.look()
	}
	carry := func(site string, policies ...string) ([]api.SiteGrant, error) {
		return b.admin.CarryGrants(t.Context(), site, api.CarryGrants{Policies: policies})
	}
	put(1, "")
	if got, err := carry("s1", "pos"); err != nil || len(got) != 0 {
		t.Fatalf("a policy without a rollout: %v, %v", got, err)
	}
	put(2, "  rolloutStrategy: {type: RollingUpdate, batchSize: 1}\n")
	if got, err := b.admin.SiteGrants(t.Context(), "s1"); err != nil || len(got) != 0 || b.granted("s1") != nil {
		t.Fatalf("granted before it was carried: %v, %v", got, err) // the control
	}
	got, err := carry("s1", "pos")
	if err != nil || len(got) != 1 || got[0].Policy != "pos" || got[0].Revision != 2 || got[0].Nodes != 1 || got[0].Halted != "" || !got[0].Opens.After(b.now()) {
		t.Fatalf("%+v, %v", got, err)
	}
	if g, err := grant.Open(&b.set, got[0].Document, b.trustedNow()); err != nil || g.Site != "s1" || g.Serial != got[0].Serial {
		t.Errorf("%+v, %v", g, err)
	}
	if g := b.granted("s1"); g == nil || g.Serial != got[0].Serial {
		t.Errorf("on the board is %+v", g)
	}
	if again, err := carry("s1", "pos"); err != nil || len(again) != 1 || again[0].Serial != got[0].Serial {
		t.Errorf("once more: %+v, %v", again, err)
	}
	put(3, "  rolloutStrategy: {type: RollingUpdate, batchSize: 1, gating: Strict}\n")
	for name, c := range map[string]struct {
		site, policy string
		code         problem.Code
	}{
		"gating Strict": {"s1", "pos", problem.RolloutState}, "no policy": {"s1", "till", problem.NotFound}, "no site": {"s9", "pos", problem.NotFound},
	} {
		if got, err := carry(c.site, c.policy); problem.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := carry("s1"); problem.CodeOf(err) != problem.Usage {
		t.Error(err)
	}
}
