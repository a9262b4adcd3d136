package status

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Receipt is the part of a report that makes it a receipt: a node's signed statement of an outcome that is final, chained
// to the one before. The receipt is named by the sha256 of its report's body, and Previous names the one before, so that
// who holds a node's receipts can tell, with nothing but the node's public key, that none is changed or missing between
// two of them.
type Receipt struct {
	Number   uint64           `json:"number"`             // of this node, from 1 without gaps
	Previous *manifest.Digest `json:"previous,omitempty"` // of receipt Number-1; nil for the first
	Started  time.Time        `json:"started"`            // by the node's clock, corrected
	Ended    time.Time        `json:"ended"`
	Clock    int64            `json:"clockMillis"`        // what was added to the node's clock: the site's less its own
	Commit   string           `json:"commit,omitempty"`   // of the policy, where it came from Git
	From     *ReceiptBundle   `json:"from,omitempty"`     // what was in force before; nil: nothing
	Now      *ReceiptBundle   `json:"now,omitempty"`      // what is in force after; nil: nothing
	Packages *manifest.Digest `json:"packages,omitempty"` // of all packages of the machine after, where it has a package manager
	Software string           `json:"software"`
	Zoneinfo string           `json:"zoneinfo"` // version of the time zone rules
}

// ReceiptBundle names a release of the report's bundle.
type ReceiptBundle struct {
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
}
