package fleet

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// The sequence of lists only grows; the same one again is no error; none is forgotten.
func testRevocations(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	mk := func(seq uint64, doc string) Revocations {
		return Revocations{Sequence: seq, Document: trust.Signed{Doc: []byte(doc), Sig: []byte("s")}, Recorded: t0}
	}
	for _, c := range []struct {
		l     Revocations
		added bool
		code  problem.Code
	}{
		{mk(7, "a"), true, ""}, {mk(7, "a"), false, ""}, {mk(7, "b"), false, problem.ChangedMeanwhile}, {mk(6, "b"), false, problem.ChangedMeanwhile},
		{mk(9, "c"), true, ""}, {mk(7, "a"), false, problem.ChangedMeanwhile},
	} {
		added, err := s.PutRevocations(t.Context(), c.l)
		wantCode(t, err, c.code)
		if err == nil && added != c.added {
			t.Errorf("list %d %q: added %v", c.l.Sequence, c.l.Document.Doc, added)
		}
	}
	got, err := s.Revocations(t.Context())
	if d := cmp.Diff([]Revocations{mk(7, "a"), mk(9, "c")}, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}
