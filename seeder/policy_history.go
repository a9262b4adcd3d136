package seeder

import (
	"net/http"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

func (s *Seeder) historyRoutes(handle func(string, string, route)) {
	handle("GET", api.PathPolicy, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		for _, w := range s.desired.all() {
			if w.Name == r.PathValue("policy") {
				return w.info(), nil
			}
		}
		return nil, noPolicy(r)
	})
	handle("GET", api.PathPolicyHistory, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		ps, err := s.db.PolicyHistory(r.Context(), r.PathValue("policy"))
		if err == nil && len(ps) == 0 {
			err = noPolicy(r)
		}
		out := make([]api.PolicyRevision, 0, len(ps))
		for _, p := range ps {
			out = append(out, s.revisionOf(p))
		}
		return out, err
	})
}

func noPolicy(r *http.Request) error {
	return problem.New(problem.NotFound, "there is no policy %.80q", r.PathValue("policy")).WithNext("meshctl policy list")
}

// revisionOf tells of a revision what can be read of it.
func (s *Seeder) revisionOf(p fleet.Policy) api.PolicyRevision {
	out := api.PolicyRevision{Revision: p.Revision, Recorded: p.Recorded}
	d, err := policy.Read(p.Document)
	if err != nil {
		return out
	}
	out.Created, _ = d.Time()
	out.Deleted, out.Reverts, out.Text = d.Deleted, d.Reverts, d.Policy
	if d.Commit != nil {
		out.Commit = d.Commit.ID
	}
	out.SignedBy = s.signers(p.Document)
	if x, err := d.Parse(); err == nil && x != nil {
		out.Bundle, out.Version, out.Checksum = x.Bundle.Name, x.Bundle.Version, x.Bundle.Checksum
	}
	return out
}
