package rollout

import (
	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/window"
)

// Ahead is what is before each cohort, for batch.Project. rules gives those of a site, nil where it has no window.
func (s *State) Ahead(rules func(site string) *window.Rules) []batch.Cohort {
	out := make([]batch.Cohort, len(s.Cohorts))
	site := make([]string, len(s.Cohorts))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		c := &s.Cohorts[n.Cohort]
		site[n.Cohort] = n.Site
		if n.Settled.IsZero() {
			out[n.Cohort].Batches = c.Batches - c.Batch
			out[n.Cohort].Canary = out[n.Cohort].Canary || n.Batch == 0
		}
	}
	for i := range out {
		out[i].From, out[i].Rules = s.Cohorts[i].Next, rules(site[i])
	}
	return out
}

// Pace is that of the policy, from where the rollout stands.
func (s *State) Pace(p batch.Pace) batch.Pace {
	p.Canary, p.Soaking = p.Canary && !s.Canary.Passed, s.Canary.Settled
	return p
}
