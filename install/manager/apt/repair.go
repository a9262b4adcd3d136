package apt

import (
	"context"
	"slices"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Repair has dpkg configure what it can, and then asks apt for the exact versions of the plan: that is what brings a
// package out of "half-installed", which dpkg alone cannot (its status is 0 all the same). Forward only: the packages
// that were there before are in no repository.
func (m *Manager) Repair(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	if err := m.free(); err != nil {
		return manager.Output{}, err
	}
	if err := m.prepare(ctx, o); err != nil {
		return manager.Output{}, err
	}
	out, err := m.configurePending(ctx, o)
	if err != nil {
		return out, err
	}
	have, native, err := m.installed(ctx)
	if err != nil {
		return out, err
	}
	named := outstanding(o, p, have)
	if len(named) == 0 {
		return out, m.mark(ctx, o, p)
	}
	args := install(o, named)
	if slices.ContainsFunc(named, func(l packages.Package) bool { return has(have, l) }) {
		// Cut off at its very end, a package has the new version already and still has to be unpacked again: dpkg will not
		// configure it, and apt takes it for the newest.
		args = append([]string{"--reinstall"}, args...)
	}
	will, res, err := m.foresee(ctx, args, have, native)
	if err != nil {
		return out, err
	}
	if bad := objections(o, nil, will); len(bad) > 0 {
		return out, refused(bad, res)
	}
	return m.transact(ctx, o, p, args)
}

// has reports whether a package is there in its version, in whatever state.
func has(have []packages.Installed, l packages.Package) bool {
	return slices.ContainsFunc(have, func(i packages.Installed) bool { return i.Name == l.Name && i.Arch == l.Arch && i.Version == l.Version })
}

// configurePending runs what dpkg can finish by itself. That it cannot finish everything is no error here.
func (m *Manager) configurePending(ctx context.Context, o manager.Order) (manager.Output, error) {
	res, err := m.dpkg(ctx, append(forConffiles(o), "--configure", "-a")...)
	out := manager.Output{Exit: res.Exit, Log: tail(res.Both)}
	if err != nil {
		return out, cut(err, res)
	}
	if e := classify(res); res.Exit != 0 && (e.Kind == manager.Busy || e.Kind == manager.Space) {
		return out, e
	}
	return out, nil
}

// outstanding are the packages of a plan that are not there as they should be. What a person has held since, or brought
// to a newer version, and is whole, is left.
func outstanding(o manager.Order, p manager.Plan, have []packages.Installed) []packages.Package {
	var out []packages.Package
	for _, l := range o.List.Packages {
		planned := slices.ContainsFunc(p.Changes, func(c packages.Change) bool { return c.Name == l.Name && c.Arch == l.Arch && c.To == l.Version })
		done := slices.ContainsFunc(have, func(i packages.Installed) bool {
			newer := compare(i.Version, l.Version) > 0 && !o.AllowDowngrade
			return i.Name == l.Name && i.Arch == l.Arch && i.State == "" && (i.Version == l.Version || i.Held || newer)
		})
		if planned && !done {
			out = append(out, l)
		}
	}
	return out
}
