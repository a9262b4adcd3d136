// Package batch cuts the nodes of a rollout into batches (rules B1 to B3) and says when the last of them is done at the
// earliest. It is one arithmetic for the controller, which goes by it, and for the plan, which tells of it before.
//
// Pure: time is handed in. Safe for concurrent use.
package batch

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// Node is a node that a rollout is for.
type Node struct {
	Site, Name string
	Cohort     int  // of its site, from 0: sites whose windows open at the same instant have a clock together
	Canary     bool // it goes first
}

// Place is where a node stands. Batches are counted from 1 in each cohort; 0 is the canary.
type Place struct {
	Node
	Batch int
}

// Order sorts nodes as the rollout of a revision takes them: stable for the revision, and another order for the next, so
// that it is not always the same ones that go first.
func Order(name string, revision uint64, nodes []Node) {
	type keyed struct {
		Node
		key [sha256.Size]byte
	}
	ks := make([]keyed, len(nodes))
	for i, n := range nodes {
		ks[i] = keyed{n, sha256.Sum256(fmt.Appendf(nil, "%s/%s %s %d", n.Site, n.Name, name, revision))}
	}
	slices.SortFunc(ks, func(a, b keyed) int {
		return cmp.Or(bytes.Compare(a.key[:], b.key[:]), strings.Compare(a.Site, b.Site), strings.Compare(a.Name, b.Name))
	})
	for i, k := range ks {
		nodes[i] = k.Node
	}
}

// Cut gives nodes, which stand in their order, their places: first those of the canary, then cohort by cohort and batch by
// batch. The size of a batch is one of the whole fleet: each cohort, which has a clock of its own, takes its share, so that
// all of them together have no more under way.
func Cut(r policy.Rollout, nodes []Node) []Place {
	out := make([]Place, 0, len(nodes))
	var rest [][]Node // of each cohort, in the order of their first nodes: whatever the cohorts' numbers, the shares are the same
	at, here := map[int]int{}, map[string]int{}
	for _, n := range nodes {
		here[n.Site]++
		if n.Canary {
			out = append(out, Place{Node: n})
			continue
		}
		i, ok := at[n.Cohort]
		if !ok {
			i = len(rest)
			at[n.Cohort] = i
			rest = append(rest, nil)
		}
		rest[i] = append(rest[i], n)
	}
	weights, all := make([]int, len(rest)), len(nodes)
	for i, ns := range rest {
		weights[i] = len(ns)
		if r.BySite {
			weights[i] = len(bySite(ns))
		}
	}
	if r.BySite {
		all = len(here)
	}
	sizes := Shares(r.Batch.Of(all), weights)
	for i, ns := range rest {
		for k, batch := range cut(r, ns, sizes[i], here) {
			for _, n := range batch {
				out = append(out, Place{n, k + 1})
			}
		}
	}
	return out
}

// cut makes batches of a size; 0 is one batch. here counts all nodes of a site.
func cut(r policy.Rollout, ns []Node, size int, here map[string]int) (out [][]Node) {
	switch {
	case len(ns) == 0:
		return nil
	case size == 0:
		return [][]Node{ns}
	case r.BySite:
		for part := range slices.Chunk(bySite(ns), size) {
			out = append(out, slices.Concat(part...))
		}
		return out
	}
	var waiting []Node // of sites that had as many in the batch as may be out of service
	for len(ns)+len(waiting) > 0 {
		var batch, still []Node
		taken := map[string]int{}
		for _, n := range waiting {
			if len(batch) < size && taken[n.Site] < AtOnce(r, here[n.Site]) {
				taken[n.Site]++
				batch = append(batch, n)
			} else {
				still = append(still, n)
			}
		}
		for len(batch) < size && len(ns) > 0 {
			n := ns[0]
			ns = ns[1:]
			if taken[n.Site] < AtOnce(r, here[n.Site]) {
				taken[n.Site]++
				batch = append(batch, n)
			} else {
				still = append(still, n)
			}
		}
		out, waiting = append(out, batch), still
	}
	return out
}

// bySite are the nodes of each site, sites in the order of their first nodes.
func bySite(ns []Node) (out [][]Node) {
	at := map[string]int{}
	for _, n := range ns {
		i, ok := at[n.Site]
		if !ok {
			i = len(out)
			at[n.Site] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], n)
	}
	return out
}

// AtOnce is how many of n nodes of a site may be out of service at once, at least 1.
func AtOnce(r policy.Rollout, n int) int {
	most := r.MaxUnavailable
	if most.IsZero() {
		most = policy.Size{Percent: policy.DefaultMaxUnavailable}
	}
	return max(1, min(most.Of(n), n))
}

// Shares divides a size by weights, to the greatest remainders first (Hamilton's method), and gives at least 1 to each that
// has a weight: only that can make them more together. A size of 0 is no limit, for all of them.
func Shares(size int, weights []int) []int {
	out := make([]int, len(weights))
	all := 0
	for _, w := range weights {
		all += w
	}
	if size <= 0 || all == 0 {
		return out
	}
	if size >= all { // each at once
		return slices.Clone(weights)
	}
	left := size
	order := make([]int, 0, len(weights))
	for i, w := range weights {
		if w == 0 {
			continue
		}
		if out[i] = size * w / all; out[i] > 0 {
			order = append(order, i)
		}
		out[i] = max(1, out[i])
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(size*weights[b]%all, size*weights[a]%all) })
	for _, i := range order[:min(max(left, 0), len(order))] {
		out[i]++
	}
	return out
}
