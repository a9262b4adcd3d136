package seeder

import (
	"context"
	"net/http"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// maxPlanned bounds the policies of one plan: each is held against every node.
const maxPlanned = 512

// maxPlanners bounds the plans that are made at one time: each looks at the whole fleet. Others wait.
const maxPlanners = 2

// planRoutes serves what policies would change; nothing is changed.
func (s *Seeder) planRoutes(handle func(method, path string, fn route)) {
	handle("POST", api.PathPlan, func(w http.ResponseWriter, r *http.Request) (any, error) {
		var q api.PlanRequest
		if err := api.ReadJSON(w, r, api.MaxPlanBody, &q); err != nil {
			return nil, err
		}
		select {
		case s.planners <- struct{}{}:
			defer func() { <-s.planners }()
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		return s.plan(r.Context(), q)
	})
}

func (s *Seeder) plan(ctx context.Context, q api.PlanRequest) (*api.Plan, error) {
	if len(q.Policies) > maxPlanned {
		return nil, problem.New(problem.InvalidFile, "%d policies in one plan, at most %d", len(q.Policies), maxPlanned)
	}
	var files []plan.File
	from := map[string]string{}
	for _, f := range q.Policies {
		p, err := policy.ParseFile(f.File, []byte(f.Text))
		if err != nil {
			return nil, err
		}
		if other, ok := from[p.Name]; ok {
			return nil, problem.New(problem.InvalidPolicy, "policy %s stands in %s and in %s", p.Name, other, f.File)
		}
		from[p.Name] = f.File
		files = append(files, plan.File{File: f.File, Text: f.Text, Policy: p})
	}
	for _, x := range s.desired.all() {
		for i := range files {
			if files[i].Policy.Name == x.Name {
				files[i].Revision = x.Revision
			}
		}
	}
	for i := range files { // as the next one by hand; a commit's is its time, which nobody knows before
		files[i].Revision++
	}
	w, err := s.world(ctx)
	if err != nil {
		return nil, err
	}
	return plan.Compute(w, files, q.Prune), nil
}

// world is what a plan goes by.
func (s *Seeder) world(ctx context.Context) (plan.World, error) {
	now := s.now()
	w := plan.World{Now: now, Cap: s.cfg.WANCapTotal}
	sites, err := s.db.Sites(ctx)
	if err != nil {
		return w, err
	}
	whole := map[string]map[manifest.Digest]bool{} // bundles that a node of the site says it has, from wherever
	zones := zonesOf(sites)
	for _, x := range sites {
		site := plan.Site{Name: x.Name, WAN: x.WAN, Today: s.ledger.today(x.Name, s.pace.terms(x.Name).day)}
		site.Zone = zones[x.Name]
		for _, n := range s.members.site(x.Name) {
			node := plan.Node{Name: n.Name, Labels: n.Labels, Installed: map[string]uint64{}}
			said, _ := s.presence.get(n.PeerID)
			for _, i := range said.Node.Installed {
				node.Installed[i.Bundle] = i.Sequence
			}
			if d, t := said.Node.Desired, said.Node.Transfer; d != nil && t.Bytes > 0 && t.BytesHave == t.Bytes {
				if whole[x.Name] == nil {
					whole[x.Name] = map[manifest.Digest]bool{}
				}
				whole[x.Name][d.Checksum] = true
			}
			site.Nodes = append(site.Nodes, node)
		}
		w.Sites = append(w.Sites, site)
	}
	for _, x := range s.desired.all() {
		if x.policy != nil {
			w.InForce = append(w.InForce, plan.File{Text: x.document.Policy, Policy: x.policy})
		}
	}
	for _, k := range s.library.list() {
		w.Bundles = append(w.Bundles, plan.Bundle{Name: k.Name, Version: k.Version, Checksum: k.Digest, Sequence: k.Sequence, Published: !k.Committed.IsZero(), Revoked: s.revocations.why(k.Digest)})
	}
	type key struct {
		site   string
		bundle manifest.Digest
	}
	found := map[key]int64{}
	w.Missing = func(site string, d manifest.Digest) int64 {
		if whole[site][d] {
			return 0
		}
		n, ok := found[key{site, d}]
		if !ok {
			if n = s.unsent(site, d); n > 0 {
				n = onWire(int(n))
			}
			found[key{site, d}] = n
		}
		return n
	}
	return w, nil
}

// unsent is how many plain bytes of a bundle a site was never sent.
func (s *Seeder) unsent(site string, d manifest.Digest) (n int64) {
	k, ok := s.library.book(d)
	if !ok {
		return 0
	}
	numbers := make([]known, 0, len(k.catalog.Chunks))
	for _, r := range k.catalog.Chunks {
		if c, ok := s.library.chunk(r.ID); ok {
			numbers = append(numbers, c)
		}
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	a := s.ledger.sites[site]
	for _, c := range numbers {
		if a != nil {
			if bits, bit := a.Pages[c.number/fleet.PageBits], c.number%fleet.PageBits; bits != nil && bits[bit/8]&(1<<(bit%8)) != 0 {
				continue
			}
		}
		n += c.size
	}
	return n
}
