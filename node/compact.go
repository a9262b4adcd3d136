package node

import (
	"encoding/json"
	"slices"

	"github.com/patchmesh/patchmesh/internal/status"
)

// maxOutbox bounds the reports that wait for an acknowledgement: a site may be without its WAN for months, and a node
// that waits for an installer reports every hour.
const maxOutbox = 256

// compact makes room when more than maxOutbox reports wait, and says which are to be forgotten. Reports of a phase that
// was passed through go first: of each bundle the last report, and every outcome that is final, say all that matters.
// Only if those alone are too many do the oldest of them go, and never a receipt: the chain would have a gap.
func (o *outbox) compact() (gone []uint64, lost int) {
	if len(o.waiting) <= maxOutbox {
		return nil, 0
	}
	keep, chained := make([]bool, len(o.waiting)), make([]bool, len(o.waiting))
	last := map[string]bool{} // bundles that have a later report
	left := 0
	for i := len(o.waiting) - 1; i >= 0; i-- {
		var b status.ReportBody
		if err := json.Unmarshal(o.waiting[i].Body, &b); err != nil {
			continue // not ours: what openOutbox reads was written by seal
		}
		chained[i] = b.Receipt != nil
		if keep[i] = !last[b.Bundle] || Final(b.Phase) || chained[i]; keep[i] {
			left++
		}
		last[b.Bundle] = true
	}
	for i := range keep {
		if keep[i] && !chained[i] && left > maxOutbox {
			keep[i] = false
			left--
			lost++
		}
	}
	i := -1
	o.waiting = slices.DeleteFunc(o.waiting, func(r status.Report) bool {
		if i++; keep[i] {
			return false
		}
		delete(o.sent, r.Seq)
		gone = append(gone, r.Seq)
		return true
	})
	return gone, lost
}
