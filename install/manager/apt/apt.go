// Package apt drives the machine's own apt-get and dpkg for the executor, behind manager.Manager. It decides nothing
// that apt can decide: apt simulates, and what it says it would do is held against the list of the bundle before it
// may do it. Its configuration is a private file (config.go says what of the machine's counts and what does not); no
// repository but the bundle's is there for it, and no question is asked.
//
// A Manager belongs to one goroutine.
package apt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Config says where.
type Config struct {
	Root   string // of the machine: "/", or a root in which this machine's apt-get and dpkg are to work
	Dir    string // private, root only: configuration, lists, caches. What is in it is made anew for every order
	Runner tool.Runner
}

// Manager is the back end. The zero value is of no use: New.
type Manager struct {
	c     Config
	ready manager.Order // what the private directory was prepared for
}

var _ manager.Manager = (*Manager)(nil)

// New makes a back end. Nothing is touched.
func New(c Config) *Manager { return &Manager{c: c} }

// Format is deb.
func (m *Manager) Format() manifest.Format { return manifest.FormatDeb }

// Compare orders versions as dpkg does.
func (m *Manager) Compare(a, b string) int { return compare(a, b) }

// path is a file of the machine.
func (m *Manager) path(name string) string { return filepath.Join(m.c.Root, name) }

// run runs apt-get or one of its relatives with the private configuration.
func (m *Manager) run(ctx context.Context, name string, args ...string) (tool.Result, error) {
	return m.c.Runner.Run(ctx, tool.Command{Path: name, Args: args, Env: []string{"APT_CONFIG=" + m.file("apt.conf"), m.forUCF()}})
}

// dpkg runs dpkg on the machine's database.
func (m *Manager) dpkg(ctx context.Context, args ...string) (tool.Result, error) {
	return m.c.Runner.Run(ctx, tool.Command{Path: "dpkg", Args: append(m.dpkgRoot(), args...), Env: []string{m.forUCF()}})
}

// forUCF says the same as forConffiles to the scripts of packages that keep their configuration with ucf(1).
func (m *Manager) forUCF() string {
	if m.ready.List != nil && m.ready.List.Conffiles == packages.Replace {
		return "UCF_FORCE_CONFFNEW=YES"
	}
	return "UCF_FORCE_CONFFOLD=YES"
}

func (m *Manager) dpkgRoot() []string {
	if m.c.Root == "/" {
		return nil
	}
	return []string{"--root=" + m.c.Root}
}

// Plan asks apt to simulate, and refuses what the list does not allow.
func (m *Manager) Plan(ctx context.Context, o manager.Order) (manager.Plan, error) {
	if err := m.free(); err != nil {
		return manager.Plan{}, err
	}
	if err := m.inOrder(ctx); err != nil {
		return manager.Plan{}, err
	}
	if err := m.prepare(ctx, o); err != nil {
		return manager.Plan{}, err
	}
	p, _, err := m.simulate(ctx, o)
	return p, err
}

// simulate returns beside the plan the arguments that make apt do it.
func (m *Manager) simulate(ctx context.Context, o manager.Order) (manager.Plan, []string, error) {
	none := manager.Plan{}
	have, native, err := m.installed(ctx)
	if err != nil {
		return none, nil, err
	}
	known, err := m.policies(ctx, differing(o.List, have, native), native)
	if err != nil {
		return none, nil, err
	}
	named, kept := choose(o, have, native, known)
	if len(named) == 0 {
		return manager.Plan{Kept: kept}, nil, nil
	}
	args := install(o, named)
	will, res, err := m.foresee(ctx, args, have, native)
	if err != nil {
		return none, nil, err
	}
	if bad := objections(o, named, will); len(bad) > 0 {
		return none, nil, refused(bad, res)
	}
	return manager.Plan{Changes: will, Kept: kept}, args, nil
}

// foresee has apt say what some arguments would change.
func (m *Manager) foresee(ctx context.Context, args []string, have []packages.Installed, native string) ([]packages.Change, tool.Result, error) {
	res, err := m.run(ctx, "apt-get", append([]string{"-s"}, args...)...)
	if err != nil {
		return nil, res, cut(err, res)
	}
	if res.Exit != 0 {
		return nil, res, classify(res)
	}
	steps, err := parseSteps(string(res.Stdout), native)
	if err != nil {
		return nil, res, &manager.Error{Kind: manager.Tool, Detail: err.Error(), Log: tail(res.Both)}
	}
	return changes(steps, have, native), res, nil
}

// inOrder returns Broken when the database is not in order.
func (m *Manager) inOrder(ctx context.Context) error {
	findings, err := m.Audit(ctx)
	if err != nil {
		return err
	}
	findings = slices.DeleteFunc(findings, onlyTriggers)
	if len(findings) == 0 {
		return nil
	}
	return &manager.Error{Kind: manager.Broken, Detail: strings.Join(findings, "; ")}
}

// Apply simulates once more and does it when nothing has changed since the plan.
func (m *Manager) Apply(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	if p.Empty() {
		return manager.Output{}, nil
	}
	if err := m.free(); err != nil {
		return manager.Output{}, err
	}
	if m.ready != o {
		if err := m.prepare(ctx, o); err != nil {
			return manager.Output{}, err
		}
	}
	now, args, err := m.simulate(ctx, o)
	if err != nil {
		return manager.Output{}, err
	}
	if !slices.Equal(now.Changes, p.Changes) {
		return manager.Output{}, &manager.Error{Kind: manager.Refused, Detail: fmt.Sprintf("the machine has changed since the plan: %d changes planned, now %d", len(p.Changes), len(now.Changes))}
	}
	return m.transact(ctx, o, p, args)
}

// transact runs apt-get and sets the marks of what came in.
func (m *Manager) transact(ctx context.Context, o manager.Order, p manager.Plan, args []string) (manager.Output, error) {
	res, err := m.run(ctx, "apt-get", append([]string{"-y"}, args...)...)
	out := manager.Output{Exit: res.Exit, Log: tail(res.Both)}
	if err != nil {
		return out, cut(err, res)
	}
	if res.Exit != 0 {
		return out, classify(res)
	}
	out.Complain = complaints(res)
	return out, m.mark(ctx, o, p)
}

// mark has apt remember which of the new packages came in for others. Those of packages that were there before are as
// they were: apt-get worked on a copy of the file that holds them.
func (m *Manager) mark(ctx context.Context, o manager.Order, p manager.Plan) error {
	names := arrivals(o.List, p.Changes)
	if len(names) == 0 {
		return nil
	}
	if err := m.configure(machineMarks); err != nil {
		return err
	}
	res, err := m.run(ctx, "apt-mark", append([]string{"auto"}, names...)...)
	if err != nil {
		return cut(err, res)
	}
	if res.Exit != 0 {
		return classify(res)
	}
	return nil
}

func refused(objections []string, res tool.Result) error {
	return &manager.Error{Kind: manager.Refused, Detail: strings.Join(objections, "; "), Exit: res.Exit, Log: tail(res.Both)}
}

// cut tells a program that was killed from one that could not be started.
func cut(err error, res tool.Result) error {
	kind := manager.Tool
	if errors.Is(err, tool.ErrKilled) {
		kind = manager.Cut
	}
	return &manager.Error{Kind: kind, Detail: err.Error(), Exit: res.Exit, Log: tail(res.Both)}
}
