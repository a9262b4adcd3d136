package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// File is a policy as written.
type File struct {
	File     string
	Text     string
	Policy   *policy.Policy
	Revision uint64 // that it would be, which the order of its nodes depends on; 0: not known
}

// Node is what the plan needs to know of one.
type Node struct {
	Name      string
	Labels    map[string]string
	Installed map[string]uint64 // sequence by bundle name
}

// Site is a site, its link and its nodes.
type Site struct {
	Name  string
	Zone  *time.Location // nil: not known
	WAN   wanprofile.Profile
	Today int64 // bytes of the link used on its local day
	Nodes []Node
}

// Bundle is a bundle that the seeder has.
type Bundle struct {
	Name, Version string
	Checksum      manifest.Digest
	Sequence      uint64
	Published     bool
	Revoked       string // why; empty: it is not
}

// World is what is in force.
type World struct {
	Now     time.Time
	Sites   []Site
	InForce []File
	Bundles []Bundle
	Cap     int64                                           // bytes per second of all sites together; 0: none
	Missing func(site string, bundle manifest.Digest) int64 // bytes of the bundle that the site was not sent yet, as they cross its link

	// Unpublished: which bundles there are is not known, and none is looked for.
	Unpublished bool
}

// Compute plans the files. prune: a policy in force that is not among them goes. Files have different names.
func Compute(w World, files []File, prune bool) *Plan {
	p := &Plan{AsOf: w.Now.UTC(), Changes: []Change{}, Warnings: []Warning{}}
	before, after := map[string]File{}, map[string]File{}
	for _, f := range w.InForce {
		before[f.Policy.Name] = f
		if !prune {
			after[f.Policy.Name] = f
		}
	}
	for _, f := range files {
		after[f.Policy.Name] = f
	}
	was, is := follow(w.Sites, before), follow(w.Sites, after)
	removal := policy.Removed(policies(before), policies(after), w.labels())
	p.Pairs, p.Removed, p.Held = removal.Of, removal.Removes, removal.Held()
	for _, f := range files {
		p.Changes = append(p.Changes, p.change(w, before, f, was, is))
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, stays := after[name]; !stays {
			b := before[name].Policy.Bundle
			p.Changes = append(p.Changes, Change{Policy: name, Action: Remove, Fields: []Field{}, Bundle: b.Name, Version: b.Version, NodesWere: was.nodes[name],
				Conflicts: []Conflict{}, Late: []Late{}, Windows: []Window{}})
		}
	}
	slices.SortStableFunc(p.Changes, func(a, b Change) int { return cmp.Compare(a.Policy, b.Policy) })
	if p.Held {
		p.warn(problem.PruneHeld, false, "%s, if this comes from Git", removal)
	}
	return p
}

// policies of a set, by name.
func policies(set map[string]File) (out []*policy.Policy) {
	for _, name := range slices.Sorted(maps.Keys(set)) {
		out = append(out, set[name].Policy)
	}
	return out
}

// labels of every node.
func (w World) labels() (out []map[string]string) {
	for _, s := range w.Sites {
		for _, n := range s.Nodes {
			out = append(out, n.Labels)
		}
	}
	return out
}

func (p *Plan) warn(code problem.Code, isError bool, format string, args ...any) {
	p.Warnings = append(p.Warnings, Warning{Code: string(code), Text: fmt.Sprintf(format, args...), Error: isError})
}

// pair is a policy and a node that follows it.
type pair struct {
	policy, site string
	node         int // in its site
}

// followers is who follows what under a set of policies.
type followers struct {
	of        map[pair]bool
	nodes     map[string]int            // by policy
	sites     map[string]map[string]int // nodes by policy and site
	conflicts map[string]map[string]*Conflict
}

func follow(sites []Site, set map[string]File) *followers {
	f := &followers{of: map[pair]bool{}, nodes: map[string]int{}, sites: map[string]map[string]int{}, conflicts: map[string]map[string]*Conflict{}}
	ps := policies(set)
	for _, s := range sites {
		for i, n := range s.Nodes {
			for _, c := range policy.Select(ps, n.Labels) {
				if c.Policy == nil {
					f.conflict(c.Conflict, s.Name+"/"+n.Name)
					continue
				}
				name := c.Policy.Name
				f.of[pair{name, s.Name, i}] = true
				f.nodes[name]++
				if f.sites[name] == nil {
					f.sites[name] = map[string]int{}
				}
				f.sites[name][s.Name]++
			}
		}
	}
	return f
}

func (f *followers) conflict(names []string, node string) {
	for _, a := range names {
		for _, b := range names {
			if a == b {
				continue
			}
			if f.conflicts[a] == nil {
				f.conflicts[a] = map[string]*Conflict{}
			}
			if f.conflicts[a][b] == nil {
				f.conflicts[a][b] = &Conflict{With: b, Example: node}
			}
			f.conflicts[a][b].Nodes++
		}
	}
}

// change plans one policy.
func (p *Plan) change(w World, before map[string]File, f File, was, is *followers) Change {
	name := f.Policy.Name
	c := Change{Policy: name, File: f.File, Action: Add, Fields: []Field{}, Bundle: f.Policy.Bundle.Name, Version: f.Policy.Bundle.Version,
		Nodes: is.nodes[name], NodesWere: was.nodes[name], Sites: len(is.sites[name]), Conflicts: []Conflict{}, Late: []Late{}, Windows: []Window{}}
	if old, ok := before[name]; ok {
		c.Fields = fields(old.Text, f.Text)
		if c.Action = Modify; old.Text == f.Text {
			c.Action = Same
		}
	}
	for _, with := range slices.Sorted(maps.Keys(is.conflicts[name])) {
		x := *is.conflicts[name][with]
		c.Conflicts = append(c.Conflicts, x)
		if name < with || !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Policy == with }) {
			p.warn(problem.PolicyConflict, true, "%d nodes are matched by %s and %s for bundle %s at equal priority %d, e.g. %s: they keep what they have", x.Nodes, name, with, c.Bundle, f.Policy.Priority, x.Example)
		}
	}
	bundle, published := p.bundle(w, f.Policy)
	if published && bundle.Revoked != "" {
		c.Revoked = true
		p.warn(problem.BundleRevoked, c.Action != Same, "policy %s: bundle %s %s was revoked: %s", name, c.Bundle, c.Version, bundle.Revoked)
	}
	if published {
		for _, s := range w.Sites {
			for i, n := range s.Nodes {
				if is.of[pair{name, s.Name, i}] && n.Installed[c.Bundle] > bundle.Sequence {
					c.Downgrades++
				}
			}
		}
		if c.Downgrades > 0 && !f.Policy.Downgrade {
			p.warn(problem.SequenceTooOld, false, "%d nodes have a newer %s than %s and will not go back: that needs spec.allowDowngrade, or a revision that reverts", c.Downgrades, c.Bundle, c.Version)
		}
	}
	if c.Nodes == 0 {
		c.Why = "it selects no node"
		return c
	}
	if c.Action != Same && published {
		p.schedule(w, f, func(s Site, i int) bool { return is.of[pair{name, s.Name, i}] }, is.sites[name], &c)
	}
	return c
}

// bundle finds what the policy names.
func (p *Plan) bundle(w World, pol *policy.Policy) (Bundle, bool) {
	if w.Unpublished {
		return Bundle{}, false
	}
	for _, b := range w.Bundles {
		if !b.Published || b.Name != pol.Bundle.Name || b.Version != pol.Bundle.Version {
			continue
		}
		if b.Checksum != pol.Bundle.Checksum {
			p.warn(problem.ChecksumMismatch, true, "policy %s: bundle %s %s has the checksum %s, the policy says %s", pol.Name, b.Name, b.Version, b.Checksum, pol.Bundle.Checksum)
			return b, false
		}
		return b, true
	}
	p.warn(problem.NotFound, true, "policy %s: there is no published bundle %s %s", pol.Name, pol.Bundle.Name, pol.Bundle.Version)
	return Bundle{}, false
}
