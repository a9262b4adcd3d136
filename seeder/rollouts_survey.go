package seeder

import (
	"context"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/window"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// survey is the world at one time, for all policies.
type survey struct {
	nodes map[string][]fleet.Node // by the policy that each follows
	zones map[string]*time.Location
	now   time.Time
	seen  func(fleet.Node) (_ status.Seen, quarantined bool)
}

// zonesOf are the time zones of sites, each loaded once. nil: not known, and a window at the wrong hour is worse than none.
func zonesOf(sites []fleet.Site) map[string]*time.Location {
	loaded, out := map[string]*time.Location{}, make(map[string]*time.Location, len(sites))
	for _, s := range sites {
		zone, ok := loaded[s.Timezone]
		if !ok {
			zone, _ = policy.LoadZone(s.Timezone)
			loaded[s.Timezone] = zone
		}
		out[s.Name] = zone
	}
	return out
}

// survey looks at every node once.
func (x *rollouts) survey(ctx context.Context, wants []want) (*survey, error) {
	sites, err := x.db.Sites(ctx)
	if err != nil {
		return nil, err
	}
	v := &survey{nodes: map[string][]fleet.Node{}, zones: zonesOf(sites), now: x.now(), seen: func(n fleet.Node) (status.Seen, bool) { return x.seen(n, false), x.quarantined(n.PeerID) }}
	x.mu.Lock()
	x.zones = v.zones
	x.mu.Unlock()
	var ps []*policy.Policy
	for _, w := range wants {
		if w.policy != nil {
			ps = append(ps, w.policy)
		}
	}
	for _, n := range x.members.all() {
		for _, c := range policy.Select(ps, n.Labels) {
			if c.Policy != nil {
				v.nodes[c.Policy.Name] = append(v.nodes[c.Policy.Name], n)
			}
		}
	}
	return v, nil
}

// world is what the rollout of one policy sees.
func (v *survey) world(w want) rollout.World {
	p := w.policy
	out := rollout.World{Policy: p, Revision: w.Revision, Sites: map[string]rollout.Site{}}
	zones := map[string]rollout.Site{}
	for _, n := range v.nodes[p.Name] {
		seen, quarantined := v.seen(n)
		f := rollout.Fact{Site: n.Site, Node: n.Name, Silent: seen.Silent, Quarantined: quarantined || seen.Quarantine != ""}
		f.Said, f.Reason, f.Staged = rollout.Say(&seen.Node, p.Bundle.Name, p.Bundle.Checksum)
		if c := p.Rollout.Canary; c != nil {
			f.Canary = c.Selector.Matches(n.Labels)
		}
		out.Nodes = append(out.Nodes, f)
		if _, ok := out.Sites[n.Site]; !ok {
			zone, key := v.zones[n.Site], ""
			if zone != nil { // the name of none would be UTC
				key = zone.String()
			}
			site, ok := zones[key]
			if !ok {
				if rules, err := p.Schedule.Rules(zone); err == nil {
					site = windowOf(rules, v.now)
				}
				zones[key] = site
			}
			out.Sites[n.Site] = site
		}
	}
	return out
}

// windowOf is the window that is open, or the next one. rules nil: there is none.
func windowOf(rules *window.Rules, now time.Time) rollout.Site {
	if rules == nil {
		return rollout.Site{}
	}
	spans := rules.Upcoming(now, 1)
	if len(spans) == 0 {
		return rollout.Site{}
	}
	return rollout.Site{Known: true, Opens: utc(spans[0].Opens), Closes: utc(spans[0].Closes)}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
