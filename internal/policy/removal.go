package policy

import (
	"fmt"
	"slices"
)

// HeldShare is the percentage of the managed pairs above which a removal waits for a person (rule D2).
const HeldShare = 20

// Removal is what a change takes from its policies, in managed pairs: a policy and a node that it selects and that nobody
// excludes. A policy that only loses a node to one with a higher priority still selects it.
type Removal struct {
	Removes int // of the pairs that there are
	Of      int
}

// Removed counts what a change from one set of policies to another takes away. nodes are the labels of every node.
func Removed(before, after []*Policy, nodes []map[string]string) Removal {
	var r Removal
	for _, labels := range nodes {
		was, is := managing(before, labels), managing(after, labels)
		r.Of += len(was)
		for _, p := range was {
			if !slices.ContainsFunc(is, func(q *Policy) bool { return q.Name == p.Name }) {
				r.Removes++
			}
		}
	}
	return r
}

// managing are the policies that select a node and that no exclude keeps from it.
func managing(policies []*Policy, labels map[string]string) (out []*Policy) {
	var excluded []string // bundle names
	for _, p := range policies {
		switch {
		case !p.Selector.Matches(labels):
		case p.Exclude.Matches(labels):
			excluded = append(excluded, p.Bundle.Name)
		default:
			out = append(out, p)
		}
	}
	return slices.DeleteFunc(out, func(p *Policy) bool { return slices.Contains(excluded, p.Bundle.Name) })
}

// Held reports whether so much is removed that a person has to say that it is meant.
func (r Removal) Held() bool { return r.Removes*100 > r.Of*HeldShare }

// String says what goes, and where the bound is.
func (r Removal) String() string {
	return fmt.Sprintf("%d of %d managed (policy, node) pairs would go; more than %d %% wait for a person", r.Removes, r.Of, HeldShare)
}
