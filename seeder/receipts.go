package seeder

import (
	"net/http"
	"strconv"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

func (s *Seeder) getReceipts(_ http.ResponseWriter, r *http.Request) (any, error) {
	v := r.URL.Query()
	q := fleet.Query{Site: v.Get("site"), Node: v.Get("node"), Limit: 100}
	var err error
	if t := v.Get("after"); t != "" {
		if q.After, err = strconv.ParseInt(t, 10, 64); err != nil {
			return nil, problem.New(problem.Usage, "after %.40q: want the number of a page", t)
		}
	}
	if t := v.Get("limit"); t != "" {
		if q.Limit, err = strconv.Atoi(t); err != nil || q.Limit < 1 || q.Limit > maxPage {
			return nil, problem.New(problem.Usage, "limit %.20q: want 1 to %d", t, maxPage)
		}
	}
	rs, err := s.db.Receipts(r.Context(), q)
	if err != nil {
		return nil, err
	}
	page := api.ReceiptPage{Receipts: []api.RecordedReceipt{}, Next: q.After}
	for _, x := range rs {
		l, err := status.NewLink(x.Report.Report)
		if err != nil {
			return nil, err
		}
		page.Receipts = append(page.Receipts, api.RecordedReceipt{Hash: x.Hash, PeerID: x.Peer, Recorded: x.Recorded, Body: l.Body, Signed: l.Signed})
		page.Next = x.ID
	}
	return page, nil
}
