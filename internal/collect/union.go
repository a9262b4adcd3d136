package collect

import (
	"fmt"
	"slices"

	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// union puts together what several machines need, and says what each package is for.
type union struct {
	o        *Options
	machines []Machine
	found    map[string]packages.Package // by ID
	kept     []string
}

// add takes what one machine needs. The sources are the same for all, so a package has one version.
func (u *union) add(found []packages.Package, kept []string) error {
	if u.found == nil {
		u.found = map[string]packages.Package{}
	}
	for _, p := range found {
		if old, ok := u.found[p.ID()]; ok && old.Version != p.Version {
			return problem.New(problem.PolicyConflict, "%s: one list needs %s, another %s", p.ID(), old.Version, p.Version).
				WithDone("nothing was collected").WithNext("collect for each list by itself, as bundles of their own")
		}
		u.found[p.ID()] = p
	}
	u.kept = sorted(append(u.kept, kept...))
	return nil
}

// packages are all of them, in order, with their roles.
func (u *union) packages() []packages.Package {
	l := packages.List{}
	for _, p := range u.found {
		p.Role = u.role(p)
		l.Packages = append(l.Packages, p)
	}
	l.Sort()
	return l.Packages
}

// role says what a package is for. A machine that has it not and needs it for another gets an update too.
func (u *union) role(p packages.Package) packages.Role {
	switch {
	case slices.Contains(u.o.Install, p.Name):
		return packages.Install
	case len(u.from(p)) > 0:
		return packages.Update
	case slices.Contains(u.o.Only, p.Name):
		return packages.Install
	}
	return packages.Dependency
}

// from are the other versions that machines have of a package.
func (u *union) from(p packages.Package) []string {
	vs := []string{}
	for _, m := range u.machines {
		for _, i := range m.Installed {
			if i.Name == p.Name && (i.Arch == p.Arch || i.Arch == "" || neutral(i.Arch) || neutral(p.Arch)) {
				vs = append(vs, i.Version)
			}
		}
	}
	return sorted(vs)
}

// neutral are the architectures that fit every machine: a package may change from and to them.
func neutral(arch string) bool { return arch == "all" || arch == "noarch" }

// unknownName says that a package is in no source.
func unknownName(name string) error {
	return problem.New(problem.NotFound, "no source has a package %s", name).
		WithDone("nothing was collected").WithNext("correct the name, or give the source that has it with --source")
}

// wouldRemove says that packages would have to go.
func wouldRemove(names []string) error {
	return problem.New(problem.PolicyConflict, "%s would have to be removed", few(names)).
		WithDone("nothing was collected").WithNext("allow it with --remove NAME, or leave out with --only what wants it")
}

// few joins at most ten names.
func few(names []string) string {
	s := ""
	for i, n := range names {
		switch {
		case i == 10:
			return s + fmt.Sprintf(" and %d more", len(names)-10)
		case i > 0:
			s += ", "
		}
		s += n
	}
	return s
}
