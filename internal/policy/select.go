package policy

import (
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Choice is what a node should do about one bundle name: follow Policy, or, if that is nil, keep what it has because
// somebody excludes it, or because the policies in Conflict contradict each other.
type Choice struct {
	Bundle   string
	Policy   *Policy
	Excluded []string // names, in order, of those that would select the node and exclude it
	Conflict []string // names, in order, of those with the highest priority
}

// Err is the conflict as a problem; nil when there is none.
func (c Choice) Err() error {
	if len(c.Conflict) == 0 {
		return nil
	}
	return problem.New(problem.PolicyConflict, "the policies %s all select this node for the bundle %q, with equal priority",
		strings.Join(c.Conflict, ", "), c.Bundle).
		WithDone("the node keeps what it has").
		WithNext("give one of them a higher spec.priority, or change the selector of all but one")
}

// Select picks, for a node with these labels, the policy to follow for each bundle name, in the order of the bundle
// names. Policies have different names. An exclude beats every policy for the bundle name, whatever its priority (rule
// O3): whom one keeps its hands off, no other one picks up. Of those that select the node for one bundle name the highest
// priority wins (O2); two with the highest one are a conflict, even if they agree today: which of them wins must not
// depend on the order in which they came.
func Select(policies []*Policy, labels map[string]string) []Choice {
	type said struct {
		best     []*Policy // those with the highest priority so far
		excluded []string
	}
	byBundle := map[string]said{}
	for _, p := range policies {
		if !p.Selector.Matches(labels) {
			continue
		}
		x := byBundle[p.Bundle.Name]
		switch {
		case p.Exclude.Matches(labels):
			x.excluded = append(x.excluded, p.Name)
		case len(x.best) == 0 || p.Priority > x.best[0].Priority:
			x.best = []*Policy{p}
		case p.Priority == x.best[0].Priority:
			x.best = append(x.best, p)
		}
		byBundle[p.Bundle.Name] = x
	}
	choices := make([]Choice, 0, len(byBundle))
	for bundle, x := range byBundle {
		c := Choice{Bundle: bundle, Excluded: x.excluded}
		switch {
		case len(x.excluded) > 0:
			slices.Sort(c.Excluded)
		case len(x.best) == 1:
			c.Policy = x.best[0]
		default:
			for _, p := range x.best {
				c.Conflict = append(c.Conflict, p.Name)
			}
			slices.Sort(c.Conflict)
		}
		choices = append(choices, c)
	}
	slices.SortFunc(choices, func(a, b Choice) int { return strings.Compare(a.Bundle, b.Bundle) })
	return choices
}
