package seeder

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
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
