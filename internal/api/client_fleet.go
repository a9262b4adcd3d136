package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/patchmesh/patchmesh/internal/status"
)

// Fleet returns the fleet in a few lines, with a line for each site if sites is set.
func (c *Client) Fleet(ctx context.Context, sites bool) (status.Summary, error) {
	var q url.Values
	if sites {
		q = url.Values{"sites": {"1"}}
	}
	return ask[status.Summary](ctx, &c.caller, get(PathFleet, q), nil)
}

// Plan says what policies would change. Nothing is changed.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (Plan, error) {
	return ask[Plan](ctx, &c.caller, call{method: http.MethodPost, path: PathPlan, repeat: true}, r)
}
