package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// transact lets the package manager do what was foreseen, and makes that durable: an rpm's files are not flushed by
// those who write them.
//
// What fails before that has touched nothing, and nothing is put back then: whoever is at work on the machine's packages
// instead of us must not have them replaced under his hands.
func (s *session) transact(ctx context.Context, p *patch, t journal.Transaction) (journal.Transaction, error) {
	if t.Packages.Repaired {
		return t, s.repair(ctx, p, t)
	}
	untouched := t
	untouched.Packages.Touched = false
	f, err := s.state.readForeseen(t.Packages.Foreseen)
	if err != nil {
		return untouched, err
	}
	plan, err := p.manager.Plan(ctx, p.order)
	if err != nil {
		return untouched, err
	}
	if !reflect.DeepEqual(plan.Changes, f.Plan.Changes) {
		return untouched, &deferral{reason: ReasonPlanChanged, detail: "somebody changed the machine's packages after the preflight", next: s.Now().Add(time.Minute)}
	}
	lift, err := denyServices(s.Config.Machine, t.New.Format)
	if err != nil {
		return t, err
	}
	err = p.change(func() (manager.Output, error) { return p.manager.Apply(ctx, p.order, plan) })
	var busy *manager.Error
	if errors.As(err, &busy) && busy.Kind == manager.Busy {
		return untouched, errors.Join(err, lift())
	}
	return t, errors.Join(err, lift(), flush(s.Config.Machine))
}

// repair is the way forward where there is none back.
func (s *session) repair(ctx context.Context, p *patch, t journal.Transaction) error {
	f, err := s.state.readForeseen(t.Packages.Foreseen)
	if err != nil {
		return err
	}
	lift, err := denyServices(s.Config.Machine, p.order.List.Format)
	if err != nil {
		return err
	}
	err = p.change(func() (manager.Output, error) { return p.manager.Repair(ctx, p.order, f.Plan) })
	return errors.Join(err, lift(), flush(s.Config.Machine))
}

// change lets the package manager change the machine, and keeps what it said.
func (p *patch) change(f func() (manager.Output, error)) error {
	p.log.on = true
	out, err := f()
	p.log.on = false
	p.complain, p.said = out.Complain, out.Log
	var e *manager.Error
	if errors.As(err, &e) && e.Log != "" {
		p.said = e.Log
	}
	return err
}

// flush makes everything that was written on the machine's file systems durable. Only of the root's does the kernel say
// how that went.
func flush(root string) error {
	unix.Sync()
	d, err := os.Open(root)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", root, err)
	}
	return nil
}

// judge compares what is there with what was foreseen. That a tool ended with status 0 counts for nothing.
func (s *session) judge(ctx context.Context, p *patch, t journal.Transaction) (journal.Transaction, error) {
	after, err := p.manager.Installed(ctx)
	if err != nil {
		return t, err
	}
	audit, err := p.manager.Audit(ctx)
	if err != nil {
		return t, err
	}
	f, err := s.state.readForeseen(t.Packages.Foreseen)
	if err != nil {
		return t, err
	}
	plan, before := f.Plan, f.Before
	if t.Packages.Repaired { // what came of it was not foreseen: what the list allows is what counts
		before = once(before)
		plan.Changes = packages.Diff(before, after)
	}
	p.findings = manager.Judge(before, after, p.order.List, plan, p.order.AllowDowngrade)
	p.findings = append(append(p.findings, audit...), p.complain...)
	if len(p.findings) > 0 {
		return t, &findingsError{p.findings}
	}
	p.kept = f.Plan.Kept
	t.New.Packages = digestOf(after)
	if t.Packages.Reboot, err = p.manager.Reboot(ctx, packages.Diff(f.Before, after)); err != nil {
		return t, err
	}
	if p.order.List.Reboot && !t.Packages.Rebooted && t.Packages.Touched {
		t.Packages.Reboot = append(t.Packages.Reboot, "the bundle says that it takes one")
	}
	if denied(p.log) {
		t.Packages.Reboot = append(t.Packages.Reboot, "services were not started again: no systemd runs here, and what the executor starts has no network")
	}
	t.Packages.Reboot = t.Packages.Reboot[:min(len(t.Packages.Reboot), journal.MaxReasons)]
	t.Packages.Boot = bootID()
	return t, nil
}

// once leaves out, of packages that are not in order, what is there a second time: a transaction that was cut may have
// left the old version beside the new one.
func once(ps []packages.Installed) (out []packages.Installed) {
	for _, p := range ps {
		if p.State == "" || !slices.ContainsFunc(out, func(q packages.Installed) bool { return q.ID() == p.ID() }) {
			out = append(out, p)
		}
	}
	return out
}

// errRebootPending says that the machine was asked to start again.
var errRebootPending = errors.New("the machine was asked to start again; the next run goes on")

// reboot asks for a start of the machine. Where that is refused the transaction goes on, and says what it is needed for.
func (s *session) reboot(ctx context.Context) error {
	if err := s.Host.Reboot(ctx); err != nil {
		s.Log.Warn("the machine cannot be started again", "err", err)
		s.patch.findings = append(s.patch.findings, "the machine cannot be started again: "+err.Error())
		return nil
	}
	return errRebootPending
}

// findingsError says that the machine is not as it should be after a transaction.
type findingsError struct{ findings []string }

func (e *findingsError) Error() string {
	return fmt.Sprintf("%d findings after the transaction: %s", len(e.findings), strings.Join(e.findings, "; "))
}

// managerFault says what an error of a package manager means for the candidate. Before the transaction nothing was
// touched, so most of it waits; afterwards it counts.
func managerFault(e *manager.Error, touched bool) (journal.Class, string, problem.Code) {
	wait := journal.Deferred
	if touched {
		wait = journal.Failed
	}
	switch e.Kind {
	case manager.Busy:
		return journal.Deferred, ReasonLocked, problem.Locked
	case manager.Untrusted:
		return journal.Rejected, ReasonUntrusted, problem.SignatureInvalid
	case manager.Space:
		return wait, string(preflight.LowDisk), problem.DiskFull
	case manager.Unresolved:
		return wait, ReasonUnresolved, problem.PackagesRefused
	case manager.Refused:
		return wait, ReasonRefused, problem.PackagesRefused
	case manager.Broken:
		return wait, ReasonBroken, problem.PackagesRefused
	case manager.Script:
		return wait, ReasonScript, problem.InstallFailed
	case manager.Cut, manager.Tool:
	}
	return wait, "InstallFailed", problem.InstallFailed
}

// digestOf identifies a state of a machine's package database.
func digestOf(ps []packages.Installed) string {
	h := sha256.New()
	for _, p := range ps {
		fmt.Fprintf(h, "%s %s %s %s\n", p.Name, p.Arch, p.Version, p.State)
	}
	return hex.EncodeToString(h.Sum(nil))
}
