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
	urgent := build("urgent", "os", "site", "hq")
	urgent.Priority = 10
	urgent.Exclude = policy.Selector{Labels: map[string]string{"freeze": "true"}}
	cautious := build("cautious", "os", "role", "server")
	cautious.Priority = -1
	twin := build("twin", "os", "role", "server")
	twin.Priority = -1
	all := []*policy.Policy{cautious, pos, urgent, canary, prices, twin, nobody}
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
		{"the higher priority wins", map[string]string{"role": "pos", "site": "hq"}, []policy.Choice{{Bundle: "os", Policy: urgent}}},
		{"also over a conflict of lower ones", map[string]string{"role": "pos", "ring": "canary", "site": "hq"}, []policy.Choice{{Bundle: "os", Policy: urgent}}},
		{"excluded from one, touched by none", map[string]string{"role": "pos", "site": "hq", "freeze": "true"}, []policy.Choice{{Bundle: "os", Excluded: []string{"urgent"}}}},
		{"excluded from the only one", map[string]string{"site": "hq", "freeze": "true"}, []policy.Choice{{Bundle: "os", Excluded: []string{"urgent"}}}},
		{"excluded, and no conflict", map[string]string{"role": "pos", "ring": "canary", "site": "hq", "freeze": "true"}, []policy.Choice{{Bundle: "os", Excluded: []string{"urgent"}}}},
		{"excluded for one bundle, not for the other", map[string]string{"role": "pos", "env": "prod", "site": "hq", "freeze": "true"},
			[]policy.Choice{{Bundle: "os", Excluded: []string{"urgent"}}, {Bundle: "prices", Policy: prices}}},
		{"an exclude is about those that it would select", map[string]string{"role": "pos", "freeze": "true"}, []policy.Choice{{Bundle: "os", Policy: pos}}},
		{"equal below nothing", map[string]string{"role": "server"}, []policy.Choice{{Bundle: "os", Conflict: []string{"cautious", "twin"}}}},
		{"empty label", map[string]string{"role": ""}, []policy.Choice{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := policy.Select(all, c.labels)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			for _, choice := range got {
				if err := choice.Err(); (err == nil) != (choice.Conflict == nil) || err != nil && problem.CodeOf(err) != problem.PolicyConflict {
					t.Errorf("%+v: %v", choice, err)
				}
			}
		})
	}
}

// drawPolicies draws policies over few labels, so that they meet.
func drawPolicies(t *rapid.T) (ps []*policy.Policy, labels map[string]string) {
	keys, values := rapid.SampledFrom([]string{"role", "env", "ring"}), rapid.SampledFrom([]string{"a", "b"})
	label := rapid.MapOf(keys, values)
	selector := func(what string) policy.Selector {
		s := policy.Selector{Labels: label.Draw(t, what), All: rapid.IntRange(0, 9).Draw(t, "all") == 0}
		for range rapid.IntRange(0, 2).Draw(t, "expressions") {
			s.Expressions = append(s.Expressions, policy.Expression{Key: keys.Draw(t, "key"),
				Operator: rapid.SampledFrom([]policy.Operator{policy.In, policy.NotIn, policy.Exists, policy.DoesNotExist}).Draw(t, "operator"),
				Values:   rapid.SliceOfN(values, 1, 2).Draw(t, "values")})
		}
		return s
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
		ps = append(ps, &policy.Policy{
			Name:     fmt.Sprintf("p%d", i),
			Bundle:   policy.BundleRef{Name: rapid.SampledFrom([]string{"os", "prices"}).Draw(t, "bundle")},
			Selector: selector("selector"), Exclude: selector("exclude"), Priority: rapid.IntRange(0, 1).Draw(t, "priority"),
		})
	}
	return ps, label.Draw(t, "labels")
}

// Whatever the policies: their order does not matter, each bundle name comes once and in order; nobody is chosen that
// does not match, or that one with a higher priority matches beside, or for a bundle that one excludes the node from.
func TestSelectProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps, labels := drawPolicies(t)
		got := policy.Select(ps, labels)
		if d := cmp.Diff(got, policy.Select(rapid.Permutation(ps).Draw(t, "order"), labels)); d != "" {
			t.Fatalf("the order matters:\n%s", d)
		}
		if !slices.IsSortedFunc(got, func(a, b policy.Choice) int { return cmpStrict(a.Bundle, b.Bundle) }) {
			t.Fatalf("choices %+v", got)
		}
		chosen := map[string][]string{}
		for _, c := range got {
			if chosen[c.Bundle] = c.Conflict; c.Policy != nil {
				chosen[c.Bundle] = []string{c.Policy.Name}
			}
		}
		for _, p := range ps {
			beaten := slices.ContainsFunc(ps, func(o *policy.Policy) bool {
				return o.Bundle.Name == p.Bundle.Name && o.Selector.Matches(labels) && (o.Priority > p.Priority || o.Exclude.Matches(labels))
			})
			if want := p.Matches(labels) && !beaten; want != slices.Contains(chosen[p.Bundle.Name], p.Name) {
				t.Fatalf("%s should be chosen: %v; %+v", p.Name, want, got)
			}
			if p.Exclude.Matches(labels) && p.Matches(labels) {
				t.Fatalf("%s matches what it excludes", p.Name)
			}
		}
	})
}

// Overlap finds the labels of a conflict exactly when there are some: those it gives are a conflict, and where it
// gives none no labels are.
func TestOverlap(t *testing.T) {
	found, none := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		ps, labels := drawPolicies(t)
		for i, a := range ps {
			for _, b := range ps[:i] {
				pair := []*policy.Policy{a, b}
				witness, sure := policy.Overlap(a, b)
				if !sure {
					t.Fatal("too many tries for so few labels")
				}
				if witness != nil {
					found++
					if c := policy.Select(pair, witness); len(c) != 1 || len(c[0].Conflict) != 2 {
						t.Fatalf("%v is no conflict: %+v", witness, c)
					}
					continue
				}
				none++
				for _, c := range policy.Select(pair, labels) {
					if len(c.Conflict) > 0 {
						t.Fatalf("%v is a conflict that was not found", labels)
					}
				}
			}
		}
	})
	if found == 0 || none == 0 {
		t.Errorf("%d pairs overlap and %d do not: one side was never tried", found, none)
	}
}

// A pair whose conditions combine in too many ways is said to be uncertain, in bearable time.
func TestOverlapIsBounded(t *testing.T) {
	a, b := &policy.Policy{Selector: policy.Selector{All: true}}, &policy.Policy{Selector: policy.Selector{All: true}}
	for i := range 60 {
		e := policy.Expression{Key: fmt.Sprintf("k%02d", i), Operator: policy.In, Values: []string{"a", "b"}}
		a.Selector.Expressions = append(a.Selector.Expressions, e)
	}
	b.Exclude = policy.Selector{All: true}
	if _, sure := policy.Overlap(a, b); sure {
		t.Error("sure of 2^60 combinations")
	}
}

func TestSelectorString(t *testing.T) {
	s := policy.Selector{Labels: map[string]string{"role": "pos", "env": "prod"}, Expressions: []policy.Expression{
		{Key: "ring", Operator: policy.NotIn, Values: []string{"a", "b"}}, {Key: "owned", Operator: policy.Exists}, {Key: "frozen", Operator: policy.DoesNotExist}}}
	if got, want := s.String(), "env=prod,role=pos,ring notin (a,b),owned,!frozen"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// cmpStrict makes equal neighbours count as unsorted.
func cmpStrict(a, b string) int {
	if a <= b {
		return -1
	}
	return 1
}
