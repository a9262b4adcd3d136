package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// orderPlan is what an order will do, as far as the seeder has heard of the nodes.
type orderPlan struct {
	kind     order.Kind
	bundle   string
	version  string
	checksum manifest.Digest
	targets  order.Targets
	now      bool
	reason   string

	sites  []string       // with a node that it is for
	nodes  map[string]int // by site: for which it is
	acts   map[string]int // of them: that have something to do at once or in their window
	holds  int            // that will hold the release back before it is in force
	silent int
}

// release is one that an order may be about.
type release struct {
	version  string
	checksum manifest.Digest
}

// planOrder works out which release is meant, and for which nodes. Pure.
func planOrder(kind order.Kind, bundle, version string, t order.Targets, sites []status.Site) (*orderPlan, error) {
	p := &orderPlan{kind: kind, bundle: bundle, targets: t, nodes: map[string]int{}, acts: map[string]int{}}
	var chosen []status.Seen
	first, second := map[release]int{}, map[release]int{} // candidates, and those that count where there are none
	for _, s := range sites {
		for _, n := range s.Nodes {
			if !t.Names(s.Site, n.Node.Node, n.Labels) {
				continue
			}
			chosen = append(chosen, n)
			p.nodes[s.Site]++
			if n.Silent {
				p.silent++
			}
			now, wanted := inForce(n, bundle), asked(n, bundle)
			switch {
			case kind == order.Retry && wanted != nil && held(n):
				first[*wanted]++
			case kind == order.Rollback:
				if now != nil {
					first[*now]++
				}
				if wanted != nil {
					second[*wanted]++
				}
			}
		}
	}
	p.sites = slices.Sorted(maps.Keys(p.nodes))
	if len(chosen) == 0 {
		return nil, problem.New(problem.NotFound, "the order is for no node: %s", addressees(t)).WithNext("meshctl status")
	}
	r, err := p.choose(version, first, second)
	if err != nil {
		return nil, err
	}
	p.version, p.checksum = r.version, r.checksum
	for _, n := range chosen {
		now, wanted := inForce(n, bundle), asked(n, bundle)
		switch {
		case kind == order.Retry && wanted != nil && *wanted == r && held(n), kind == order.Rollback && now != nil && *now == r:
			p.acts[n.Site]++
		case kind == order.Rollback && wanted != nil && *wanted == r:
			p.holds++
		}
	}
	return p, nil
}

// choose takes the release of the version that was given, or the only one that it can be: the one in force that the
// policies ask for too, or where there is none of one kind, the only one of the other.
func (p *orderPlan) choose(version string, first, second map[release]int) (release, error) {
	all := maps.Clone(first)
	maps.Copy(all, second)
	if version != "" {
		maps.DeleteFunc(all, func(r release, _ int) bool { return r.version != version })
		if r, ok := only(all); ok {
			return r, nil
		}
		if len(all) == 0 {
			return release{}, problem.New(problem.NotFound, "%s %s is neither in force nor asked for on any of these nodes", p.bundle, version).
				WithDone("nothing was ordered").WithNext("meshctl status %s -o wide", p.sites[0])
		}
		return release{}, problem.New(problem.ChecksumMismatch, "version %s of %s has several checksums on these nodes", version, p.bundle).WithDone("nothing was ordered")
	}
	if r, ok := only(first); ok && (len(second) == 0 || second[r] > 0) { // else the same command, given twice, would go back twice
		return r, nil
	}
	both := maps.Clone(first)
	maps.DeleteFunc(both, func(r release, _ int) bool { return second[r] == 0 })
	if r, ok := only(both); ok {
		return r, nil
	}
	if r, ok := only(second); ok && len(first) == 0 {
		return r, nil
	}
	if len(all) == 0 {
		what := "no node of these has a release of %s, or is asked to"
		if p.kind == order.Retry {
			what = "no node of these holds a release of %s back"
		}
		return release{}, problem.New(problem.NotFound, what, p.bundle).WithDone("nothing was ordered").WithNext("meshctl status %s", p.sites[0])
	}
	var list []string
	for _, r := range slices.SortedFunc(maps.Keys(all), func(a, b release) int { return cmp.Compare(a.version, b.version) }) {
		if first[r] > 0 {
			list = append(list, fmt.Sprintf("%s on %s", r.version, cli.Count(first[r], "node")))
		} else {
			list = append(list, fmt.Sprintf("%s, wanted by %s", r.version, cli.Count(second[r], "node")))
		}
	}
	return release{}, problem.New(problem.Usage, "%s: several releases come into question: %s", p.bundle, cli.Printable(strings.Join(list, ", "))).
		WithDone("nothing was ordered").WithNext("say which one: --version VERSION")
}

func only(m map[release]int) (release, bool) {
	for r := range m {
		return r, len(m) == 1
	}
	return release{}, false
}

func inForce(n status.Seen, bundle string) *release {
	for _, i := range n.Installed {
		if i.Bundle == bundle {
			return &release{i.Version, i.Checksum}
		}
	}
	return nil
}

func asked(n status.Seen, bundle string) *release {
	if d := n.Desired; d != nil && d.Bundle == bundle {
		return &release{d.Version, d.Checksum}
	}
	return nil
}

// held: the node will not try by itself what it is asked for.
func held(n status.Seen) bool {
	return n.Phase == status.RolledBack || n.Phase == status.InstallFailed || n.Phase == status.Quarantined
}

func (p *orderPlan) order() order.Order {
	return order.Order{Kind: p.kind, Bundle: p.bundle, Version: p.version, Checksum: p.checksum, Targets: p.targets, Now: p.now, Reason: p.reason}
}

// shownSites is how many sites the plan lists.
const shownSites = 20

func (p *orderPlan) text() string {
	acting, all := 0, 0
	for s, n := range p.nodes {
		acting, all = acting+p.acts[s], all+n
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s %s (%s) on %d of %s in %s\n", p.kind, p.bundle, cli.Printable(p.version), p.checksum.Short(), acting, cli.Count(all, "node"), cli.Count(len(p.sites), "site"))
	var t cli.Table
	if p.kind == order.Rollback {
		t.Row("  when", map[bool]string{true: "at once", false: "in each node's maintenance window; at once with --now"}[p.now])
		t.Row("  then", "each node holds it back until meshctl retry, or until the policy asks for another release")
	} else {
		t.Row("  when", "in each node's maintenance window")
	}
	if p.holds > 0 {
		t.Row("  beside", cli.Count(p.holds, "more node")+": it is not in force there yet, and is held back")
	}
	if p.silent > 0 {
		t.Row("  silent", fmt.Sprintf("%s: they act when they are heard of again", cli.Count(p.silent, "node")))
	}
	for i, s := range p.sites {
		if i == shownSites {
			t.Row("  ...", "and "+cli.Count(len(p.sites)-shownSites, "more site"))
			break
		}
		t.Row("  "+cli.Printable(s), fmt.Sprintf("%d of %s", p.acts[s], cli.Count(p.nodes[s], "node")))
	}
	t.Row("  reason", cli.Printable(p.reason))
	if _, err := t.WriteTo(&b); err != nil {
		return b.String()
	}
	return b.String()
}

// orderSummary is the JSON answer of --dry-run.
type orderSummary struct {
	Kind     order.Kind      `json:"kind"`
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Targets  order.Targets   `json:"targets"`
	Now      bool            `json:"now"`
	Nodes    map[string]int  `json:"nodes"` // by site
	Acts     map[string]int  `json:"acts"`  // of them: with something to do
	Holds    int             `json:"holds"`
	Silent   int             `json:"silent"`
}

func (p *orderPlan) summary() orderSummary {
	return orderSummary{p.kind, p.bundle, p.version, p.checksum, p.targets, p.now, p.nodes, p.acts, p.holds, p.silent}
}

// addressees writes targets in a few words.
func addressees(t order.Targets) string {
	var parts []string
	switch {
	case len(t.Nodes) > 0:
		parts = append(parts, t.Sites[0]+"/"+several(t.Nodes, "node"))
	case len(t.Sites) > 0:
		parts = append(parts, several(t.Sites, "site"))
	default:
		parts = append(parts, "all sites")
	}
	for _, k := range slices.Sorted(maps.Keys(t.Labels)) {
		parts = append(parts, k+"="+t.Labels[k])
	}
	return cli.Printable(strings.Join(parts, " "))
}

func several(names []string, noun string) string {
	if len(names) <= 3 {
		return strings.Join(names, ",")
	}
	return cli.Count(len(names), noun)
}
