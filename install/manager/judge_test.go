package manager_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// have reads "name version flags": h held, a came in for another, ! half-configured.
func have(lines ...string) []packages.Installed {
	var out []packages.Installed
	for _, l := range lines {
		f := append(strings.Fields(l), "")
		p := packages.Installed{Name: f[0], Arch: "all", Version: f[1], Held: strings.Contains(f[2], "h"), Auto: strings.Contains(f[2], "a")}
		if strings.Contains(f[2], "!") {
			p.State = "half-configured"
		}
		out = append(out, p)
	}
	return out
}

func list(remove []string, ps ...packages.Package) *packages.List {
	for i := range ps {
		ps[i].Arch = "all"
	}
	return &packages.List{Packages: ps, Remove: remove}
}

func change(name, from, to string) packages.Change {
	return packages.Change{Name: name, Arch: "all", From: from, To: to}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	demo := packages.Package{Name: "demo", Version: "2", Role: packages.Update}
	helper := packages.Package{Name: "helper", Version: "1", Role: packages.Dependency}
	agent := packages.Package{Name: "agent", Version: "1", Role: packages.Install}
	up := manager.Plan{Changes: []packages.Change{change("demo", "1", "2")}}
	newer := manager.Plan{Kept: []manager.Kept{{Installed: have("demo 3")[0], Why: manager.KeptNewer}}}
	for _, c := range []struct {
		name          string
		before, after []packages.Installed
		list          *packages.List
		plan          manager.Plan
		downgrade     bool
		want          []string // a piece of each finding
	}{
		{"done", have("demo 1", "x 1 h"), have("demo 2", "x 1 h"), list(nil, demo), up, false, nil},
		{"nothing was done", have("demo 1"), have("demo 1"), list(nil, demo), up, false, []string{"demo:all was to go from 1 to 2 and is at 1", "demo:all is at 1, the list says 2"}},
		{"is gone", have("demo 1"), nil, list(nil, demo), up, false, []string{"and is not there", "demo:all went from 1 to nothing and was not to", "is not there, the list says 2"}},
		{"half done", have("demo 1"), have("demo 2 !"), list(nil, demo), up, false, []string{"demo:all 2 is half-configured"}},
		{"something else changed", have("demo 1", "x 1"), have("demo 2", "x 2"), list(nil, demo), up, false, []string{"x:all went from 1 to 2 and was not to"}},
		{"something else went", have("demo 1", "x 1"), have("demo 2"), list(nil, demo), up, false, []string{"x:all went from 1 to nothing and was not to"}},
		{"something else came", have("demo 1"), have("demo 2", "x 1 a"), list(nil, demo), up, false, []string{"x:all went from nothing to 1 and was not to"}},
		{"the hold is gone", have("x 1 h"), have("x 1"), list(nil, demo), manager.Plan{}, false, []string{"x:all is not held, and was not before"}},
		{"a mark is gone", have("demo 1 a"), have("demo 2"), list(nil, demo), up, false, []string{"demo:all is marked as asked for"}},
		{"a mark came", have("demo 1"), have("demo 2 a"), list(nil, demo), up, false, []string{"demo:all is marked as come in for another"}},
		{
			"new for another", have("demo 1"), have("demo 2", "helper 1 a"), list(nil, demo, helper),
			manager.Plan{Changes: []packages.Change{change("demo", "1", "2"), change("helper", "", "1")}}, false, nil,
		},
		{
			"new for another, not marked", have("demo 1"), have("demo 2", "helper 1"), list(nil, demo, helper),
			manager.Plan{Changes: []packages.Change{change("demo", "1", "2"), change("helper", "", "1")}}, false, []string{"helper:all is new and is marked as asked for"},
		},
		{"new everywhere", nil, have("agent 1"), list(nil, agent), manager.Plan{Changes: []packages.Change{change("agent", "", "1")}}, false, nil},
		{"new everywhere, forgotten by the plan", nil, nil, list(nil, agent), manager.Plan{}, false, []string{"agent:all is not there, the list says 1"}},
		{"the plan is not the list", have("x 1"), have("x 2"), list(nil, demo), manager.Plan{Changes: []packages.Change{change("x", "1", "2")}}, false, []string{"x:all 2 came in and is not in the list"}},
		{"the plan removes", have("x 1"), nil, list(nil, demo), manager.Plan{Changes: []packages.Change{change("x", "1", "")}}, false, []string{"x:all 1 was removed and the list does not allow it"}},
		{"the plan removes what may go", have("x 1"), nil, list([]string{"x"}, demo), manager.Plan{Changes: []packages.Change{change("x", "1", "")}}, false, nil},
		{"newer is left", have("demo 3"), have("demo 3"), list(nil, demo), newer, false, nil},
		{"newer is left although it may go back", have("demo 3"), have("demo 3"), list(nil, demo), newer, true, []string{"demo:all is at 3, the list says 2"}},
		{
			"one for all architectures in the place of one for this", []packages.Installed{{Name: "demo", Arch: "amd64", Version: "1", Auto: true}}, have("demo 2 a"), list(nil, demo),
			manager.Plan{Changes: []packages.Change{change("demo", "", "2"), {Name: "demo", Arch: "amd64", From: "1"}}}, false, nil,
		},
		{
			"the same package for another architecture went", []packages.Installed{{Name: "demo", Arch: "i386", Version: "1"}}, []packages.Installed{{Name: "demo", Arch: "amd64", Version: "2"}},
			&packages.List{Packages: []packages.Package{{Name: "demo", Arch: "amd64", Version: "2", Role: packages.Install}}},
			manager.Plan{Changes: []packages.Change{{Name: "demo", Arch: "amd64", To: "2"}, {Name: "demo", Arch: "i386", From: "1"}}}, false, []string{"demo:i386 1 was removed"},
		},
		{"a second version beside the first", have("demo 1"), have("demo 1", "demo 2"), list(nil, demo), manager.Plan{Changes: []packages.Change{change("demo", "", "2")}}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := manager.Judge(c.before, c.after, c.list, c.plan, c.downgrade)
			if len(got) != len(c.want) {
				t.Fatalf("%q, want %q", got, c.want)
			}
			for i, w := range c.want {
				if !strings.Contains(got[i], w) {
					t.Errorf("%q, want %q", got[i], w)
				}
			}
		})
	}
}

// world is a machine, a list, the plan that follows from them, and the machine after exactly that plan.
type world struct {
	before, after []packages.Installed
	list          *packages.List
	plan          manager.Plan
}

func drawWorld(t *rapid.T) world {
	w := world{list: list(nil)}
	for i := range rapid.IntRange(1, 8).Draw(t, "names") {
		name := fmt.Sprintf("p%d", i)
		p := packages.Installed{Name: name, Arch: "all", Version: "1", Held: rapid.Bool().Draw(t, "held"), Auto: rapid.Bool().Draw(t, "auto")}
		l := packages.Package{Name: name, Arch: "all", Version: "2", Role: packages.Update}
		switch rapid.SampledFrom([]string{"stays", "updated", "kept", "absent", "arrives", "removed"}).Draw(t, "fate") {
		case "stays":
			w.before, w.after = append(w.before, p), append(w.after, p)
			continue
		case "updated":
			w.before = append(w.before, p)
			p.Version = "2"
			w.after = append(w.after, p)
			w.plan.Changes = append(w.plan.Changes, change(name, "1", "2"))
		case "kept":
			w.before, w.after = append(w.before, p), append(w.after, p)
			w.plan.Kept = append(w.plan.Kept, manager.Kept{Installed: p, Why: manager.KeptHeld})
		case "absent":
		case "arrives":
			p.Version, p.Held, p.Auto = "2", false, true
			if l.Role = packages.Dependency; rapid.Bool().Draw(t, "asked") {
				l.Role, p.Auto = packages.Install, false
			}
			w.after = append(w.after, p)
			w.plan.Changes = append(w.plan.Changes, change(name, "", "2"))
		case "removed":
			w.before = append(w.before, p)
			w.list.Remove = append(w.list.Remove, name)
			w.plan.Changes = append(w.plan.Changes, change(name, "1", ""))
			continue
		}
		w.list.Packages = append(w.list.Packages, l)
	}
	return w
}

// What went as planned has no finding; any one thing that did not, has.
func TestJudgeSeesEveryDifference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		if got := manager.Judge(w.before, w.after, w.list, w.plan, false); len(got) > 0 {
			t.Fatalf("as planned, and yet %q", got)
		}
		bad := slices.Clone(w.after)
		if len(bad) == 0 || rapid.Bool().Draw(t, "one more") {
			bad = append(bad, packages.Installed{Name: "q", Arch: "all", Version: "1", Auto: true})
		} else {
			p := &bad[rapid.IntRange(0, len(bad)-1).Draw(t, "which")]
			switch rapid.SampledFrom([]string{"version", "state", "held", "auto", "gone", "arch"}).Draw(t, "what") {
			case "version":
				p.Version += "x"
			case "state":
				p.State = "unpacked"
			case "held":
				if !slices.ContainsFunc(w.before, func(b packages.Installed) bool { return b.Name == p.Name }) {
					t.Skip("whether a new package is held is a person's business")
				}
				p.Held = !p.Held
			case "auto":
				p.Auto = !p.Auto
			case "gone":
				name := p.Name
				bad = slices.DeleteFunc(bad, func(b packages.Installed) bool { return b.Name == name })
			case "arch":
				p.Arch = "amd64"
			}
		}
		if got := manager.Judge(w.before, bad, w.list, w.plan, false); len(got) == 0 {
			t.Fatalf("not seen: planned %+v, is %+v", w.after, bad)
		}
	})
}
