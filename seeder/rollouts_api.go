package seeder

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/window"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// maxStanding bounds the sites of a rollout that are shown because they stand out, and maxHistory its revisions.
const (
	maxStanding = 50
	maxHistory  = 100
	maxWhy      = 200 // bytes of a person's reason
)

// rolloutRoutes shows the rollouts and lets people stop them and let them go on.
func (s *Seeder) rolloutRoutes(handle func(method, path string, fn route)) {
	x := s.rollouts
	handle("GET", api.PathRollouts, func(http.ResponseWriter, *http.Request) (any, error) {
		out := []api.Rollout{}
		for _, name := range x.names() {
			if k, ok := x.state(name); ok {
				out = append(out, x.view(k))
			}
		}
		return out, nil
	})
	handle("GET", api.PathRollout, func(_ http.ResponseWriter, r *http.Request) (any, error) { return x.one(r) })
	handle("GET", api.PathRolloutHistory, x.history)
	handle("GET", api.PathSiteGrants, x.siteGrants)
	handle("POST", api.PathSiteGrants, x.carry)
	change := func(path, event string, fn func(rollout.State, time.Time, api.RolloutChange) (rollout.State, error)) {
		handle("POST", path, func(w http.ResponseWriter, r *http.Request) (any, error) {
			var c api.RolloutChange
			if err := api.ReadJSON(w, r, api.MaxBody, &c); err != nil {
				return nil, err
			}
			c.Reason = strings.TrimSpace(c.Reason)
			if c.Reason == "" || len(c.Reason) > maxWhy || status.Clean(c.Reason) != c.Reason || strings.Contains(c.Reason, "\n") {
				return nil, problem.New(problem.Usage, "the reason has %d bytes: want one line of 1 to %d", len(c.Reason), maxWhy).WithDone("nothing was changed")
			}
			// Who asks is who the token says; a person behind the socket, or behind a token of many, may name himself too.
			switch who := callerOf(r.Context()).Name; {
			case c.By == "" || c.By == who:
				c.By = who
			default:
				c.By = status.Clip(strings.ReplaceAll(c.By, "\n", " "), 64) + " (" + who + ")"
			}
			name := r.PathValue("policy")
			if err := x.change(r.Context(), name, event, c, func(s rollout.State) (rollout.State, error) { return fn(s, x.now(), c) }); err != nil {
				return nil, err
			}
			return x.one(r)
		})
	}
	change(api.PathRolloutPause, "paused", func(s rollout.State, now time.Time, c api.RolloutChange) (rollout.State, error) {
		return s.Pause(now, c.By, c.Reason)
	})
	change(api.PathRolloutResume, "resumed", func(s rollout.State, now time.Time, c api.RolloutChange) (rollout.State, error) {
		return s.Resume(now, c.By, c.Reason)
	})
	change(api.PathRolloutPromote, "promoted", func(s rollout.State, _ time.Time, c api.RolloutChange) (rollout.State, error) {
		return s.Promote(c.By, c.Reason)
	})
	change(api.PathRolloutRetry, "retried", func(s rollout.State, _ time.Time, c api.RolloutChange) (rollout.State, error) {
		next, _, err := s.Retry("")
		return next, err
	})
}

func (x *rollouts) one(r *http.Request) (any, error) {
	name := r.PathValue("policy")
	k, ok := x.state(name)
	if !ok {
		return nil, noRollout(name)
	}
	return x.view(k), nil
}

// history is every revision's rollout, the newest first.
func (x *rollouts) history(_ http.ResponseWriter, r *http.Request) (any, error) {
	name := r.PathValue("policy")
	limit := maxHistory
	if t := r.URL.Query().Get("limit"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 || n > maxHistory {
			return nil, problem.New(problem.Usage, "limit %.20q: want 1 to %d", t, maxHistory)
		}
		limit = n
	}
	rows, err := x.db.RolloutHistory(r.Context(), name, limit)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, noRollout(name)
	}
	out := []api.Rollout{}
	for _, row := range rows {
		s, err := rollout.Decode(row.State)
		if err != nil {
			return nil, problem.New(problem.StoreDamaged, "rollout of policy %s, revision %d", name, row.Revision).Because(err)
		}
		out = append(out, x.view(kept{s, row.State, row.Updated}))
	}
	return out, nil
}

// lines are the rollouts under way, one line each.
func (x *rollouts) lines() []status.RolloutLine {
	out := []status.RolloutLine{}
	for _, name := range x.names() {
		if k, ok := x.state(name); ok && !k.Final() {
			out = append(out, x.view(k).RolloutLine)
		}
	}
	return out
}

// view is a rollout as people see it.
func (x *rollouts) view(k kept) api.Rollout {
	s, now := &k.State, x.now().UTC()
	out := api.Rollout{Since: s.Since, Phases: map[string]int{}, Pauses: []api.RolloutPause{}, Sites: []api.RolloutSite{}, Cohorts: []api.RolloutCohort{}}
	out.Policy, out.Revision, out.State, out.Reason, out.Nodes = s.Policy, s.Revision, string(s.Phase), s.Reason, len(s.Nodes)
	out.Bundle, out.Version = s.Bundle, s.Version
	var p *policy.Policy
	for _, w := range x.desired.all() {
		if w.Name == s.Policy && w.Revision == s.Revision && w.policy != nil {
			p = w.policy
			out.Checksum = p.Bundle.Checksum
		}
	}
	per := 0
	if p != nil && p.Rollout != nil {
		per = p.Rollout.Budget.MaxPerSite
	}
	bySite := map[string]*api.RolloutSite{}
	cohorts := make([]api.RolloutCohort, len(s.Cohorts))
	seen := map[string]bool{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		word := n.Word()
		out.Phases[word]++
		if !n.Settled.IsZero() {
			out.Settled++
		}
		cohorts[n.Cohort].Nodes++
		site := bySite[n.Site]
		if site == nil {
			site = &api.RolloutSite{Site: n.Site}
			bySite[n.Site] = site
		}
		if !seen[n.Site] {
			seen[n.Site] = true
			cohorts[n.Cohort].Sites++
		}
		site.Nodes++
		if n.Result.Failed() {
			site.Failed++
		}
		if site.Reason == "" && n.Result == "" && !n.Settled.IsZero() {
			site.Reason = n.Reason
		}
	}
	for _, name := range sortedKeys(bySite) {
		site := bySite[name]
		if p != nil && site.Failed > per {
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
	for i, c := range s.Cohorts {
		cohorts[i].Opens, cohorts[i].Batch, cohorts[i].Batches = c.Opens, c.Batch, c.Batches
		if c.Batches > out.Batches || c.Batches == out.Batches && c.Batch < out.Batch {
			out.Batch, out.Batches = c.Batch, c.Batches
		}
	}
	for _, pause := range s.Pauses {
		q := api.RolloutPause{At: pause.At, By: pause.By, Reason: pause.Reason, Who: pause.Who, Why: pause.Why}
		if !pause.Resumed.IsZero() {
			q.Resumed = &pause.Resumed
		}
		out.Pauses = append(out.Pauses, q)
	}
	if p != nil && p.Rollout != nil {
		out.Budget, _ = rollout.Allowed(p.Rollout.Budget, t.Of)
		x.ahead(&out, s, p, cohorts, now)
	}
	out.Cohorts = append(out.Cohorts, cohorts...)
	return out
}

// ahead adds the windows, and when it will be done.
func (x *rollouts) ahead(out *api.Rollout, s *rollout.State, p *policy.Policy, cohorts []api.RolloutCohort, now time.Time) {
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
		cohorts[i].Opens, cohorts[i].Closes = w.Opens, w.Closes
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
	case p.CanaryFirst() && p.Rollout.Canary.Manual && !s.Canary.Passed && s.Canary.Promoted == "":
		return // a person promotes the canary: nobody knows when
	}
	if f := batch.Project(now, s.Pace(batch.PaceOf(p)), ahead); !f.Finish.IsZero() {
		at := f.Finish.UTC()
		out.Finish = &at
	}
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
