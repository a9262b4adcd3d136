package rollout

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
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
	x.sortByHash(fresh)
	if !x.Frozen {
		x.Frozen = true
		x.Canary.Passed = !x.hasCanary()
		x.freeze(fresh)
		return
	}
	for _, f := range fresh {
		x.late(f)
	}
}

// hasCanary: some nodes go first. A fast track, which needs two approvers, does without.
func (x *stepper) hasCanary() bool {
	t := x.w.Policy.FastTrack
	return x.r.Canary != nil && (t == nil || len(t.Approvers) < 2)
}

// sortByHash is the order of the nodes: stable for a revision, and another one for the next, so that it is not always
// the same ones that go first.
func (x *stepper) sortByHash(fs []*Fact) {
	keys := make(map[*Fact][sha256.Size]byte, len(fs))
	for _, f := range fs {
		keys[f] = x.hash(f.Site, f.Node)
	}
	slices.SortFunc(fs, func(a, b *Fact) int {
		ka, kb := keys[a], keys[b]
		return cmp.Or(bytes.Compare(ka[:], kb[:]), strings.Compare(a.Site, b.Site), strings.Compare(a.Node, b.Node))
	})
}

func (x *stepper) hash(site, node string) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s/%s %s %d", site, node, x.Policy, x.Revision))
}

// freeze puts the nodes into cohorts and batches.
func (x *stepper) freeze(all []*Fact) {
	var canary, rest []*Fact
	sites, perSite := map[string]bool{}, map[string]int{}
	for _, f := range all {
		sites[f.Site] = true
		perSite[f.Site]++
		if x.hasCanary() && f.Canary {
			canary = append(canary, f)
		} else {
			rest = append(rest, f)
		}
	}
	for _, f := range canary {
		x.place(f, x.cohortOf(f.Site), 0)
	}
	size := x.r.Batch.Of(len(all))
	if x.r.BySite {
		size = x.r.Batch.Of(len(sites))
	}
	byCohort := map[int][]*Fact{}
	for _, f := range rest {
		c := x.cohortOf(f.Site)
		byCohort[c] = append(byCohort[c], f)
	}
	for c := range x.Cohorts {
		for i, batch := range x.batches(byCohort[c], size, perSite) {
			x.Cohorts[c].Batches = i + 1
			for _, f := range batch {
				x.place(f, c, i+1)
			}
		}
	}
}

// batches cuts nodes, which stand in their order, into batches of a size; 0 is one batch.
func (x *stepper) batches(fs []*Fact, size int, perSite map[string]int) (out [][]*Fact) {
	switch {
	case len(fs) == 0:
		return nil
	case size <= 0:
		return [][]*Fact{fs}
	case x.r.BySite:
		bySite := map[string][]*Fact{}
		var order []string // by their first node
		for _, f := range fs {
			if bySite[f.Site] == nil {
				order = append(order, f.Site)
			}
			bySite[f.Site] = append(bySite[f.Site], f)
		}
		for part := range slices.Chunk(order, size) {
			var batch []*Fact
			for _, site := range part {
				batch = append(batch, bySite[site]...)
			}
			out = append(out, batch)
		}
		return out
	}
	for len(fs) > 0 {
		var batch, left []*Fact
		taken := map[string]int{}
		for i, f := range fs {
			if len(batch) == size {
				left = append(left, fs[i:]...)
				break
			}
			if taken[f.Site] < x.cap(perSite[f.Site]) {
				taken[f.Site]++
				batch = append(batch, f)
			} else {
				left = append(left, f)
			}
		}
		out, fs = append(out, batch), left
	}
	return out
}

// late gives a node that came later a place in the last batch of its cohort, or in one after it where its site has its
// share of that already.
func (x *stepper) late(f *Fact) {
	c := x.cohortOf(f.Site)
	last := max(1, x.Cohorts[c].Batches)
	here, inLast := 1, 0
	for i := range x.Nodes {
		if n := &x.Nodes[i]; n.Site == f.Site {
			here++
			if n.Cohort == c && n.Batch == last {
				inLast++
			}
		}
	}
	if !x.r.BySite && !x.r.Batch.IsZero() && inLast >= x.cap(here) {
		last++
	}
	x.Cohorts[c].Batches = last
	x.place(f, c, last)
}

func (x *stepper) place(f *Fact, cohort, batch int) {
	n := Node{Site: f.Site, Name: f.Node, Cohort: cohort, Batch: batch}
	if f.Said.terminal() { // of an earlier revision with the same bundle
		n.Before, n.Result, n.Settled = true, f.Said.result(), x.now
	}
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

// cap is how many of n nodes of a site may be at it at once.
func (x *stepper) cap(n int) int {
	m := x.r.MaxUnavailable
	if m.IsZero() {
		m = policy.Size{Percent: policy.DefaultMaxUnavailable}
	}
	return max(1, min(m.Of(n), n))
}
