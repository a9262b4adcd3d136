package manager

import (
	"fmt"
	"slices"

	"github.com/patchmesh/patchmesh/internal/packages"
)

// Judge compares a machine before and after a transaction with what the list wants and the plan foresaw, and says
// everything that is not as it should be; nothing: it is. It believes neither the tool's exit status nor its plan:
//
//   - what changed is exactly what the plan said, and all of that is at the version of the list, or gone because the list
//     lets it go;
//   - every package that the list updates or installs is there in its version, unless the plan gave a reason not to;
//     with allowDowngrade, that a newer one is installed is no reason;
//   - no package is in a bad state;
//   - holds are as they were, and so are the marks of what came in for others; what is new is marked so unless the list
//     installs it everywhere.
//
// Pure. The order of the findings is fixed.
func Judge(before, after []packages.Installed, list *packages.List, plan Plan, allowDowngrade bool) []string {
	done := packages.Diff(before, after)
	var out []string
	say := func(f string, a ...any) { out = append(out, fmt.Sprintf(f, a...)) }
	for _, c := range plan.Changes {
		if !slices.Contains(done, c) {
			say("%s was to go from %s to %s and is %s", c.ID(), version(c.From), version(c.To), versions(after, c.ID()))
		}
		if c.To != "" && !inList(list, c) {
			say("%s %s came in and is not in the list", c.ID(), c.To)
		}
		if c.To == "" && !slices.Contains(list.Remove, c.Name) && !replaced(plan.Changes, c) {
			say("%s %s was removed and the list does not allow it", c.ID(), c.From)
		}
	}
	for _, c := range done {
		if !slices.Contains(plan.Changes, c) {
			say("%s went from %s to %s and was not to", c.ID(), version(c.From), version(c.To))
		}
	}
	for _, p := range list.Packages {
		if why := kept(plan, p); why == "" || why == KeptNewer && allowDowngrade {
			if want := wanted(before, p); want && !slices.ContainsFunc(after, func(i packages.Installed) bool { return i.ID() == p.ID() && i.Version == p.Version }) {
				say("%s is %s, the list says %s", p.ID(), versions(after, p.ID()), p.Version)
			}
		}
	}
	for _, p := range after {
		if p.State != "" {
			say("%s %s is %s", p.ID(), version(p.Version), p.State)
		}
		old, there := origin(before, done, p)
		switch {
		case there && old.Held != p.Held:
			say("%s is %s, and was not before", p.ID(), pick(p.Held, "held", "not held"))
		case there && old.Auto != p.Auto:
			say("%s is marked as %s, and was not before", p.ID(), pick(p.Auto, "come in for another", "asked for"))
		case !there && p.Auto == asked(list, p):
			say("%s is new and is marked as %s", p.ID(), pick(p.Auto, "come in for another", "asked for"))
		}
	}
	return slices.Compact(out)
}

// origin is what was there before in the place of an installed package: the same, one of its versions, or one of the
// same name for another architecture that is gone now.
func origin(before []packages.Installed, done []packages.Change, p packages.Installed) (packages.Installed, bool) {
	best, found := packages.Installed{}, false
	for _, b := range before {
		switch {
		case b.ID() == p.ID() && b.Version == p.Version:
			return b, true
		case b.ID() == p.ID():
			best, found = b, true
		case alike(b.Name, b.Arch, p.Name, p.Arch) && !found && slices.Contains(done, packages.Change{Name: b.Name, Arch: b.Arch, From: b.Version}):
			best, found = b, true
		}
	}
	return best, found
}

// wanted reports whether the machine is to have a package of the list in any case.
func wanted(before []packages.Installed, p packages.Package) bool {
	switch p.Role {
	case packages.Install:
		return true
	case packages.Update:
		return slices.ContainsFunc(before, func(b packages.Installed) bool { return alike(b.Name, b.Arch, p.Name, p.Arch) })
	}
	return false
}

func inList(l *packages.List, c packages.Change) bool {
	return slices.ContainsFunc(l.Packages, func(p packages.Package) bool { return p.ID() == c.ID() && p.Version == c.To })
}

// alike reports whether one package takes the place of the other. From one version to the next a package may become
// one for every architecture, or cease to be.
func alike(name, arch, otherName, otherArch string) bool {
	return name == otherName && (arch == otherArch || every(arch) || every(otherArch))
}

func every(arch string) bool { return arch == "all" || arch == "noarch" }

// replaced reports whether a package goes because one that is alike comes.
func replaced(cs []packages.Change, gone packages.Change) bool {
	return slices.ContainsFunc(cs, func(c packages.Change) bool { return c.From == "" && alike(c.Name, c.Arch, gone.Name, gone.Arch) })
}

func asked(l *packages.List, i packages.Installed) bool {
	return slices.ContainsFunc(l.Packages, func(p packages.Package) bool { return p.ID() == i.ID() && p.Role == packages.Install })
}

func kept(plan Plan, p packages.Package) string {
	for _, k := range plan.Kept {
		if alike(k.Name, k.Arch, p.Name, p.Arch) {
			return k.Why
		}
	}
	return ""
}

// versions names every version of a package that is installed.
func versions(in []packages.Installed, id string) string {
	out := ""
	for _, p := range in {
		if p.ID() == id {
			out += " and at " + p.Version
		}
	}
	if out == "" {
		return "not there"
	}
	return out[len(" and "):]
}

func version(v string) string { return pick(v != "", v, "nothing") }

func pick(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
