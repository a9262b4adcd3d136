package api

import (
	"context"
	"net/http"

	"github.com/patchmesh/patchmesh/internal/trust"
)

// PathLocalOrder takes an operator's signed order on a node itself, which verifies it as if it had come from the seeder,
// and hands it on: where the WAN is down, or the seeder is lost. The answer is empty.
const PathLocalOrder = "/v1/orders"

// PutOrder gives the node an order.
func (c *NodeClient) PutOrder(ctx context.Context, d trust.Signed) error {
	return c.json(ctx, call{method: http.MethodPost, path: PathLocalOrder, repeat: true}, d, nil)
}
