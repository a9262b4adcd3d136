package seeder

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// lookEvery is how often it is looked which sites are silent.
const lookEvery = 5 * time.Second

// silence compares which sites are silent now with which were. A site that is not in the list any more is forgotten.
func silence(was, is map[string]bool) (out []api.Event) {
	for site, silent := range is {
		switch {
		case silent && !was[site]:
			out = append(out, api.Event{Kind: "site", Name: "silent", Severity: "warning", Subject: site, Site: site, Code: string(problem.SiteSilent),
				Text: fmt.Sprintf("nothing has been heard of site %s; its nodes keep the last signed policy and may install without us", site)})
		case !silent && was[site]:
			out = append(out, api.Event{Kind: "site", Name: "returned", Subject: site, Site: site, Text: fmt.Sprintf("site %s is heard of again", site)})
		}
	}
	slices.SortFunc(out, func(a, b api.Event) int { return cmp.Compare(a.Site, b.Site) })
	return out
}

// silentNodes counts the nodes of each site, and those of them that are silent.
func (s *Seeder) silentNodes() map[string][2]int {
	out := map[string][2]int{}
	for _, n := range s.members.all() {
		c := out[n.Site]
		c[0]++
		if s.seen(n, false).Silent {
			c[1]++
		}
		out[n.Site] = c
	}
	return out
}

// watchSites says which sites fall silent and which return. Until nodes have had time to find a seeder that has just
// begun, it says nothing.
func (s *Seeder) watchSites(ctx context.Context) error {
	begun, was := s.now(), map[string]bool{}
	return every(ctx, lookEvery, func() {
		if err := s.lookAtAccused(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("accusations not looked at; trying again", "in", lookEvery.String(), "err", err)
		}
		if s.now().Sub(begun) > s.cfg.SilentAfter {
			was = s.lookAtSites(was)
		}
	})
}

func (s *Seeder) lookAtSites(was map[string]bool) map[string]bool {
	is := map[string]bool{}
	for site, c := range s.silentNodes() {
		is[site] = c[0] == c[1]
	}
	for _, e := range silence(was, is) {
		s.events.publish(e)
	}
	return is
}

// nodeEvent is what to say when a node's statement follows another; false: nothing.
func nodeEvent(was, is status.Node) (api.Event, bool) {
	if was.Phase == is.Phase && was.Quarantine == is.Quarantine {
		return api.Event{}, false
	}
	e := api.Event{Kind: "node", Name: string(is.Phase), Severity: "info", Subject: is.Site + "/" + is.Node, Site: is.Site, Node: is.Node,
		Code: status.Clip(is.Code, 16), Text: status.Clip(fmt.Sprintf("%s/%s is %s: %s", is.Site, is.Node, is.Phase, is.Reason), 512)}
	if is.Desired != nil {
		e.Policy = status.Clip(is.Desired.Policy, 128)
	}
	switch is.Phase {
	case status.Quarantined:
		e.Severity = "critical"
	case status.RolledBack, status.InstallFailed:
		e.Severity = "warning"
	case status.Pending, status.Staging, status.Staged, status.Scheduled, status.Installing, status.Installed, status.Deferred:
	default:
		return api.Event{}, false // no phase that we know: what a newer node says in it we would not understand
	}
	if is.Quarantine != "" {
		e.Severity = "critical"
	}
	return e, true
}
