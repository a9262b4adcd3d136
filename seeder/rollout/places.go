package rollout

import (
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/batch"
)

// join freezes the nodes of the rollout, and gives those that come later a place at the end.
func (x *stepper) join() {
	have := make(map[place]bool, len(x.Nodes))
	for i := range x.Nodes {
		have[place{x.Nodes[i].Site, x.Nodes[i].Name}] = true
	}
	var fresh []*Fact
	for i := range x.w.Nodes {
		if f := &x.w.Nodes[i]; !have[place{f.Site, f.Node}] && len(have) < MaxNodes {
			have[place{f.Site, f.Node}] = true
			fresh = append(fresh, f)
		}
	}
	nodes := make([]batch.Node, len(fresh))
	for i, f := range fresh {
		nodes[i] = batch.Node{Site: f.Site, Name: f.Node, Canary: f.Canary && x.w.Policy.CanaryFirst()}
	}
	batch.Order(x.Policy, x.Revision, nodes)
	for i := range nodes {
		nodes[i].Cohort = x.cohortOf(nodes[i].Site)
	}
	if x.Frozen {
		for _, n := range nodes {
			x.late(n)
		}
		return
	}
	x.Frozen = true
	x.Canary.Passed = !x.w.Policy.CanaryFirst()
	for _, p := range batch.Cut(x.r, nodes) {
		x.place(p)
	}
}

// late gives a node that came later a place in the last batch of its cohort, or in one after it where its site has its
// share of that already (rule B1).
func (x *stepper) late(n batch.Node) {
	c := n.Cohort
	last := max(1, x.Cohorts[c].Batches)
	here, inLast := 1, 0
	for i := range x.Nodes {
		if m := &x.Nodes[i]; m.Site == n.Site {
			here++
			if m.Cohort == c && m.Batch == last {
				inLast++
			}
		}
	}
	if !x.r.BySite && !x.r.Batch.IsZero() && inLast >= batch.AtOnce(x.r, here) {
		last++
	}
	x.place(batch.Place{Node: n, Batch: last})
}

func (x *stepper) place(p batch.Place) {
	n := Node{Site: p.Site, Name: p.Name, Cohort: p.Cohort, Batch: p.Batch}
	if f := x.facts[place{n.Site, n.Name}]; f.Said.terminal() { // of an earlier revision with the same bundle
		n.Before, n.Result, n.Settled = true, f.Said.result(), x.now
	}
	x.Cohorts[n.Cohort].Batches = max(x.Cohorts[n.Cohort].Batches, n.Batch)
	x.Nodes = append(x.Nodes, n)
}

// cohortOf finds the cohort of a site: that of its nodes, or else the one that opens when it does.
func (x *stepper) cohortOf(site string) int {
	if c, ok := x.cohorts[site]; ok {
		return c
	}
	opens := x.w.Sites[site].Opens.UTC()
	c := slices.IndexFunc(x.Cohorts, func(c Cohort) bool { return c.Opens.Equal(opens) })
	if c < 0 {
		x.Cohorts = append(x.Cohorts, Cohort{Opens: opens, At: []time.Time{}})
		c = len(x.Cohorts) - 1
	}
	x.cohorts[site] = c
	return c
}
