package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// The bound of D2: more than a fifth of the pairs, whichever policies they are of.
func TestRemoved(t *testing.T) {
	is := func(key, value string) policy.Selector {
		return policy.Selector{Labels: map[string]string{key: value}}
	}
	p := func(name, bundle string, s policy.Selector) *policy.Policy {
		return &policy.Policy{Name: name, Bundle: policy.BundleRef{Name: bundle}, Selector: s}
	}
	all := func(name string) *policy.Policy { return p(name, "os", policy.Selector{All: true}) }
	above := all("above")
	above.Priority = 10
	freeze := func(name, bundle, node string) *policy.Policy {
		x := p(name, bundle, policy.Selector{All: true})
		x.Exclude = is("id", node)
		return x
	}
	var nodes []map[string]string // ten: id 0 to 9, five of them odd
	for i := range 10 {
		nodes = append(nodes, map[string]string{"id": fmt.Sprint(i), "odd": fmt.Sprint(i%2 == 1)})
	}
	type set []*policy.Policy
	for _, c := range []struct {
		name          string
		before, after set
		want          policy.Removal
		held          bool
	}{
		{"nothing was there", nil, set{all("a")}, policy.Removal{}, false},
		{"nothing changes", set{all("a")}, set{all("a")}, policy.Removal{Of: 10}, false},
		{"everything goes", set{all("a")}, nil, policy.Removal{Removes: 10, Of: 10}, true},
		{"a fifth", set{all("a"), p("b", "os", is("id", "1")), p("c", "os", is("id", "2")), p("d", "os", is("odd", "true")), p("e", "app", is("id", "3")), p("f", "app", is("id", "4")), p("g", "app", is("id", "5"))},
			set{all("a"), p("d", "os", is("odd", "true")), p("e", "app", is("id", "3"))}, policy.Removal{Removes: 4, Of: 20}, false},
		{"more than a fifth", set{all("a")}, set{p("a", "os", is("odd", "true"))}, policy.Removal{Removes: 5, Of: 10}, true},
		{"another name is another policy", set{all("a")}, set{all("b")}, policy.Removal{Removes: 10, Of: 10}, true},
		{"one with a higher priority takes over", set{all("a")}, set{all("a"), above}, policy.Removal{Of: 10}, false},
		{"a conflict comes", set{all("a")}, set{all("a"), all("b")}, policy.Removal{Of: 10}, false},
		{"an exclude takes a node from every policy of the bundle", set{all("a"), all("b")}, set{freeze("a", "os", "1"), all("b")}, policy.Removal{Removes: 2, Of: 20}, false},
		{"and from none of another bundle", set{all("a"), p("b", "app", policy.Selector{All: true})}, set{freeze("a", "os", "1"), p("b", "app", policy.Selector{All: true})}, policy.Removal{Removes: 1, Of: 20}, false},
	} {
		got := policy.Removed(c.before, c.after, nodes)
		if got != c.want || got.Held() != c.held {
			t.Errorf("%s: %+v, held: %v", c.name, got, got.Held())
		}
	}
	if got := (policy.Removal{Removes: 5, Of: 8}).String(); !strings.HasPrefix(got, "5 of 8 managed") || !strings.Contains(got, "20 %") {
		t.Error(got)
	}
}
