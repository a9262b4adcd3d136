package rollout

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/policy"
)

// refresh is how old a grant under gating: Strict gets before there is another: two of them fit into GrantFresh.
const refresh = policy.GrantFresh * 2 / 5

// unlimited is for how long a grant is given where no window ends.
const unlimited = 48 * time.Hour

// grants asks for the grant of every site where what it should say is not what the last one said.
func (x *stepper) grants() {
	bySite := map[string][]*Node{}
	for i := range x.Nodes {
		n := &x.Nodes[i]
		bySite[n.Site] = append(bySite[n.Site], n)
	}
	// Each site that once had a grant is told when nothing is left of it.
	halted := x.halted()
	for _, site := range sorted(bySite) {
		if over(bySite[site]) || x.unready(site, bySite[site]) {
			continue
		}
		last := x.Sites[site]
		g := x.grant(site, bySite[site], halted)
		switch {
		case g == nil && (last.Serial == 0 || last.Halted):
			continue
		case g == nil:
			why := "no node of the site may start"
			if !x.Canary.Passed {
				why = "the canary comes first"
			}
			g = x.empty(site, why)
		}
		h := hash(g)
		old := x.r.Strict && g.Halted == "" && !x.now.Before(last.At.Add(refresh))
		if last.Serial != 0 && last.Hash == h && !old || last.Serial == 0 && g.Halted != "" {
			continue
		}
		g.Serial, g.Created = x.serial(last), grant.Timestamp(x.now)
		x.Sites[site] = Sent{Serial: g.Serial, Hash: h, At: x.now, Halted: g.Halted != "", Opens: x.w.Sites[site].Opens, Carried: last.Carried}
		x.out = append(x.out, Action{Grant: g})
	}
}

// serial numbers the next grant of a site: above its last one and those of earlier revisions, and not below the time of day.
// So a seeder that came back from a backup is above what it has forgotten, which nodes have not.
func (x *stepper) serial(last Sent) uint64 {
	return max(x.Serial, last.Serial, uint64(max(x.now.Unix()-1, 0))) + 1
}

// over: there is nothing left for the site to do.
func over(nodes []*Node) bool {
	return !slices.ContainsFunc(nodes, func(n *Node) bool { return n.Result != Installed && n.Result != TakenBack })
}

// unready: the site was not staged when its window opened, and the policy lets it wait for the next one.
func (x *stepper) unready(site string, nodes []*Node) bool {
	w, s := x.w.Sites[site], x.Sites[site]
	if !x.w.Policy.Staging.RequireBeforeWindow || s.Carried || w.Opens.IsZero() || !w.open(x.now) || s.Serial != 0 && s.Opens.Equal(w.Opens) && !s.Halted {
		return false
	}
	if !s.Late.Equal(w.Opens) && x.staged(nodes) {
		return false
	}
	s.Late = w.Opens
	x.Sites[site] = s
	return true
}

// empty is a grant by which nothing starts.
func (x *stepper) empty(site, why string) *grant.Grant {
	b := x.w.Policy.Bundle
	opens, closes := x.span(site)
	failures := x.r.Budget.MaxPerSite
	return &grant.Grant{Schema: grant.Schema, Site: site, Policy: x.Policy, Revision: x.Revision, Bundle: b.Name, Version: b.Version, Checksum: b.Checksum,
		Opens: grant.Timestamp(opens), Expires: grant.Timestamp(closes), Halted: clip(why), Starts: []grant.Start{},
		MaxUnavailable: 1, MaxFailures: failures, Deadline: max(1, int(x.progress()/time.Second))}
}

// span is the window of a site, with ends: where it has none the grant ends after a day or two, and is renewed before.
func (x *stepper) span(site string) (opens, closes time.Time) {
	w := x.w.Sites[site]
	opens, closes = w.Opens, w.Closes
	if opens.IsZero() {
		opens = x.Since
	}
	if closes.IsZero() {
		closes = x.now.Truncate(unlimited / 2).Add(unlimited)
	}
	if !opens.Before(closes) {
		opens = closes.Add(-time.Second)
	}
	return opens.Truncate(time.Second), closes.Truncate(time.Second)
}

// grant is what the site is to be given; nil: nothing.
func (x *stepper) grant(site string, nodes []*Node, halted string) *grant.Grant {
	w := x.w.Sites[site]
	if halted != "" {
		return x.empty(site, halted)
	}
	if !w.Known {
		return nil
	}
	if !w.open(x.now) && (x.r.Strict || x.Sites[site].Serial == 0 && !x.Sites[site].Carried && !x.staged(nodes)) {
		return nil
	}
	g := x.empty(site, "")
	g.MaxUnavailable = batch.AtOnce(x.r, len(nodes))
	opens, closes := x.span(site)
	fit, more := []grant.Start{}, false
	done := false
	for _, n := range nodes {
		f := x.facts[place{n.Site, n.Name}]
		done = done || n.Result == Installed
		if f == nil || f.Quarantined {
			continue
		}
		after, ok := x.after(n, opens)
		if !ok || !after.Before(closes) || len(fit) == grant.MaxStarts {
			continue
		}
		more = more || n.Result != Installed && n.Result != TakenBack
		fit = append(fit, grant.Start{Node: n.Name, Batch: n.Batch, After: grant.Timestamp(after)})
	}
	if !more {
		return nil
	}
	g.Starts = fit
	if !done && len(fit) > 1 {
		g.First = 1
		x.foremost(nodes, g.Starts)
	}
	return g
}

// foremost puts the node first that can be the site's own canary: it neither has failed nor is silent. Were it one that
// has failed, the site would wait for it for ever.
func (x *stepper) foremost(nodes []*Node, starts []grant.Start) {
	fit := map[string]bool{}
	for _, n := range nodes {
		f := x.facts[place{n.Site, n.Name}]
		fit[n.Name] = f != nil && !f.Silent && n.Result == ""
	}
	i := slices.IndexFunc(starts, func(s grant.Start) bool { return fit[s.Node] })
	if i > 0 {
		s := starts[i]
		copy(starts[1:], starts[:i])
		starts[0] = s
	}
}

// staged: all of the site's nodes that are heard hold the bundle, and one does.
func (x *stepper) staged(nodes []*Node) bool {
	some := false
	for _, n := range nodes {
		f := x.facts[place{n.Site, n.Name}]
		if f == nil || f.Silent || f.Quarantined || n.Result != "" {
			continue
		}
		if !f.Staged {
			return false
		}
		some = true
	}
	return some
}

// after is when a node may start in the window that opens then; ok is false if that is not planned.
func (x *stepper) after(n *Node, opens time.Time) (_ time.Time, ok bool) {
	c := &x.Cohorts[n.Cohort]
	var at time.Time
	switch {
	case n.Batch == 0 && x.r.Canary != nil:
		return opens, true
	case !x.Canary.Passed:
		return at, false
	case n.Batch == 0:
		return opens, true
	case n.Batch <= c.Batch:
		at = c.At[n.Batch-1]
	case x.r.Strict:
		return at, false
	default:
		at = c.Next
		if at.Before(opens) { // the window opens with what is left of the batch before, or with the next
			at = opens
			if c.Batch > 0 && c.Settled.IsZero() && !x.r.FromStarted {
				at = at.Add(x.interval(c))
			}
		}
		at = at.Add(time.Duration(n.Batch-c.Batch-1) * x.interval(c))
	}
	if at.Before(opens) {
		at = opens
	}
	return at, true
}

// hash tells grants apart by what they say, but for their numbers and dates.
func hash(g *grant.Grant) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, g.Opens, g.Expires, g.Halted, g.First, g.MaxUnavailable, g.MaxFailures, g.Deadline, g.Checksum, g.Starts)
	return h.Sum64()
}

// clip keeps a reason within what a grant may say.
func clip(s string) string {
	if len(s) > grant.MaxReason {
		s = s[:grant.MaxReason-4] + "..."
	}
	return s
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
