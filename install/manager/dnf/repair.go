package dnf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Audit is dnf check, which sees duplicates and what is missing, and the files that a transaction left which was cut
// while it unpacked: neither rpm nor dnf sees those. rpm -Va is not run: it reads every file of the machine, and says
// of many that a script changed them, as it should.
func (m *Manager) Audit(ctx context.Context) ([]string, error) {
	found, err := m.check(ctx)
	if err != nil {
		return nil, err
	}
	left, err := m.leftovers(ctx)
	if len(left) > 0 {
		found = append(found, fmt.Sprintf("%d files of a transaction that was cut, the first is %s", len(left), left[0]))
	}
	return found, err
}

// check is dnf check.
func (m *Manager) check(ctx context.Context) ([]string, error) {
	res, _, err := m.dnf(ctx, "", nil, "", "-q", "check")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(res.Stdout)) {
		if line = strings.TrimSpace(line); line != "" {
			found = append(found, line)
		}
	}
	if res.Exit != 0 && len(found) == 0 {
		return nil, failure(res)
	}
	return found, nil
}

// whole says Broken when the database is not in order. Leftovers are no reason: sweep takes them away.
func (m *Manager) whole(ctx context.Context) error {
	found, err := m.check(ctx)
	if err == nil && len(found) > 0 {
		err = &manager.Error{Kind: manager.Broken, Detail: strings.Join(found[:min(len(found), maxComplaints)], "; ")}
	}
	return err
}

// sweep removes leftovers. Nobody is in a transaction.
func (m *Manager) sweep(ctx context.Context) error {
	left, err := m.leftovers(ctx)
	for _, f := range left {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// Repair goes forward: what the plan has already brought is installed again, because files and scripts of it may be half
// done and nothing in the database says so; older versions beside it go; then comes what is left of the order.
func (m *Manager) Repair(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	var out manager.Output
	if err := m.dropStaleLock(); err != nil {
		return out, err
	}
	if err := m.verify(ctx, o); err != nil {
		return out, err
	}
	if err := m.settle(ctx, o, p.Changes); err != nil {
		return out, err
	}
	auto, err := m.dependencies(ctx)
	if err != nil {
		return out, err
	}
	for _, step := range []func(context.Context, manager.Order, manager.Plan) (manager.Output, error){m.dropOlder, m.again, m.forward, m.dropGone} {
		said, err := step(ctx, o, p)
		out = join(out, said)
		if err != nil {
			return out, err
		}
	}
	if err := m.remark(ctx, o, p, auto); err != nil {
		return out, err
	}
	return out, m.sweep(ctx)
}

// remark marks again what a cut run of dnf did not come to write into its history: what had come in for others before,
// and what is new unless the list wants it on every machine.
func (m *Manager) remark(ctx context.Context, o manager.Order, p manager.Plan, before map[string]bool) error {
	now, err := m.dependencies(ctx)
	if err != nil {
		return err
	}
	args := []string{"-q", "mark", "remove"}
	for _, c := range p.Changes {
		asked := slices.ContainsFunc(o.List.Packages, func(l packages.Package) bool { return l.ID() == c.ID() && l.Role == packages.Install })
		if c.To != "" && !now[c.ID()] && (before[c.ID()] || c.From == "" && !asked) {
			args = append(args, nevra(c.Name, c.To, c.Arch))
		}
	}
	if len(args) == 3 {
		return nil
	}
	res, _, err := m.dnf(ctx, "", nil, "", args...)
	if err == nil && res.Exit != 0 {
		err = failure(res)
	}
	return err
}

// dropOlder removes the older of two versions where there may be one, and installs the newer again.
func (m *Manager) dropOlder(ctx context.Context, o manager.Order, _ manager.Plan) (manager.Output, error) {
	ps, err := m.database(ctx)
	if err == nil {
		err = m.markDuplicates(ctx, ps)
	}
	if err != nil || !slices.ContainsFunc(ps, func(p packages.Installed) bool { return p.State == duplicate }) {
		return manager.Output{}, err
	}
	w, err := m.wish(ctx, o)
	if err != nil {
		return manager.Output{}, err
	}
	run, err := m.transact(ctx, o, w, forReal, "remove", "--duplicates")
	return run.output(), err
}

// again installs once more what the plan brought and is there.
func (m *Manager) again(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	w, err := m.wish(ctx, o)
	if err != nil {
		return manager.Output{}, err
	}
	args := []string{"reinstall"}
	for _, c := range p.Changes {
		if c.To != "" && slices.ContainsFunc(w.installed, func(i packages.Installed) bool { return i.ID() == c.ID() && i.Version == c.To }) {
			args = append(args, nevra(c.Name, c.To, c.Arch))
		}
	}
	if len(args) == 1 {
		return manager.Output{}, nil
	}
	run, err := m.transact(ctx, o, w, forReal, args...)
	if err != nil {
		return run.output(), err
	}
	return run.output(), m.settle(ctx, o, p.Changes)
}

// dropGone removes what the plan was to remove and is still there, once dnf says that nothing else would go.
func (m *Manager) dropGone(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	w, err := m.wish(ctx, o)
	if err != nil {
		return manager.Output{}, err
	}
	args := []string{"remove"}
	for _, c := range p.Changes {
		if c.To == "" && slices.ContainsFunc(w.installed, func(i packages.Installed) bool { return i.ID() == c.ID() && i.Version == c.From }) {
			args = append(args, nevra(c.Name, c.From, c.Arch))
		}
	}
	if len(args) == 1 {
		return manager.Output{}, nil
	}
	run, err := m.transact(ctx, o, w, simulate, args...)
	if err != nil {
		return run.output(), err
	}
	if len(run.solution) != len(args)-1 {
		return run.output(), &manager.Error{Kind: manager.Refused, Detail: "removing what a cut transaction left would remove more"}
	}
	run, err = m.transact(ctx, o, w, forReal, args...)
	return run.output(), err
}

func join(a, b manager.Output) manager.Output {
	return manager.Output{Exit: b.Exit, Log: tail([]byte(a.Log + b.Log)), Complain: append(a.Complain, b.Complain...)}
}

// leftover is how rpm names a file while it unpacks: the name, a semicolon, and the transaction's time in hexadecimal
// (lib/fsm.c of rpm).
var leftover = regexp.MustCompile(`^(.+);[0-9a-f]{8}$`)

// leftovers lists files with such a name in the directories of installed packages, if the name without the ending is a
// package's file: nobody else's file is taken for one. They are paths of the host.
func (m *Manager) leftovers(ctx context.Context) ([]string, error) {
	res, err := m.query(ctx, "-a", "--qf", `[%{=NAME}\t%{DIRNAMES}\n]`)
	if err != nil {
		return nil, err
	}
	users := map[string][]string{} // of a directory: packages
	for line := range strings.Lines(string(res.Stdout)) {
		if name, dir, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok && strings.HasPrefix(dir, "/") {
			users[dir] = append(users[dir], name)
		}
	}
	var found, names []string
	for dir, packages := range users {
		es, err := os.ReadDir(m.path(dir))
		if err != nil {
			continue // a package's directory that is not there holds nothing
		}
		before := len(found)
		for _, e := range es {
			if leftover.MatchString(e.Name()) && !e.IsDir() {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
		if len(found) > before {
			names = append(names, packages...)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	res, err = m.query(ctx, append([]string{"--qf", `[%{FILENAMES}\n]`}, slices.Compact(names)...)...)
	if err != nil {
		return nil, err
	}
	owned := map[string]bool{}
	for f := range strings.Lines(string(res.Stdout)) {
		owned[strings.TrimSuffix(f, "\n")] = true
	}
	found = slices.DeleteFunc(found, func(f string) bool { return owned[f] || !owned[leftover.FindStringSubmatch(f)[1]] })
	for i := range found {
		found[i] = m.path(found[i])
	}
	slices.Sort(found)
	return found, nil
}
