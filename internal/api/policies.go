package api

import (
	"context"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Paths of one policy.
const (
	PathPolicy        = "/api/v1/policies/{policy}"
	PathPolicyHistory = "/api/v1/policies/{policy}/history"
)

// PolicyRevision is one line of a policy's history.
type PolicyRevision struct {
	Revision uint64          `json:"revision"`
	Recorded time.Time       `json:"recorded"`
	Created  time.Time       `json:"created"`
	Deleted  bool            `json:"deleted"`
	Reverts  uint64          `json:"reverts,omitempty"`
	Commit   string          `json:"commit,omitempty"`
	SignedBy string          `json:"signedBy"` // as in ComplianceRow
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Text     string          `json:"text"`
}

// PolicyHistory lists the revisions of a policy, the newest first.
func (c *Client) PolicyHistory(ctx context.Context, policy string) ([]PolicyRevision, error) {
	return ask[[]PolicyRevision](ctx, &c.caller, get(fill(PathPolicyHistory, policy), nil), nil)
}
