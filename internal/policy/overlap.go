package policy

import (
	"maps"
	"slices"
)

// Overlap looks for labels that a node could have to be selected by both policies for the same bundle name with equal
// priority: a conflict as soon as there is such a node. It looks at every combination that can make a difference; sure
// is false when those are more than it tries.
func Overlap(a, b *Policy) (labels map[string]string, sure bool) {
	if a.Bundle.Name != b.Bundle.Name || a.Priority != b.Priority {
		return nil, true
	}
	// Nothing tells two values apart that no condition names, so each key has the named ones, one that is not, and none.
	named := map[string][]string{}
	for _, s := range []Selector{a.Selector, a.Exclude, b.Selector, b.Exclude} {
		for k, v := range s.Labels {
			named[k] = append(named[k], v)
		}
		for _, e := range s.Expressions {
			named[e.Key] = append(named[e.Key], e.Values...)
		}
	}
	keys := slices.Sorted(maps.Keys(named))
	for k, values := range named {
		slices.Sort(values)
		named[k] = append(slices.Compact(values), unnamed(values))
	}
	tries := maxTries
	labels = map[string]string{}
	var search func(keys []string) bool
	search = func(keys []string) bool {
		if tries--; tries < 0 {
			return true
		}
		if len(keys) == 0 {
			return a.Matches(labels) && b.Matches(labels)
		}
		k := keys[0]
		for _, v := range named[k] {
			labels[k] = v
			if possible(a.Selector, labels, k) && possible(b.Selector, labels, k) && search(keys[1:]) {
				return true
			}
		}
		delete(labels, k)
		return possible(a.Selector, labels, k) && possible(b.Selector, labels, k) && search(keys[1:])
	}
	switch found := search(keys); {
	case tries < 0:
		return nil, false
	case found:
		return labels, true
	}
	return nil, true
}

// maxTries bounds the search of Overlap.
const maxTries = 100_000

// possible reports whether what the selector says about one label holds.
func possible(s Selector, labels map[string]string, key string) bool {
	have, ok := labels[key]
	if want, asked := s.Labels[key]; asked && (!ok || have != want) {
		return false
	}
	return !slices.ContainsFunc(s.Expressions, func(e Expression) bool { return e.Key == key && !e.holds(labels) })
}

// unnamed is a value that is none of these.
func unnamed(values []string) string {
	v := "other"
	for slices.Contains(values, v) {
		v += "-one"
	}
	return v
}
