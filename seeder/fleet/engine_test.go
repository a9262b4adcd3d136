package fleet

import (
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/internal/bed/postgres"
)

// engine makes empty databases of one kind.
type engine struct {
	fresh  func(t *testing.T) (source string)
	server *postgres.Server // nil: SQLite
}

func sqliteEngine() engine {
	return engine{fresh: func(t *testing.T) string { return filepath.Join(t.TempDir(), "a dir with ? and #.db") }}
}

// TestConformance holds both engines to one suite.
func TestConformance(t *testing.T) {
	suite := func(t *testing.T, db engine) {
		for _, x := range []struct {
			name string
			run  func(*testing.T, engine)
		}{
			{"redeem", testRedeem},
			{"redeem race", testRedeemRace},
			{"sites", testSites},
			{"sign fails", testSignFails},
			{"bundles", testBundles},
			{"policies", testPolicies},
			{"reports once", testReportsOnce},
			{"receipts", testReceipts},
			{"history", testHistory},
			{"orders", testOrders},
			{"revocations", testRevocations},
			{"rollouts", testRollouts},
			{"access and audit", testAccessAndAudit},
			{"answers", testAnswers},
			{"letters", testLetters},
			{"quarantine", testQuarantine},
			{"prune", testPrune},
			{"wan", testWAN},
			{"migrate from first", testMigrateFromFirst},
			{"reopen", testReopen},
			{"newer", testNewer},
			{"bad dumps", testBadDumps},
		} {
			t.Run(x.name, func(t *testing.T) { x.run(t, db) })
		}
	}
	t.Run("SQLite", func(t *testing.T) { suite(t, sqliteEngine()) })
	t.Run("PostgreSQL", func(t *testing.T) {
		server := postgres.Start(t)
		suite(t, engine{server: server, fresh: func(t *testing.T) string { return server.Fresh() }})
	})
}
