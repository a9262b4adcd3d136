package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// NodeClient speaks to a meshd on this machine. It needs no network.
type NodeClient struct{ caller }

// NewNodeClient makes a client for the socket at a path, or at a "unix:///path" address.
func NewNodeClient(socket string) (*NodeClient, error) {
	if len(socket) > 0 && socket[0] == '/' {
		socket = "unix://" + socket
	}
	e, err := newEndpoint(socket, "")
	if err != nil {
		return nil, err
	}
	return &NodeClient{caller{
		endpoints: []*endpoint{e}, unreachable: problem.DaemonUnreachable, sleep: sleep,
		next: "check that meshd runs and that you may use its socket",
	}}, nil
}

// Status returns the site as the node sees it.
func (c *NodeClient) Status(ctx context.Context) (status.Site, error) {
	return ask[status.Site](ctx, &c.caller, call{method: http.MethodGet, path: PathLocalStatus}, nil)
}

// Node returns the node's statement about itself.
func (c *NodeClient) Node(ctx context.Context) (status.Node, error) {
	return ask[status.Node](ctx, &c.caller, call{method: http.MethodGet, path: PathLocalNode}, nil)
}

// PathLocalPolicies lists the policies that a node holds, those among them that do not select it.
const PathLocalPolicies = "/v1/policies"

// Policies returns the policies that the node holds, each verified by it.
func (c *NodeClient) Policies(ctx context.Context) ([]PolicyInfo, error) {
	return ask[[]PolicyInfo](ctx, &c.caller, call{method: http.MethodGet, path: PathLocalPolicies}, nil)
}

// Import streams a stick file to the node and waits until it is verified and stored. It is not retried: the reader may
// be consumed.
func (c *NodeClient) Import(ctx context.Context, stick io.Reader) (ImportResult, error) {
	b, err := c.do(ctx, call{
		method: http.MethodPost, path: PathLocalImport, stream: stick,
		contentType: "application/x-tar", limit: MaxBody,
	})
	if err != nil {
		return ImportResult{}, err
	}
	var r ImportResult
	if err := json.Unmarshal(b, &r); err != nil {
		return ImportResult{}, problem.New(problem.Internal, "the answer to the import is not the expected JSON").Because(err)
	}
	return r, nil
}

// GetChunk returns the verified plain bytes of a chunk.
func (c *NodeClient) GetChunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	return c.chunk(ctx, id)
}
