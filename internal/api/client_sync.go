package api

import (
	"context"
	"net/http"
)

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
