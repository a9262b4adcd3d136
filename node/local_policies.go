package node

import (
	"maps"
	"net/http"
	"slices"

	"github.com/patchmesh/patchmesh/internal/api"
)

// localPolicies answers which policies the node holds: with them "meshctl why" works while the WAN is down.
func (n *Node) localPolicies(w http.ResponseWriter, r *http.Request) {
	out := []api.PolicyInfo{}
	if err := n.call(r.Context(), func() {
		for _, name := range slices.Sorted(maps.Keys(n.policies)) {
			h := n.policies[name]
			i := api.PolicyInfo{Name: name, Revision: h.doc.Revision, Deleted: h.doc.Deleted, Document: h.s}
			if at, err := h.doc.Time(); err == nil {
				i.Created = at
			}
			if h.p != nil {
				i.Bundle, i.Version, i.Checksum = h.p.Bundle.Name, h.p.Bundle.Version, h.p.Bundle.Checksum
			}
			out = append(out, i)
		}
	}); err != nil {
		api.WriteError(w, err)
		return
	}
	api.WriteJSON(w, out)
}
