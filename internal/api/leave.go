package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// PathLocalLeave asks a node to leave its site: POST, with the query timeout=DURATION. The answer comes when the node
// is about to end.
const PathLocalLeave = "/v1/leave"

// MaxLeaveTimeout bounds how long a node may be asked to stay for others.
const MaxLeaveTimeout = 24 * time.Hour

// LeaveResult says how a node left.
type LeaveResult struct {
	WaitedMillis int64 `json:"waitedMillis"`
	// OnlyHere is how many bytes a neighbour wants and no other node within reach holds; 0: nobody needs this node.
	OnlyHere int64 `json:"onlyHere"`
}

// Leave asks the node to leave its site and waits until it may, or until the timeout has passed.
func (c *NodeClient) Leave(ctx context.Context, timeout time.Duration) (LeaveResult, error) {
	return ask[LeaveResult](ctx, &c.caller, call{
		method: http.MethodPost, path: PathLocalLeave, query: url.Values{"timeout": {timeout.String()}},
	}, nil)
}
