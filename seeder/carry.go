package seeder

import (
	"net/http"
	"slices"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// siteGrants shows the newest grants of a site.
func (x *rollouts) siteGrants(_ http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if _, err := x.db.Site(r.Context(), site); err != nil {
		return nil, err
	}
	return x.grantsOf(site)
}

// grantsOf are the newest grants of a site under the revisions in force, in the order of their policies.
func (x *rollouts) grantsOf(site string) ([]api.SiteGrant, error) {
	out := []api.SiteGrant{}
	for _, w := range x.desired.all() {
		held, ok := x.grant(site, w.Name, w.Revision)
		if !ok || w.policy == nil {
			continue
		}
		g, err := grant.Parse(held.Document.Doc)
		if err != nil {
			return nil, problem.New(problem.StoreDamaged, "grant %d of site %s in the seeder's database", held.Serial, site).Because(err)
		}
		out = append(out, api.SiteGrant{Policy: g.Policy, Revision: g.Revision, Serial: g.Serial, Opens: grant.Time(g.Opens), Expires: grant.Time(g.Expires),
			Halted: g.Halted, Nodes: len(g.Starts), Document: held.Document})
	}
	slices.SortFunc(out, func(a, b api.SiteGrant) int {
		if a.Policy < b.Policy {
			return -1
		}
		return 1
	})
	return out, nil
}

// carry makes the grants of a site to which bundles are brought by hand: see rollout.State.Carry. It answers with those of
// the policies that were named.
func (x *rollouts) carry(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	var c api.CarryGrants
	if err := api.ReadJSON(w, r, api.MaxBody, &c); err != nil {
		return nil, err
	}
	if len(c.Policies) == 0 || len(c.Policies) > api.MaxCarried {
		return nil, problem.New(problem.Usage, "%d policies: want 1 to %d", len(c.Policies), api.MaxCarried).WithDone("nothing was changed")
	}
	if _, err := x.db.Site(r.Context(), site); err != nil {
		return nil, err
	}
	var ruled []string // by a rollout
	for _, name := range c.Policies {
		wants := x.desired.all()
		i := slices.IndexFunc(wants, func(w want) bool { return w.Name == name && w.policy != nil })
		if i < 0 {
			return nil, problem.New(problem.NotFound, "there is no policy %.80q", name).WithDone("nothing was changed").WithNext("meshctl policy list")
		}
		switch p := wants[i].policy; {
		case p.Rollout == nil:
		case p.Rollout.Strict:
			return nil, problem.New(problem.RolloutState, "policy %s says gating: Strict: its grants are good for minutes and cannot be carried", name).
				WithDone("nothing was changed").WithNext("say gating: Lease, or bring the site a line")
		default:
			ruled = append(ruled, name)
		}
	}
	if err := x.step(r.Context()); err != nil { // one that was put in force a moment ago has not begun yet
		return nil, err
	}
	who := api.RolloutChange{By: callerOf(r.Context()).Name, Reason: "the bundle is brought to site " + site + " by hand"}
	for _, name := range ruled {
		if err := x.change(r.Context(), name, "carried", who, func(s rollout.State) (rollout.State, error) { return s.Carry(site) }); err != nil {
			return nil, err
		}
	}
	all, err := x.grantsOf(site)
	if err != nil {
		return nil, err
	}
	for _, name := range ruled {
		if !slices.ContainsFunc(all, func(g api.SiteGrant) bool { return g.Policy == name }) {
			return nil, problem.New(problem.RolloutState, "the rollout of policy %s gives site %s no grant yet: its canary comes first, or the site has no window", name, site).
				WithNext("meshctl rollout status %s", name)
		}
	}
	return slices.DeleteFunc(all, func(g api.SiteGrant) bool { return !slices.Contains(ruled, g.Policy) }), nil
}
