package seeder

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
)

// summaryRoutes serves the fleet in a few lines.
func (s *Seeder) summaryRoutes(handle func(method, path string, fn route)) {
	handle("GET", api.PathFleet, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return s.summary(r.Context(), r.URL.Query().Get("sites") == "1")
	})
}

// summary counts the fleet from memory: no site's document is made for it.
func (s *Seeder) summary(ctx context.Context, lines bool) (status.Summary, error) {
	sites, err := s.db.Sites(ctx)
	if err != nil {
		return status.Summary{}, err
	}
	var t status.Tally
	var all []status.SiteLine
	for _, x := range sites {
		uplink, name := s.leases.primary(x.Name), ""
		members := s.members.site(x.Name)
		nodes := make([]status.Seen, 0, len(members))
		for _, n := range members {
			if n.PeerID == uplink {
				name = n.Name
			}
			nodes = append(nodes, s.seen(n, n.PeerID == uplink))
		}
		a := s.ledger.site(x.Name)
		line := t.Site(x.Name, x.Timezone, name, nodes, status.WAN{Payload: a.Payload, Plain: a.Plain, Needed: a.Needed, Duplicate: a.Duplicate,
			LeaseSplit: int(a.Splits), Unsure: a.Unsure, Rate: s.pace.rate(x.Name)})
		if lines {
			all = append(all, line)
		}
	}
	sum := t.Summary(s.now().UTC(), s.rollouts.lines())
	sum.WAN.CapBytesPerSecond = s.cfg.WANCapTotal
	slices.SortFunc(all, func(a, b status.SiteLine) int { return cmp.Compare(a.Site, b.Site) })
	sum.SiteLines = all
	return sum, nil
}
