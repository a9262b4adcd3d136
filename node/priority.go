package node

import (
	"cmp"
	"maps"
	"slices"
)

// byPriority are the bundle names in the order in which their installs come, one at a time: the higher priority of the
// policies first, then the name (rule O1).
func (n *Node) byPriority() []string {
	priority := func(name string) int {
		if l := n.rec.Lives[name]; l.Target != nil && n.policies[l.Target.Policy] != nil && n.policies[l.Target.Policy].p != nil {
			return n.policies[l.Target.Policy].p.Priority
		}
		return 0
	}
	return slices.SortedFunc(maps.Keys(n.rec.Lives), func(a, b string) int {
		return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(a, b))
	})
}
