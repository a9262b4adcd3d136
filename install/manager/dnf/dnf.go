// Package dnf drives dnf 4 and rpm. It was tested with dnf 4.14 and rpm 4.18; dnf 5 has another command line and is not
// supported.
//
// dnf, not rpm alone, does the transaction, because it keeps what a machine's owner looks at later: the history, and
// the mark of what came in for another package. But it decides nothing: it is asked for exact versions, out of one
// repository, and what its solver answers, in a file meant for machines (libsolv's test case, --debugsolver), has to
// be what the list allows before anything is done. Its configuration is our own, so what the machine's says of
// versions is read here and obeyed: the lists of the versionlock plugin, excludepkgs and includepkgs (rules.go).
//
// Signatures are checked before dnf runs, with the command that dnf itself uses for gpgcheck=1, but against a keyring
// that holds the bundle's keys and no others and is thrown away (trust.go). dnf's own check would accept every key that
// the machine ever imported, and would import ours for good.
//
// Configuration files: rpm decides by the package's own flags, %config or %config(noreplace). Which of the two versions
// is in force is settled after the transaction as the list says; the other stays beside it (conffiles.go). A service
// that the package's script restarts has by then seen what rpm left.
//
// A Manager belongs to one goroutine.
package dnf

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Config says which machine, and where to work.
type Config struct {
	Root   string // of the machine, usually "/"
	Dir    string // private, for root only; what is in it may go at any time between two calls
	Runner tool.Runner
}

// Manager is the back end for dnf and rpm.
type Manager struct {
	cfg  Config
	db   string // rpm's database, as rpm itself says; empty: not asked yet
	last *wish  // what the last Plan asked for, and
	plan manager.Plan
}

var _ manager.Manager = (*Manager)(nil)

// New makes a back end. It does nothing yet.
func New(c Config) *Manager {
	c.Root = cmp.Or(c.Root, "/")
	return &Manager{cfg: c}
}

// Format is rpm.
func (m *Manager) Format() manifest.Format { return manifest.FormatRPM }

// Installed lists rpm's database, without the keys that rpm keeps in it. Auto is dnf's reason, which costs a run of
// dnf where there is a history.
func (m *Manager) Installed(ctx context.Context) ([]packages.Installed, error) {
	ps, err := m.database(ctx)
	if err != nil {
		return nil, err
	}
	auto, err := m.dependencies(ctx)
	if err != nil {
		return nil, err
	}
	r, err := readRules(m.cfg.Root)
	if err != nil {
		return nil, err
	}
	for i := range ps {
		ps[i].Auto = auto[ps[i].ID()]
		ps[i].Held = r.locks(ps[i].Name, ps[i].Arch)
	}
	return ps, m.markDuplicates(ctx, ps)
}

// Plan asks dnf for a transaction up to and with rpm's own test, which sees conflicts of files and lack of space.
func (m *Manager) Plan(ctx context.Context, o manager.Order) (manager.Plan, error) {
	if o.List == nil || o.List.Format != manifest.FormatRPM {
		return manager.Plan{}, &manager.Error{Kind: manager.Refused, Detail: "the list is not of rpm packages"}
	}
	// A dnf that finds nothing to do reads a half-done database without waiting for the one that is at it.
	if err := m.free(); err != nil {
		return manager.Plan{}, err
	}
	if err := m.verify(ctx, o); err != nil {
		return manager.Plan{}, err
	}
	if err := m.whole(ctx); err != nil {
		return manager.Plan{}, err
	}
	w, err := m.wish(ctx, o)
	if err != nil {
		return manager.Plan{}, err
	}
	plan := manager.Plan{Kept: w.kept}
	if len(w.specs) == 0 {
		return plan, nil
	}
	run, err := m.transact(ctx, o, w, simulate, append([]string{"install"}, w.specs...)...)
	if err != nil {
		return manager.Plan{}, err
	}
	if plan.Changes, err = w.allowed(run.solution); err != nil {
		return manager.Plan{}, err
	}
	m.last, m.plan = &w, plan
	return plan, nil
}

// Apply goes on only when the plan is what would come of the order now.
func (m *Manager) Apply(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	again, err := m.current(ctx, o)
	if err != nil {
		return manager.Output{}, err
	}
	if !reflect.DeepEqual(again.Changes, p.Changes) {
		return manager.Output{}, &manager.Error{Kind: manager.Refused, Detail: "the machine has changed since the transaction was planned"}
	}
	if p.Empty() {
		return manager.Output{}, nil
	}
	if err := m.sweep(ctx); err != nil {
		return manager.Output{}, err
	}
	return m.forward(ctx, o, p)
}

// current is the last plan of this Manager where the machine's packages and rules are as they were, and else a new one.
func (m *Manager) current(ctx context.Context, o manager.Order) (manager.Plan, error) {
	if err := m.free(); err != nil {
		return manager.Plan{}, err
	}
	w, err := m.wish(ctx, o)
	if err != nil {
		return manager.Plan{}, err
	}
	if m.last != nil && reflect.DeepEqual(*m.last, w) {
		return m.plan, nil
	}
	return m.Plan(ctx, o)
}

// forward does what the machine's state leaves to be done of an order.
func (m *Manager) forward(ctx context.Context, o manager.Order, p manager.Plan) (manager.Output, error) {
	w, err := m.wish(ctx, o)
	if err != nil || len(w.specs) == 0 {
		return manager.Output{}, err
	}
	run, err := m.transact(ctx, o, w, forReal, append([]string{"install"}, w.specs...)...)
	out := run.output()
	if err != nil {
		return out, err
	}
	return out, m.settle(ctx, o, p.Changes)
}

// wish reads the machine and decides what to ask dnf for.
func (m *Manager) wish(ctx context.Context, o manager.Order) (wish, error) {
	installed, err := m.database(ctx)
	if err != nil {
		return wish{}, err
	}
	r, err := readRules(m.cfg.Root)
	if err != nil {
		return wish{}, err
	}
	return decide(o, installed, r), nil
}

// Compare orders two versions, each with its epoch and release where it has one, as rpm does.
func (m *Manager) Compare(a, b string) int { return compare(a, b) }

// path is a file of the machine.
func (m *Manager) path(name string) string { return filepath.Join(m.cfg.Root, name) }

// private makes a fresh directory of ours.
func (m *Manager) private(name string) (string, error) {
	dir := filepath.Join(m.cfg.Dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// toolError says that a tool behaved in a way that is not known.
func toolError(what string, res tool.Result) *manager.Error {
	return &manager.Error{Kind: manager.Tool, Detail: what, Exit: res.Exit, Log: tail(res.Both)}
}

// tail is the end of what a tool said.
func tail(b []byte) string {
	if over := len(b) - manager.MaxLog; over > 0 {
		b = b[over:]
	}
	return strings.ToValidUTF8(string(b), "?")
}
