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
	byBundle := map[string]*Choice{}
	best := map[string][]*Policy{} // by bundle name, those with the highest priority so far
	for _, p := range policies {
		if !p.Selector.Matches(labels) {
			continue
		}
		name := p.Bundle.Name
		c := byBundle[name]
		if c == nil {
			c = &Choice{Bundle: name}
			byBundle[name] = c
		}
		switch {
		case p.Exclude.Matches(labels):
			c.Excluded = append(c.Excluded, p.Name)
		case len(best[name]) == 0 || p.Priority > best[name][0].Priority:
			best[name] = []*Policy{p}
		case p.Priority == best[name][0].Priority:
			best[name] = append(best[name], p)
		}
	}
	choices := make([]Choice, 0, len(byBundle))
	for name, c := range byBundle {
		switch ps := best[name]; {
		case len(c.Excluded) > 0:
			slices.Sort(c.Excluded)
		case len(ps) == 1:
			c.Policy = ps[0]
		default:
			for _, p := range ps {
				c.Conflict = append(c.Conflict, p.Name)
			}
			slices.Sort(c.Conflict)
		}
		choices = append(choices, *c)
	}
	slices.SortFunc(choices, func(a, b Choice) int { return strings.Compare(a.Bundle, b.Bundle) })
	return choices
}
