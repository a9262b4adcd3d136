package node

import (
	"errors"
	"net/http"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// maxLocalOrder bounds a signed order on the socket: document and signature in base64.
const maxLocalOrder = 2 * order.MaxBytes

// localOrder takes an order from somebody on this machine, who needs no right for it but the signature.
func (n *Node) localOrder(w http.ResponseWriter, r *http.Request) {
	var s trust.Signed
	if err := api.ReadJSON(w, r, maxLocalOrder, &s); err != nil {
		api.WriteError(w, err)
		return
	}
	var err error
	if cerr := n.call(r.Context(), func() { err = n.takeOrder(s) }); cerr != nil {
		err = cerr
	}
	var p *problem.Error
	if err != nil && !errors.As(err, &p) {
		err = problem.New(problem.Internal, "the order was not kept").Because(err)
	}
	if err != nil {
		api.WriteError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
