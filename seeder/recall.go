package seeder

import (
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// recall is what receipts of a node, in the order of their numbers, say of a time: what was in force of each bundle, in
// the order of the names. Of a node that was silent then it is certain only if a later receipt is known as well.
func recall(chain []fleet.Receipt, at time.Time, silent bool) []api.ComplianceRow {
	last := map[string]*api.ComplianceRow{}
	gap, later := broken(chain), false
	for _, c := range chain {
		if c.Occurred.After(at) {
			later = true
			continue
		}
		old := last[c.Bundle]
		since := c.Occurred
		if old != nil && old.Since != nil && old.Checksum != nil && c.Checksum != nil && *old.Checksum == *c.Checksum {
			since = *old.Since // it was in force before
		}
		r := &api.ComplianceRow{Bundle: c.Bundle, Version: c.Version, Checksum: c.Checksum, Policy: c.Policy, Revision: c.Revision, Commit: c.Commit,
			Snapshot: c.Snapshot, Outcome: c.Outcome, Reason: c.Reason, Receipt: &c.Hash, Occurred: &c.Occurred, Recorded: &c.Recorded, Source: sourceReceipt, Gap: gap}
		if c.Checksum != nil {
			r.Since = &since
		}
		last[c.Bundle] = r
	}
	out := make([]api.ComplianceRow, 0, len(last))
	for _, r := range last {
		r.LastKnown = silent && !later
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b api.ComplianceRow) int { return strings.Compare(a.Bundle, b.Bundle) })
	return out
}

// broken reports whether receipts are missing between the first and the last, or do not follow from each other.
func broken(chain []fleet.Receipt) bool {
	for i, c := range chain {
		switch {
		case c.Number != uint64(i)+1, (i == 0) != (c.Previous == nil), i > 0 && *c.Previous != chain[i-1].Hash:
			return true
		}
	}
	return false
}
