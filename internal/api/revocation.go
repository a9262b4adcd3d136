package api

import (
	"context"
	"net/http"
	"time"

	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// PathRevocations is the list of revoked bundles.
const PathRevocations = "/api/v1/revocations"

// Revocations is the list of revoked bundles in force.
type Revocations struct {
	Sequence uint64          `json:"sequence"` // 0: nothing was ever revoked
	Bundles  []RevokedBundle `json:"bundles"`  // in the order in which they were revoked
	Document *trust.Signed   `json:"document,omitempty"`
}

// RevokedBundle is a bundle that was revoked, and where it still is.
type RevokedBundle struct {
	revocation.Bundle
	Recorded time.Time `json:"recordedAt"`
	Running  int       `json:"running"`  // nodes that run it, by what they last said
	Policies []string  `json:"policies"` // in force that name it: their nodes do not start
}

// Revocations returns the list of revoked bundles.
func (c *Client) Revocations(ctx context.Context) (Revocations, error) {
	return ask[Revocations](ctx, &c.caller, get(PathRevocations, nil), nil)
}

// PutRevocations submits a signed list, which must follow the one in force: see revocation.List.
func (c *Client) PutRevocations(ctx context.Context, d trust.Signed) (Revocations, error) {
	return ask[Revocations](ctx, &c.caller, call{method: http.MethodPost, path: PathRevocations, repeat: true}, d)
}
