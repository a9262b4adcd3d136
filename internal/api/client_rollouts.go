package api

import (
	"context"
	"net/http"
)

// Rollouts lists the newest rollout of each policy that has one, in the order of the policies' names.
func (c *Client) Rollouts(ctx context.Context) ([]Rollout, error) {
	return ask[[]Rollout](ctx, &c.caller, get(PathRollouts, nil), nil)
}

// Rollout returns the newest rollout of a policy.
func (c *Client) Rollout(ctx context.Context, policy string) (Rollout, error) {
	return ask[Rollout](ctx, &c.caller, get(fill(PathRollout, policy), nil), nil)
}

// RolloutHistory returns the rollouts of a policy, the newest revision first.
func (c *Client) RolloutHistory(ctx context.Context, policy string) ([]Rollout, error) {
	return ask[[]Rollout](ctx, &c.caller, get(fill(PathRolloutHistory, policy), nil), nil)
}

// SiteGrants lists the newest grants of a site, one for each rollout that has given it one.
func (c *Client) SiteGrants(ctx context.Context, site string) ([]SiteGrant, error) {
	return ask[[]SiteGrant](ctx, &c.caller, get(fill(PathSiteGrants, site), nil), nil)
}

// CarryGrants has grants made for a site to which the bundles of these policies are brought by hand, and returns them.
func (c *Client) CarryGrants(ctx context.Context, site string, q CarryGrants) ([]SiteGrant, error) {
	return ask[[]SiteGrant](ctx, &c.caller, call{method: http.MethodPost, path: fill(PathSiteGrants, site), repeat: true}, q)
}

// PauseRollout stops new starts; what runs finishes. A reason is required, here and below: it is kept.
func (c *Client) PauseRollout(ctx context.Context, policy string, q RolloutChange) (Rollout, error) {
	return c.changeRollout(ctx, PathRolloutPause, policy, q)
}

// ResumeRollout lets a rollout go on. Its budget goes on too.
func (c *Client) ResumeRollout(ctx context.Context, policy string, q RolloutChange) (Rollout, error) {
	return c.changeRollout(ctx, PathRolloutResume, policy, q)
}

// PromoteRollout lets the batches begin after the canary's soak.
func (c *Client) PromoteRollout(ctx context.Context, policy string, q RolloutChange) (Rollout, error) {
	return c.changeRollout(ctx, PathRolloutPromote, policy, q)
}

// RetryRollout lets the nodes that failed have a place again. A node holds back what failed until an order tells it not
// to: see order.Retry.
func (c *Client) RetryRollout(ctx context.Context, policy string, q RolloutChange) (Rollout, error) {
	return c.changeRollout(ctx, PathRolloutRetry, policy, q)
}

func (c *Client) changeRollout(ctx context.Context, path, policy string, q RolloutChange) (Rollout, error) {
	return ask[Rollout](ctx, &c.caller, call{method: http.MethodPost, path: fill(path, policy)}, q)
}
