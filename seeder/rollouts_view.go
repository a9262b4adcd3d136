package seeder

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/window"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// view is a rollout as people see it.
func (x *rollouts) view(k kept) api.Rollout {
	s, now := &k.State, x.now().UTC()
	out := api.Rollout{Since: s.Since, Phases: map[string]int{}, Pauses: pausesOf(s), Sites: []api.RolloutSite{}}
	out.Policy, out.Revision, out.State, out.Reason, out.Nodes = s.Policy, s.Revision, string(s.Phase), s.Reason, len(s.Nodes)
	out.Bundle, out.Version = s.Bundle, s.Version
	out.Cohorts = make([]api.RolloutCohort, len(s.Cohorts))
	for i, c := range s.Cohorts {
		out.Cohorts[i] = api.RolloutCohort{Opens: c.Opens, Batch: c.Batch, Batches: c.Batches}
		if c.Batches > out.Batches || c.Batches == out.Batches && c.Batch < out.Batch {
			out.Batch, out.Batches = c.Batch, c.Batches
		}
	}
	p := x.policyOf(s)
	sites := countNodes(&out, s)
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		site := sites[name]
		if p != nil && (p.Rollout == nil || site.Failed > p.Rollout.Budget.MaxPerSite) && site.Failed > 0 {
			out.SitesOver++
			site.Reason = "over its own budget"
		}
		// Every site with a failure, up to what an order can name: who lets them try again needs them.
		if site.Failed > 0 && len(out.Sites) < order.MaxSites || site.Reason != "" && len(out.Sites) < maxStanding {
			out.Sites = append(out.Sites, *site)
		}
	}
	t := s.Tally()
	out.Failed = t.Failed
	if c := s.CanaryTally(); c.Nodes > 0 {
		out.Canary = &api.CanaryState{Nodes: c.Nodes, Settled: c.Settled, Failed: c.Failed}
		if p != nil && p.Rollout != nil && p.Rollout.Canary != nil && !s.Canary.Settled.IsZero() {
			until := s.Canary.Settled.Add(p.Rollout.Canary.Soak)
			out.Canary.Until = &until
		}
	}
	if p != nil {
		out.Checksum = p.Bundle.Checksum
	}
	if p != nil && p.Rollout != nil {
		out.Budget, _ = rollout.Allowed(p.Rollout.Budget, t.Of)
		x.ahead(&out, s, p, now)
	}
	return out
}

// policyOf is the policy in the revision of a rollout, nil when another one is in force.
func (x *rollouts) policyOf(s *rollout.State) *policy.Policy {
	for _, w := range x.desired.all() {
		if w.Name == s.Policy && w.Revision == s.Revision {
			return w.policy
		}
	}
	return nil
}

// countNodes counts the nodes by what became of them, by cohort, and by site, which it returns.
func countNodes(out *api.Rollout, s *rollout.State) map[string]*api.RolloutSite {
	sites := map[string]*api.RolloutSite{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		out.Phases[n.Word()]++
		if !n.Settled.IsZero() {
			out.Settled++
		}
		out.Cohorts[n.Cohort].Nodes++
		site := sites[n.Site]
		if site == nil {
			site = &api.RolloutSite{Site: n.Site}
			sites[n.Site] = site
			out.Cohorts[n.Cohort].Sites++
		}
		site.Nodes++
		if n.Result.Failed() {
			site.Failed++
		}
		if site.Reason == "" && n.Result == "" && !n.Settled.IsZero() {
			site.Reason = n.Reason
		}
	}
	return sites
}

func pausesOf(s *rollout.State) []api.RolloutPause {
	out := []api.RolloutPause{}
	for _, p := range s.Pauses {
		q := api.RolloutPause{At: p.At, By: p.By, Reason: p.Reason, Who: p.Who, Why: p.Why}
		if !p.Resumed.IsZero() {
			q.Resumed = &p.Resumed
		}
		out = append(out, q)
	}
	return out
}

// ahead adds the windows, and when it will be done.
func (x *rollouts) ahead(out *api.Rollout, s *rollout.State, p *policy.Policy, now time.Time) {
	if p.Schedule.Windows != "" {
		out.Window = strings.TrimSpace(p.Schedule.Windows + " " + p.Schedule.Zone)
	}
	x.mu.RLock()
	zones := x.zones
	x.mu.RUnlock()
	rules := func(site string) *window.Rules {
		r, err := p.Schedule.Rules(zones[site])
		if err != nil {
			return nil
		}
		return r
	}
	ahead := s.Ahead(rules)
	for i, a := range ahead {
		w := windowOf(a.Rules, now)
		if !w.Known {
			continue
		}
		out.Cohorts[i].Opens, out.Cohorts[i].Closes = w.Opens, w.Closes
		open := !w.Opens.After(now)
		at := w.Opens
		if open {
			at = w.Closes
		}
		if !at.IsZero() && (out.Next == nil || open && !out.Open || open == out.Open && at.Before(*out.Next)) {
			out.Next = &at
		}
		out.Open = out.Open || open
	}
	switch {
	case s.Final(), s.Phase == rollout.Done, s.Phase == rollout.Paused, s.Phase == rollout.Suspended, s.Phase == rollout.RollingBack:
		return
	case p.CanaryFirst() && !s.Canary.Passed && s.Canary.Promoted == "" && (p.Rollout.Canary.Manual || s.CanaryTally().Nodes == 0):
		return // a person promotes the canary: nobody knows when
	}
	if f := batch.Project(now, s.Pace(batch.PaceOf(p)), ahead); !f.Finish.IsZero() {
		at := f.Finish.UTC()
		out.Finish = &at
	}
}
