package seeder

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// siteStatus is a site as the seeder sees it.
func (s *Seeder) siteStatus(site fleet.Site) status.Site {
	now := s.now()
	out := status.Site{APIVersion: status.APIVersion, Kind: "SiteStatus", Site: site.Name, Timezone: site.Timezone, AsOf: now.UTC(),
		Source: "seeder", Roster: site.Roster, WAN: s.wan(site), Nodes: []status.Seen{}, Bundles: []status.SiteWant{}}
	uplink := s.leases.primary(site.Name)
	for _, n := range s.members.site(site.Name) {
		if n.PeerID == uplink {
			out.Uplink = n.Name
		}
		seen := s.seen(n, n.PeerID == uplink)
		if since, over := s.budget.over(n.PeerID, s.pace.terms(site.Name).day); over {
			seen.Alarms = append(slices.Clip(seen.Alarms), status.Alarm{Code: string(problem.PeerMisbehaves), Since: since.UTC().Truncate(time.Second),
				Message: "it fetched the same chunks over the WAN again and again; it is not the uplink until midnight"})
		}
		out.Nodes = append(out.Nodes, seen)
	}
	slices.SortFunc(out.Nodes, func(a, b status.Seen) int { return cmp.Compare(a.Node.Node, b.Node.Node) })
	status.Accuse(out.Nodes)
	out.Bundles = s.wants(site.Name, out.Nodes)
	return out
}

// seen is a node's last statement. One that has never made any is Pending: enrolled, not heard of.
func (s *Seeder) seen(n fleet.Node, uplink bool) status.Seen {
	x, ok := s.presence.get(n.PeerID)
	out := status.Seen{Node: x.Node, LastSeen: x.Seen}
	if !ok || x.Node.Node == "" {
		out.Node = status.Node{APIVersion: status.APIVersion, Kind: "NodeStatus", Phase: status.Pending, Reason: "enrolled, no statement yet",
			Installed: []status.InstalledItem{}, Alarms: []status.Alarm{}}
	}
	out.Site, out.Node.Node, out.PeerID, out.Uplink, out.Labels = n.Site, n.Name, n.PeerID, uplink, n.Labels
	if q, ok := s.quarantine.at(suspect{api.QuarantineNode, n.Site, n.Name}); ok && out.Quarantine == "" { // whatever the node says of itself
		out.Quarantine = q.Reason
	}
	s.revocations.inForce().mark(&out.Node)
	connected := s.sessions.peer(n.PeerID) != nil // its probes answer, or the session would have ended
	heard := x.Seen
	if n.Enrolled.After(heard) { // a node that has just joined may take its time
		heard = n.Enrolled
	}
	now := s.now()
	out.Silent = !connected && now.Sub(heard) > s.cfg.SilentAfter
	if out.Silent && !x.Seen.IsZero() { // what it is at we cannot know: this is what it was at
		now = x.Seen
	}
	out.Explain(now)
	return out
}

// wants counts, for every bundle that a policy asks of the site, who wants it and who holds it whole.
func (s *Seeder) wants(site string, nodes []status.Seen) []status.SiteWant {
	byDigest := map[manifest.Digest]*status.SiteWant{}
	if b := s.boards.site(site); b != nil {
		for d := range b.bundles {
			if k, ok := s.library.book(d); ok {
				byDigest[d] = &status.SiteWant{Bundle: k.Name, Version: k.Version, Checksum: d, Bytes: k.catalog.Bytes()}
			}
		}
	}
	for _, n := range nodes {
		if n.Desired == nil {
			continue
		}
		w := byDigest[n.Desired.Checksum]
		if w == nil {
			continue // an older policy's; the node will hear
		}
		w.Wanted++
		if n.Transfer.Bytes > 0 && n.Transfer.BytesHave == n.Transfer.Bytes {
			w.Holders++
		}
	}
	out := make([]status.SiteWant, 0, len(byDigest))
	for _, w := range byDigest {
		out = append(out, *w)
	}
	slices.SortFunc(out, func(a, b status.SiteWant) int {
		return cmp.Or(cmp.Compare(a.Bundle, b.Bundle), cmp.Compare(a.Version, b.Version), slices.Compare(a.Checksum[:], b.Checksum[:]))
	})
	return out
}

// fleetStatus is all sites.
func (s *Seeder) fleetStatus(ctx context.Context) (status.Fleet, error) {
	sites, err := s.db.Sites(ctx)
	if err != nil {
		return status.Fleet{}, err
	}
	f := status.Fleet{APIVersion: status.APIVersion, Kind: "FleetStatus", AsOf: s.now().UTC(), Phases: map[status.Phase]int{}, Reasons: map[status.Phase]map[string]int{}, Sites: []status.Site{}}
	f.WAN.CapBytesPerSecond = s.cfg.WANCapTotal
	for _, x := range sites {
		st := s.siteStatus(x)
		for _, n := range st.Nodes {
			f.Nodes++
			f.Phases[n.Phase]++
			if status.Explained(n.Phase) {
				if f.Reasons[n.Phase] == nil {
					f.Reasons[n.Phase] = map[string]int{}
				}
				f.Reasons[n.Phase][n.Reason]++
			}
			if n.Silent {
				f.Silent++
			}
		}
		f.WAN.Payload += st.WAN.Payload
		f.WAN.Plain += st.WAN.Plain
		f.WAN.Needed += st.WAN.Needed
		f.WAN.Duplicate += st.WAN.Duplicate
		f.WAN.LeaseSplit += st.WAN.LeaseSplit
		f.WAN.Unsure += st.WAN.Unsure
		f.WAN.Rate += st.WAN.Rate
		f.Sites = append(f.Sites, st)
	}
	return f, nil
}

// reports returns a page of what the nodes reported.
func (s *Seeder) reports(ctx context.Context, q api.ReportQuery) (api.ReportPage, error) {
	rs, err := s.db.Reports(ctx, fleet.Query{Site: q.Site, Node: q.Node, After: q.After, Limit: q.Limit, Newest: q.Newest})
	if err != nil {
		return api.ReportPage{}, err
	}
	page := api.ReportPage{Reports: []api.RecordedReport{}, Next: q.After}
	for _, r := range rs {
		body, err := reportBody(r.Report)
		if err != nil {
			return api.ReportPage{}, err
		}
		page.Reports = append(page.Reports, api.RecordedReport{Recorded: r.Recorded, Body: body, Signed: r.Report})
		page.Next = r.ID
	}
	return page, nil
}
