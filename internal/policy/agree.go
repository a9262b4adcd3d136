package policy

import (
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/window"
)

// Paths of fields that have to agree with others.
const (
	pathWindow      = "spec.schedule.maintenanceWindow"
	pathWindows     = "spec.schedule.maintenanceWindows"
	pathZone        = "spec.schedule.timezone"
	pathBlackouts   = "spec.schedule.blackouts"
	pathCutoff      = "spec.schedule.startCutoffMinutes"
	pathDeferrals   = "spec.schedule.maxDeferrals"
	pathAfter       = "spec.schedule.deadline.after"
	pathAction      = "spec.schedule.deadline.action"
	pathStartBefore = "spec.staging.startBefore"
	pathRequire     = "spec.staging.requireBeforeWindow"
	pathTimeout     = "spec.rollback.healthCheckTimeoutSeconds"
	pathHealthy     = "spec.rollback.healthyForSeconds"
	pathProvider    = "spec.rollback.snapshot.provider"
	pathExclude     = "spec.targets.exclude"
)

// agree checks what several fields say together.
func (r *reader) agree(p *Policy) {
	r.times(p)
	if n := r.values[pathProvider]; n != nil && p.Rollback.Snapshot.Provider == ProviderNone && p.Rollback.Snapshot.Required {
		r.invalid(n, "%s none needs spec.rollback.snapshot.required: false, to say that installing without a way back is meant", pathProvider)
	}
	if n := r.values[pathExclude]; n != nil && len(p.Exclude.Expressions) == 0 && p.Exclude.Matches(p.Selector.Labels) {
		r.invalid(n, "%s picks every node that spec.targets.selector picks: to stop the policy, write spec.suspend: true", pathExclude)
	}
	if o := p.Rollout; o != nil && o.Budget.Rollback && !p.Rollback.Enabled {
		at := r.rolloutPath() + ".failureBudget.onExceeded"
		r.invalid(r.near(at), "%s is Rollback and spec.rollback.enabled is false: change one of them", at)
	}
	for _, path := range []string{pathRequire, pathStartBefore} {
		if n := r.values[path]; n != nil && p.Schedule.Windows == "" && (path != pathRequire || p.Staging.RequireBeforeWindow) {
			r.invalid(n, "%s is about windows, and there is none: give %s", path, pathWindow)
		}
	}
}

// span is a time that a field gives.
type span struct {
	path    string
	length  time.Duration
	written bool // not only the default
}

func (s span) String() string {
	if s.written {
		return s.length.String()
	}
	return s.length.String() + " by default"
}

// times checks healthyFor < health check timeout < progress deadline < shortest window, of those that there are.
func (r *reader) times(p *Policy) {
	of := func(path string, d time.Duration) span { return span{path, d, r.values[path] != nil} }
	chain := []span{of(pathHealthy, time.Duration(p.Rollback.HealthyForSeconds)*time.Second), of(pathTimeout, time.Duration(p.Rollback.HealthTimeoutSeconds)*time.Second)}
	if p.Rollout != nil {
		chain = append(chain, of(r.rolloutPath()+".progressDeadlineMinutes", p.Rollout.ProgressDeadline))
	}
	if p.Schedule.Windows != "" {
		set, err := window.Parse(p.Schedule.Windows)
		if err != nil {
			if len(r.found) == 0 { // each is right, together they are too many
				r.invalid(r.first(pathWindows, pathWindow), "%s and %s: %v", pathWindow, pathWindows, err)
			}
			return
		}
		shortest := set.Shortest()
		chain = append(chain, span{pathWindow, shortest, true})
		if p.Schedule.Cutoff >= shortest {
			r.invalid(r.values[pathCutoff], "%s is %s and must be less than %s, of which the shortest is %s: no install could ever start", pathCutoff, p.Schedule.Cutoff, pathWindow, shortest)
		}
	}
	for i, s := range chain[1:] {
		less := chain[i]
		if less.length < s.length {
			continue
		}
		which := "which is " + s.String()
		if s.path == pathWindow {
			which = "of which the shortest is " + s.length.String()
		}
		r.invalid(r.first(less.path, s.path, pathWindows), "%s is %s and must be less than %s, %s", less.path, less, s.path, which)
	}
}

// first is the first of the fields that is written.
func (r *reader) first(paths ...string) *yaml.Node {
	for _, path := range paths {
		if n := r.values[path]; n != nil {
			return n
		}
	}
	return r.values[""]
}
