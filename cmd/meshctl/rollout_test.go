package main

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// The screen of a rollout says where it stands, when it goes on, who stopped it, and which sites stand out.
func TestRolloutScreen(t *testing.T) {
	at := func(h, m int) *time.Time { x := time.Date(2026, 9, 15, h, m, 0, 0, time.UTC); return &x }
	r := api.Rollout{Phases: map[string]int{"Installed": 98, "RolledBack": 2, "Waiting": 300}, Canary: &api.CanaryState{Nodes: 5, Settled: 5, Until: at(3, 0)},
		Pauses:  []api.RolloutPause{{At: *at(7, 10), By: "budget", Reason: "2 of 20 nodes failed, 1 may", Resumed: at(7, 30), Who: "ann (admin)", Why: "known fault"}},
		Sites:   []api.RolloutSite{{Site: "site-0188", Nodes: 20, Failed: 2, Reason: "over its own budget"}},
		Cohorts: []api.RolloutCohort{{Opens: *at(7, 0), Closes: *at(9, 0), Sites: 20, Nodes: 400, Batch: 1, Batches: 4}}}
	r.Policy, r.Revision, r.Bundle, r.Version, r.State = "retail-pos-prod", 3, "pos-rhel9", "2026.08.25-1", "Running"
	r.Batch, r.Batches, r.Nodes, r.Settled, r.Failed, r.Budget = 1, 4, 400, 100, 2, 8
	r.Window, r.Open, r.Next, r.Finish = "Tue 02:00-04:00 America/Chicago", true, at(9, 0), at(8, 45)
	want := `retail-pos-prod rev 3  pos-rhel9 2026.08.25-1  RUNNING  batch 1/4  100 of 400 settled: 98 Installed, 300 Waiting, 2 RolledBack  failed 2, more than 8 stop it
window   Tue 02:00-04:00 America/Chicago  OPEN until 2026-09-15 09:00 UTC
finish   about 2026-09-15 08:45 UTC
canary   5 of 5 settled, 0 failed  soaks until 2026-09-15 03:00 UTC
cohort   20 sites, 400 nodes: batch 1 of 4  2026-09-15 07:00 UTC to 2026-09-15 09:00 UTC
paused   2026-09-15T07:10:00Z by budget: 2 of 20 nodes failed, 1 may
resumed  2026-09-15T07:30:00Z by ann (admin): known fault
site     site-0188: 2 of 20 failed, over its own budget
`
	if got := rolloutScreen(r); got != want {
		t.Errorf("got:\n%s", got)
	}
	r.Reason = "\x1b[2Jx"
	if strings.Contains(rolloutScreen(r), "\x1b") {
		t.Error("a screen moves the cursor")
	}
}

// What ends the watch, and with which exit status.
func TestRolloutEnd(t *testing.T) {
	for state, want := range map[api.RolloutState]struct {
		done bool
		exit problem.Exit
	}{
		api.RolloutWaiting: {}, api.RolloutCanary: {}, api.RolloutSoaking: {}, api.RolloutRunning: {},
		api.RolloutDone: {done: true}, api.RolloutPaused: {true, problem.ExitDegraded}, api.RolloutRollingBack: {true, problem.ExitDegraded},
		api.RolloutSuspended: {true, problem.ExitDegraded}, api.RolloutSuperseded: {true, problem.ExitDegraded}, api.RolloutDeleted: {true, problem.ExitDegraded},
	} {
		r := api.Rollout{}
		r.State = string(state)
		done, err := rolloutEnd(r)
		if done != want.done || want.exit != 0 && problem.ExitOf(err) != want.exit || want.exit == 0 && err != nil {
			t.Errorf("%s: %v, %v", state, done, err)
		}
	}
	r := api.Rollout{}
	r.State, r.Failed = string(api.RolloutDone), 1
	if done, err := rolloutEnd(r); !done || problem.ExitOf(err) != problem.ExitDegraded {
		t.Errorf("%v, %v", done, err)
	}
}
