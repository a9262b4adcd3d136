package dnf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// wish is what dnf is asked for.
type wish struct {
	order     manager.Order
	rules     rules
	installed []packages.Installed
	specs     []string // exact versions to have afterwards
	exclude   []string // exact versions that must not come in, not even for another package
	kept      []manager.Kept
}

// decide says which packages of the list this machine is to have. Roles: an update is for where the package is
// installed, in whatever version; a dependency comes in only when dnf's solver needs it.
func decide(o manager.Order, installed []packages.Installed, r rules) wish {
	w := wish{order: o, rules: r, installed: installed}
	for _, p := range o.List.Packages {
		have := newest(installed, p)
		there := have.Name != ""
		if slices.ContainsFunc(installed, func(i packages.Installed) bool { return i.ID() == p.ID() && compare(i.Version, p.Version) == 0 }) {
			continue
		}
		older := there && compare(p.Version, have.Version) < 0
		why := r.refuses(p)
		if older && !o.AllowDowngrade {
			why = manager.KeptNewer
		}
		if why != "" {
			w.exclude = append(w.exclude, nevra(p.Name, p.Version, p.Arch))
			if there || p.Role == packages.Install {
				if !there {
					have = packages.Installed{Name: p.Name, Arch: p.Arch}
				}
				have.Held = r.locks(have.Name, have.Arch)
				w.kept = append(w.kept, manager.Kept{Installed: have, Why: why})
			}
			continue
		}
		if p.Role == packages.Install || p.Role == packages.Update && there {
			w.specs = append(w.specs, nevra(p.Name, p.Version, p.Arch))
		}
	}
	return w
}

// newest is the newest installed package in whose place p would come: of the same name and architecture, or of the
// same name where one of the two fits every architecture.
func newest(installed []packages.Installed, p packages.Package) (found packages.Installed) {
	for _, i := range installed {
		if i.Name != p.Name || i.Arch != p.Arch && i.Arch != "noarch" && p.Arch != "noarch" {
			continue
		}
		if found.Name == "" || compare(found.Version, i.Version) < 0 {
			found = i
		}
	}
	return found
}

// nevra names one package exactly, as dnf reads it: the epoch is always there.
func nevra(name, version, arch string) string {
	if !strings.Contains(version, ":") {
		version = "0:" + version
	}
	return name + "-" + version + "." + arch
}

// allowed holds a solution to the list, and says it as changes.
func (w wish) allowed(s []step) ([]packages.Change, error) {
	var before, after []packages.Installed
	var wrong []string
	for _, st := range s {
		for _, g := range st.gone {
			before = append(before, g)
			if why := w.mayGo(st, g); why != "" {
				wrong = append(wrong, fmt.Sprintf("%s %s %s", g.ID(), g.Version, why))
			}
		}
		if st.come.Name == "" {
			continue
		}
		after = append(after, st.come)
		if !slices.ContainsFunc(w.order.List.Packages, func(p packages.Package) bool {
			return p.Name == st.come.Name && p.Arch == st.come.Arch && compare(p.Version, st.come.Version) == 0
		}) {
			wrong = append(wrong, fmt.Sprintf("%s %s would come in and is not in the list", st.come.ID(), st.come.Version))
		}
	}
	if len(wrong) > 0 {
		return nil, &manager.Error{Kind: manager.Refused, Detail: strings.Join(wrong, "; ")}
	}
	for _, spec := range w.specs {
		if !slices.ContainsFunc(after, func(p packages.Installed) bool { return nevra(p.Name, p.Version, p.Arch) == spec }) {
			wrong = append(wrong, spec)
		}
	}
	if len(wrong) > 0 {
		return nil, &manager.Error{Kind: manager.Unresolved, Detail: "dnf leaves out " + strings.Join(wrong, ", ")}
	}
	return packages.Diff(before, after), nil
}

// mayGo says why an installed package must not go in this step; empty: it may.
func (w wish) mayGo(st step, g packages.Installed) string {
	switch {
	case st.come.Name == g.Name: // another version of it
		if !w.order.AllowDowngrade && compare(st.come.Version, g.Version) < 0 {
			return "would go back to " + st.come.Version
		}
		return ""
	case w.rules.locks(g.Name, g.Arch):
		return "would be removed and is held"
	case slices.Contains(w.order.List.Remove, g.Name):
		return ""
	case st.come.Name == "" && w.superseded(g):
		return ""
	}
	return "would be removed"
}

// superseded reports whether a package of which several versions are kept goes because the machine's own limit
// (installonly_limit) says so: a newer one comes in and the name stays.
func (w wish) superseded(g packages.Installed) bool {
	versions := 0
	for _, i := range w.installed {
		if i.ID() == g.ID() {
			versions++
		}
	}
	return versions > 1 && slices.ContainsFunc(w.order.List.Packages, func(p packages.Package) bool {
		return p.ID() == g.ID() && compare(p.Version, g.Version) > 0
	})
}
