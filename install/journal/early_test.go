package journal_test

import (
	"testing"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
)

// Before the services run only the way back is gone, and only where it needs none of them.
func TestEarly(t *testing.T) {
	kept := journal.Packages{ID: "a", Provider: "btrfs", Touched: true, Boot: "now"}
	none := journal.Packages{ID: "a", Provider: journal.None, Touched: true}
	judged := kept
	judged.Judged = true
	for what, c := range map[string]struct {
		step journal.Step
		p    journal.Packages
		n    int
		want bool
	}{
		"files, half written":                   {journal.Stage, journal.Packages{}, 1, true},
		"files, to be asked about":              {journal.Check, journal.Packages{}, 1, false},
		"files, cut off too often":              {journal.Check, journal.Packages{}, ledger.MaxAttempts, true},
		"files, on the way back":                {journal.Undo, journal.Packages{}, 1, true},
		"packages, nothing touched":             {journal.Snapshot, journal.Packages{ID: "a"}, 1, true},
		"packages, in the transaction":          {journal.Transact, kept, 1, true},
		"packages, without a snapshot":          {journal.Transact, none, 1, false},
		"packages, before they were judged":     {journal.Verify, kept, 1, true},
		"packages, after they were judged":      {journal.Verify, judged, 1, false},
		"packages, on the way back":             {journal.Undo, kept, 1, true},
		"packages, no way back but scripts":     {journal.Undo, none, 1, false},
		"packages, after the reboot":            {journal.Reboot, judged, 1, false},
		"packages, to be asked about":           {journal.Check, judged, 1, false},
		"packages, in force, the rest to clear": {journal.Prune, judged, 1, false},
	} {
		tr := journal.Transaction{Kind: journal.Apply, Step: c.step, Packages: c.p, Attempt: c.n}
		if got := journal.Early(tr, "now"); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}
