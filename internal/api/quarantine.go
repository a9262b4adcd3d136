package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Paths of the quarantine.
const (
	PathQuarantine      = "/api/v1/quarantine"
	PathQuarantineEntry = "/api/v1/quarantine/{id}"
)

// QuarantineScope says what is under quarantine.
type QuarantineScope string

// The scopes: a node installs nothing new; from a source nobody takes chunks.
const (
	QuarantineNode   QuarantineScope = "node"
	QuarantineSource QuarantineScope = "source"
)

// QuarantineSpec puts a node, or a source, under quarantine.
type QuarantineSpec struct {
	Scope  QuarantineScope `json:"scope"`
	Site   string          `json:"site"`
	Node   string          `json:"node"`
	Reason string          `json:"reason"`
}

// QuarantineEntry is one quarantine.
type QuarantineEntry struct {
	ID int64 `json:"id"`
	QuarantineSpec
	Code       string     `json:"code,omitempty"`
	Since      time.Time  `json:"since"`
	By         string     `json:"by"`       // who put it there; "node" or "site" if it was found out
	Evidence   string     `json:"evidence"` // "3 bad chunks to 2 peers"
	Release    string     `json:"release"`  // what ends it
	Released   *time.Time `json:"released,omitempty"`
	ReleasedBy string     `json:"releasedBy,omitempty"`
	Why        string     `json:"why,omitempty"`
}

// Quarantines lists who is under quarantine, the newest first; all: who was, too.
func (c *Client) Quarantines(ctx context.Context, all bool) ([]QuarantineEntry, error) {
	var q url.Values
	if all {
		q = url.Values{"all": {"1"}}
	}
	return ask[[]QuarantineEntry](ctx, &c.caller, get(PathQuarantine, q), nil)
}

// AddQuarantine puts a node or a source under quarantine.
func (c *Client) AddQuarantine(ctx context.Context, s QuarantineSpec) (QuarantineEntry, error) {
	return ask[QuarantineEntry](ctx, &c.caller, call{method: http.MethodPost, path: PathQuarantine}, s)
}

// ReleaseQuarantine ends a quarantine. The reason is kept.
func (c *Client) ReleaseQuarantine(ctx context.Context, id int64, reason string) (QuarantineEntry, error) {
	return ask[QuarantineEntry](ctx, &c.caller, call{method: http.MethodDelete, path: fill(PathQuarantineEntry, strconv.FormatInt(id, 10)),
		query: url.Values{"reason": {reason}}, repeat: true}, nil)
}
