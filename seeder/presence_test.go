package seeder

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// A node that is heard of every few seconds is written once a minute, a new statement at once, and the last sign of life
// of one that fell silent in the end.
func TestPresenceIsWrittenSeldom(t *testing.T) {
	db, err := fleet.Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"), func(*roster.Roster) (trust.Signed, error) {
		return trust.Signed{Doc: []byte("{}"), Sig: []byte("s")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	t0 := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	enlist(t, db, t0, "s1", "n1", "pa")
	p, err := loadPresence(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	onDisk := func() time.Time {
		t.Helper()
		list, err := db.Statements(t.Context())
		if err != nil || len(list) > 1 {
			t.Fatal(list, err)
		}
		if len(list) == 0 {
			return time.Time{}
		}
		return list[0].Seen
	}
	writes, last, now := 0, time.Time{}, t0
	for second := range 600 {
		now = t0.Add(time.Duration(second) * time.Second)
		if second%20 == 0 && second <= 300 {
			p.seen("pa", now)
		}
		if second == 130 {
			p.said("pa", status.Node{Site: "s1", Node: "n1", Seq: 1, Phase: status.Staging}, now)
		}
		if err := p.flush(t.Context(), now, false); err != nil {
			t.Fatal(err)
		}
		if at := onDisk(); !at.Equal(last) {
			writes, last = writes+1, at
		}
		if second == 130 && !last.Equal(now) {
			t.Errorf("a new statement is not on disk: %s", last)
		}
		if h := p.peers["pa"]; now.Sub(last) > 2*presenceStep && !h.Seen.Equal(last) {
			t.Fatalf("second %d: heard at %s, on disk is %s", second, h.Seen, last)
		}
	}
	if writes < 5 || writes > 8 || !last.Equal(t0.Add(300*time.Second)) {
		t.Errorf("%d writes, the last of %s", writes, last)
	}
	p.seen("pa", now)
	if err := p.flush(t.Context(), now, true); err != nil || !onDisk().Equal(now) {
		t.Errorf("at the end: %s, %v", onDisk(), err)
	}
}
