package policy

import (
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Choice is what a node should do about one bundle name: follow Policy, or, if that is nil, keep what it has
// because the policies in Conflict contradict each other.
type Choice struct {
	Bundle   string
	Policy   *Policy
	Conflict []string // names, in order, of those with the highest priority
}

// Err is the conflict as a problem; nil when there is a policy to follow.
func (c Choice) Err() error {
	if c.Policy != nil {
		return nil
	}
	return problem.New(problem.PolicyConflict, "the policies %s all select this node for the bundle %q, with equal priority",
		strings.Join(c.Conflict, ", "), c.Bundle).
		WithDone("the node keeps what it has").
		WithNext("give one of them a higher spec.priority, or change the selector of all but one")
}

// Select picks, for a node with these labels, the policy to follow for each bundle name, in the order of the bundle
// names. Policies have different names. Of those that select the node for one bundle name the highest priority wins;
// two with the highest one are a conflict, even if they agree today: which of them wins must not depend on the order in
// which they came.
//
// An exclude beats the selector of its own policy, whatever the priority. It does not keep other policies from the
// node: "all tills but the canaries" must leave the canaries to the policy that is made for them. What keeps every
// policy from a node is its quarantine, which is not decided here.
func Select(policies []*Policy, labels map[string]string) []Choice {
	matching := make(map[string][]*Policy) // by bundle name, those with the highest priority so far
	for _, p := range policies {
		if !p.Matches(labels) {
			continue
		}
		best := matching[p.Bundle.Name]
		switch {
		case len(best) == 0 || p.Priority > best[0].Priority:
			matching[p.Bundle.Name] = []*Policy{p}
		case p.Priority == best[0].Priority:
			matching[p.Bundle.Name] = append(best, p)
		}
	}
	choices := make([]Choice, 0, len(matching))
	for bundle, ps := range matching {
		c := Choice{Bundle: bundle}
		if len(ps) == 1 {
			c.Policy = ps[0]
		} else {
			for _, p := range ps {
				c.Conflict = append(c.Conflict, p.Name)
			}
			slices.Sort(c.Conflict)
		}
		choices = append(choices, c)
	}
	slices.SortFunc(choices, func(a, b Choice) int { return strings.Compare(a.Bundle, b.Bundle) })
	return choices
}
