// Package closure proves, before a bundle of packages is published, that nothing is missing in it: a node has no other
// source. It holds the bundle's repository against what machines have, with the code that runs on the nodes
// (install/manager) and the real apt or dnf, without a network. It resolves nothing in place of them and mends nothing.
//
// What is proved depends on what is known of a machine:
//
//   - a dpkg status file, or rpm's database: the solver finds a transaction, and it is one that the bundle's list allows.
//     For rpm its own test of the transaction is passed too (conflicts of files).
//   - names and versions only (dpkg-query -W): the same as far as names go. What is needed under a name that only other
//     packages provide is not known to be there, and is named as missing. For rpm, where nearly everything is needed
//     under such names, this is refused.
//   - a root: all packages are unpacked and configured in a copy of it, and every version is compared afterwards.
//
// Functions are safe for concurrent use.
package closure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/apt"
	"github.com/patchmesh/patchmesh/install/manager/dnf"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Bases are the machines to hold a bundle against.
type Bases struct {
	Lists []string // files, as for "bundle collect"
	Roots []string // directories with a whole system each; they are copied, and need root
}

// Proof is what was found on one base.
type Proof struct {
	Base      string            `json:"base"`
	Installed bool              `json:"installed"` // really, in a copy; else simulated
	Changes   []packages.Change `json:"changes"`
	Kept      []manager.Kept    `json:"kept,omitempty"` // of the list, but left alone on this machine
}

// Prove holds a bundle against every base, and fails at the first that it does not fit.
func Prove(ctx context.Context, b *chunker.Bundle, bases Bases) ([]Proof, error) {
	l, err := b.Packages()
	if err != nil {
		return nil, err
	}
	if arch := b.Manifest.Target.Arch; arch != manifest.Any && arch != runtime.GOARCH {
		return nil, problem.New(problem.Usage, "a bundle for %s cannot be proved on this machine, which is %s", arch, runtime.GOARCH).
			WithDone("nothing was built").WithNext("build on a machine of that architecture")
	}
	var out []Proof
	for _, name := range bases.Lists {
		p, err := prove(ctx, b, l, name, fromList)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	for _, name := range bases.Roots {
		p, err := prove(ctx, b, l, name, fromRoot)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Unproved are the packages of a list that no base had a use for: nothing is known of them.
func Unproved(l *packages.List, proofs []Proof) (names []string) {
	for _, p := range l.Packages {
		if !slices.ContainsFunc(proofs, func(pr Proof) bool {
			return slices.ContainsFunc(pr.Changes, func(c packages.Change) bool { return c.ID() == p.ID() && c.To == p.Version })
		}) {
			names = append(names, p.ID())
		}
	}
	return names
}

// prove makes a throw-away root from a base and works on it.
func prove(ctx context.Context, b *chunker.Bundle, l *packages.List, base string, from func(context.Context, *bed, string) error) (proof Proof, err error) {
	// Not in the system's temporary directory: a root is as large as a system, and the disk that holds the bundle is
	// meant for much.
	dir, err := os.MkdirTemp(filepath.Dir(b.Dir), durable.TempPrefix+"prove-*")
	if err != nil {
		return proof, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.Abs(dir); err != nil {
		return proof, err
	}
	repo, err := filepath.Abs(filepath.Join(b.Dir, chunker.ContentName))
	if err != nil {
		return proof, err
	}
	d := &bed{root: filepath.Join(dir, "root"), private: filepath.Join(dir, "private"), list: l,
		run: tool.Runner{ID: strings.TrimPrefix(filepath.Base(dir), durable.TempPrefix)}}
	if err := errors.Join(os.Mkdir(d.private, 0o700), from(ctx, d, base)); err != nil {
		return proof, err
	}
	var m manager.Manager
	if l.Format == manifest.FormatDeb {
		m = apt.New(apt.Config{Root: d.root, Dir: d.private, Runner: d.run})
	} else {
		m = dnf.New(dnf.Config{Root: d.root, Dir: d.private, Runner: d.run})
	}
	o := manager.Order{Repo: repo, List: l}
	plan, err := m.Plan(ctx, o)
	if err != nil {
		return proof, unfit(ctx, base, err)
	}
	proof = Proof{Base: base, Installed: d.whole, Changes: plan.Changes, Kept: plan.Kept}
	if d.whole {
		err = unfit(ctx, base, install(ctx, m, o, plan))
	}
	return proof, err
}

// install does it, and believes what it sees afterwards.
func install(ctx context.Context, m manager.Manager, o manager.Order, plan manager.Plan) error {
	before, err := m.Installed(ctx)
	if err != nil {
		return err
	}
	out, err := m.Apply(ctx, o, plan)
	if err != nil {
		return err
	}
	after, err := m.Installed(ctx)
	if err != nil {
		return err
	}
	findings := manager.Judge(before, after, o.List, plan, o.AllowDowngrade)
	audit, err := m.Audit(ctx)
	if err != nil {
		return err
	}
	if findings = append(append(findings, audit...), out.Complain...); len(findings) > 0 {
		return &manager.Error{Kind: manager.Script, Detail: strings.Join(findings, "; "), Exit: out.Exit, Log: out.Log}
	}
	return nil
}

// unfit says why a bundle does not fit a base.
func unfit(ctx context.Context, base string, err error) error {
	var e *manager.Error
	if ctx.Err() != nil || !errors.As(err, &e) {
		return err
	}
	p := problem.New(problem.NotClosed, "on %s the bundle cannot be installed: %s", base, e.Detail)
	switch e.Kind {
	case manager.Unresolved:
		p = problem.New(problem.NotClosed, "on %s something is missing: %s", base, missing(e)).
			WithNext(`add what is missing, or collect again with "meshctl bundle collect --installed %s"`, base)
	case manager.Refused:
		if names := removed(e.Log); names != "" {
			p.Subject += " (" + names + ")"
		}
		p.WithNext("allow what has to go with --remove, add what comes in, or leave out what wants it")
	case manager.Broken:
		p = problem.New(problem.InvalidFile, "%s is not in order, so nothing can be proved on it: %s", base, e.Detail).
			WithNext("give a base that is in order")
	case manager.Untrusted:
		p = problem.New(problem.SignatureInvalid, "on %s the bundle is refused: %s", base, e.Detail)
	case manager.Tool:
		return fmt.Errorf("proof on %s: %w", base, err)
	}
	return p.WithDone("nothing was built")
}

// missing are the lines in which the tool names what is not there and who needs it, at most twenty.
func missing(e *manager.Error) string {
	var out []string
	for line := range strings.Lines(e.Log) {
		line = strings.Join(strings.Fields(line), " ")
		if len(out) < 20 && (strings.Contains(line, "Depends: ") || strings.Contains(line, "nothing provides") || strings.Contains(line, "requires ")) {
			out = append(out, strings.TrimPrefix(line, "- "))
		}
	}
	if len(out) == 0 {
		return e.Detail
	}
	return strings.Join(out, "; ")
}

// removed are the names below apt's "The following packages will be REMOVED:".
func removed(log string) string {
	_, rest, _ := strings.Cut(log, "will be REMOVED:\n")
	var names []string
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, " ") {
			break
		}
		names = append(names, strings.Fields(line)...)
	}
	return strings.Join(names, ", ")
}
