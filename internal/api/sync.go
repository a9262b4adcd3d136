package api

import (
	"context"
	"net/http"
	"time"
)

// Paths of the Git repository.
const (
	PathSync      = "/api/v1/sync"
	PathSyncPrune = "/api/v1/sync/accept-prune"
	PathGitHook   = "/api/v1/hooks/git"
)

// SyncState is how the Git repository is followed.
type SyncState struct {
	Repository string     `json:"repository"` // without credentials; empty: none is followed
	Branch     string     `json:"branch"`
	Commit     string     `json:"commit"` // in force
	Signer     string     `json:"signer"` // fingerprint of who signed it
	Author     string     `json:"author"`
	Subject    string     `json:"subject"`
	Applied    *time.Time `json:"applied,omitempty"`
	Checked    *time.Time `json:"checked,omitempty"` // last time that the repository answered
	Next       *time.Time `json:"next,omitempty"`
	Failures   int        `json:"failures"`          // in a row
	Problem    string     `json:"problem,omitempty"` // why the newest commit is not in force
	Code       string     `json:"code,omitempty"`
	Refused    string     `json:"refused,omitempty"` // the commit that is not
	Held       *SyncHeld  `json:"held,omitempty"`
}

// SyncHeld is a commit that removes much and waits for a person.
type SyncHeld struct {
	Commit  string    `json:"commit"`
	Removes int       `json:"removes"` // (policy, node) pairs
	Of      int       `json:"of"`
	Since   time.Time `json:"since"`
}

// PruneAccept lets a held commit in.
type PruneAccept struct {
	Commit string `json:"commit"`
	Reason string `json:"reason"`
}

// Sync says how the Git repository is followed.
func (c *Client) Sync(ctx context.Context) (SyncState, error) {
	return ask[SyncState](ctx, &c.caller, get(PathSync, nil), nil)
}

// SyncNow has the Git repository looked at, and waits for what comes of it.
func (c *Client) SyncNow(ctx context.Context) (SyncState, error) {
	return ask[SyncState](ctx, &c.caller, call{method: http.MethodPost, path: PathSync, repeat: true}, nil)
}

// AcceptPrune lets a commit in that is held because it removes much.
func (c *Client) AcceptPrune(ctx context.Context, p PruneAccept) (SyncState, error) {
	return ask[SyncState](ctx, &c.caller, call{method: http.MethodPost, path: PathSyncPrune}, p)
}
