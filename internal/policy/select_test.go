package policy_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func TestSelect(t *testing.T) {
	build := func(name, bundle string, match ...string) *policy.Policy {
		p := &policy.Policy{Name: name, Bundle: policy.BundleRef{Name: bundle}, Selector: policy.Selector{Labels: map[string]string{}}}
		for i := 0; i < len(match); i += 2 {
			p.Selector.Labels[match[i]] = match[i+1]
		}
		return p
	}
	pos := build("pos", "os", "role", "pos")
	canary := build("canary", "os", "ring", "canary")
	prices := build("prices", "prices", "role", "pos", "env", "prod")
	nobody := build("nobody", "os")
	all := []*policy.Policy{pos, canary, prices, nobody}
	for _, c := range []struct {
		name   string
		labels map[string]string
		want   []policy.Choice
	}{
		{"no labels", nil, []policy.Choice{}},
		{"another role", map[string]string{"role": "kiosk"}, []policy.Choice{}},
		{"one", map[string]string{"role": "pos"}, []policy.Choice{{Bundle: "os", Policy: pos}}},
		{"one for each of two bundles", map[string]string{"role": "pos", "env": "prod"},
			[]policy.Choice{{Bundle: "os", Policy: pos}, {Bundle: "prices", Policy: prices}}},
		{"conflict in one bundle, not in the other", map[string]string{"role": "pos", "env": "prod", "ring": "canary"},
			[]policy.Choice{{Bundle: "os", Conflict: []string{"canary", "pos"}}, {Bundle: "prices", Policy: prices}}},
		{"empty label", map[string]string{"role": ""}, []policy.Choice{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := policy.Select(all, c.labels)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			for _, choice := range got {
				if err := choice.Err(); (err == nil) != (choice.Policy != nil) || err != nil && problem.CodeOf(err) != problem.PolicyConflict {
					t.Errorf("%+v: %v", choice, err)
				}
			}
		})
	}
}

// Whatever the policies: their order does not matter, each bundle name comes once and in order, and who matches alone
// is chosen.
func TestSelectProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		label := rapid.MapOf(rapid.SampledFrom([]string{"role", "env", "ring"}), rapid.SampledFrom([]string{"a", "b"}))
		var ps []*policy.Policy
		for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
			ps = append(ps, &policy.Policy{
				Name:     fmt.Sprintf("p%d", i),
				Bundle:   policy.BundleRef{Name: rapid.SampledFrom([]string{"os", "prices"}).Draw(t, "bundle")},
				Selector: policy.Selector{Labels: label.Draw(t, "match")},
			})
		}
		labels := label.Draw(t, "labels")
		got := policy.Select(ps, labels)
		if d := cmp.Diff(got, policy.Select(rapid.Permutation(ps).Draw(t, "order"), labels)); d != "" {
			t.Fatalf("the order matters:\n%s", d)
		}
		if !slices.IsSortedFunc(got, func(a, b policy.Choice) int { return cmpStrict(a.Bundle, b.Bundle) }) {
			t.Fatalf("choices %+v", got)
		}
		var counted int
		for _, c := range got {
			if c.Policy != nil {
				counted++
			}
			counted += len(c.Conflict)
		}
		var matching int
		for _, p := range ps {
			if p.Matches(labels) {
				matching++
			}
		}
		if counted != matching {
			t.Fatalf("%d policies match, %d are in %+v", matching, counted, got)
		}
	})
}

// cmpStrict makes equal neighbours count as unsorted.
func cmpStrict(a, b string) int {
	if a <= b {
		return -1
	}
	return 1
}
