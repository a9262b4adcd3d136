package seeder

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// What a database holds that was filled before anybody followed its reports puts nobody under quarantine; what comes
// does. The control reads it from the beginning: then it would.
func TestOldReportsAreNoNews(t *testing.T) {
	for name, fromTheBeginning := range map[string]bool{"upgraded": false, "control": true} {
		t.Run(name, func(t *testing.T) {
			t0 := time.Now().Add(-100 * 24 * time.Hour).UTC().Truncate(time.Second)
			source := filepath.Join(t.TempDir(), "fleet.db")
			db, err := fleet.Open(t.Context(), source, func(r *roster.Roster) (trust.Signed, error) {
				doc, err := r.Encode()
				return trust.Signed{Doc: doc, Sig: []byte("s")}, err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			const peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
			enlist(t, db, t0, "s1", "n1", peer)
			report := func(db *fleet.Store, seq uint64, at time.Time) {
				t.Helper()
				body, err := json.Marshal(status.ReportBody{Site: "s1", Node: "n1", Seq: seq, Occurred: at, Phase: status.Quarantined, Outcome: "verification_failure",
					Reason: "ChecksumMismatch", Code: "E2101"})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := db.AddReports(t.Context(), []fleet.Report{{Peer: peer, Recorded: at, Report: status.Report{Site: "s1", Node: "n1", Seq: seq, Body: body, Sig: []byte("s")}}}); err != nil {
					t.Fatal(err)
				}
			}
			report(db, 1, t0)
			if fromTheBeginning {
				if err := db.PutCursor(t.Context(), followCursor, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			b := start(t, func(c *Config) { c.Database = source })
			if err := b.followOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := b.quarantined(peer); got != fromTheBeginning {
				t.Fatalf("by an old report: under quarantine %t, want %t", got, fromTheBeginning)
			}
			report(b.db, 2, time.Now())
			if err := b.followOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !b.quarantined(peer) {
				t.Error("by a new report: not under quarantine")
			}
		})
	}
}
