package fleet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/trust"
)

// A rollout is kept with its grants; each takes the place of the one before, and the newest revision is what counts.
func testRollouts(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	ctx := t.Context()
	grant := func(site string, revision, serial uint64) Grant {
		return Grant{Policy: "pos", Site: site, Revision: revision, Serial: serial, Document: trust.Signed{Doc: []byte("doc"), Sig: []byte{byte(serial)}}}
	}
	put := func(policy string, revision uint64, state string, grants ...Grant) Rollout {
		t.Helper()
		r := Rollout{Policy: policy, Revision: revision, State: []byte(state), Updated: t0.Add(time.Duration(revision) * time.Second)}
		if err := s.PutRollout(ctx, r, grants); err != nil {
			t.Fatal(err)
		}
		return r
	}
	put("pos", 9, `{"a":1}`, grant("s1", 9, 1), grant("s2", 9, 2))
	nine := put("pos", 9, `{"a":2}`, grant("s1", 9, 3))
	ten := put("pos", 10, `{}`, grant("s2", 10, 4))
	other := put("kiosk", 1, `{}`)
	got, err := s.Rollouts(ctx)
	if d := cmp.Diff([]Rollout{other, ten}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	got, err = s.RolloutHistory(ctx, "pos", 5)
	if d := cmp.Diff([]Rollout{ten, nine}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if got, err = s.RolloutHistory(ctx, "pos", 1); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
	grants, err := s.Grants(ctx)
	if d := cmp.Diff([]Grant{grant("s1", 9, 3), grant("s2", 10, 4)}, grants); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}
