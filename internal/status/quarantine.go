package status

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Quarantine is what a node holds against itself: something that it was to install, or has installed, did not verify. While it
// is in force the node starts no new installation. ID is another one for each quarantine: an order that ends one names
// it.
type Quarantine struct {
	ID       string          `json:"id"`
	Reason   string          `json:"reason"`
	Code     string          `json:"code"`
	Detail   string          `json:"detail,omitempty"`
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Since    time.Time       `json:"since"`
	Found    string          `json:"found,omitempty"` // by the last check, if there was one
	Next     *time.Time      `json:"next,omitempty"`  // when the node checks itself again
	Ended    *time.Time      `json:"ended,omitempty"` // in a report: it is over since then
	By       string          `json:"by,omitempty"`    // who ended it: "check", or "order N"
	Why      string          `json:"why,omitempty"`
}

// String says it in one line: "ChunkCorrupt (E2103) of app 2.0".
func (q Quarantine) String() string {
	return fmt.Sprintf("%s (%s) of %s %s", q.Reason, q.Code, q.Bundle, q.Version)
}

// Clipped is the quarantine as it may be sent: words that a terminal shows as they are, and short.
func (q Quarantine) Clipped() Quarantine {
	q.ID, q.Reason, q.Code, q.Bundle, q.Version = word(q.ID), word(q.Reason), word(q.Code), word(q.Bundle), word(q.Version)
	q.Detail, q.Found, q.By, q.Why = word(q.Detail), word(q.Found), word(q.By), word(q.Why)
	return q
}
