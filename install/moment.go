package install

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// preflight asks whether this is a good moment, what the transaction would do, and who is to keep the state. The hooks
// come last: one that says yes may have closed the till.
func (s *session) preflight(ctx context.Context, p *patch, t journal.Transaction) (journal.Transaction, error) {
	now := s.Now()
	facts, notes, err := preflight.DefaultPlaces(s.Config.Machine).Look(now)
	if err != nil {
		return t, err
	}
	for _, n := range notes {
		s.Log.Warn("preflight", "note", n)
	}
	facts.Skew = time.Duration(s.request.SkewSeconds) * time.Second
	limits := preflight.DefaultLimits()
	limits.BatteryPercent = s.Config.Packages.BatteryPercent
	if no := preflight.Decide(facts, limits); no != nil { // before the tools are run in vain
		return t, s.notNow(no)
	}
	before, err := p.manager.Installed(ctx)
	if err != nil {
		return t, err
	}
	plan, err := p.manager.Plan(ctx, p.order)
	var broken *manager.Error
	if errors.As(err, &broken) && broken.Kind == manager.Broken && s.ledger.Left(ReasonNoSnapshot) {
		plan, err = mending(p.order.List, before), nil
		t.Packages.Repaired = true
	}
	if err != nil {
		return t, err
	}
	p.kept = plan.Kept
	t.Packages.Empty = plan.Empty()
	if !plan.Empty() {
		bring := brought(p.order.List, plan)
		disk := preflight.Disk{
			Root: s.Config.Machine, Format: t.New.Format, Repo: p.order.Repo, Bring: bring, Work: s.state.path(managerName),
			Reserve: s.Config.ReserveBytes, Runner: tool.Runner{ID: t.Packages.ID},
		}
		if facts.Space, err = disk.Look(ctx); err != nil {
			return t, err
		}
		t.Packages.Provider, facts.Snapshot = s.choose(ctx, s.wish(t), bytesOf(bring))
		if no := preflight.Decide(facts, limits); no != nil {
			return t, s.notNow(no)
		}
	}
	if t.Packages.Foreseen, err = s.state.writeForeseen(foreseen{ID: t.Packages.ID, Provider: t.Packages.Provider, Before: before, Plan: plan}); err != nil {
		return t, err
	}
	if plan.Empty() {
		return t, nil
	}
	t.Packages.Hooked = true
	if err := s.state.writeJournal(t); err != nil {
		return t, err
	}
	no, err := s.Host.Hooks(ctx, preflight.Call{Phase: preflight.BeforeInstall, Bundle: t.New.Bundle, Version: t.New.Version})
	if err != nil {
		return t, err
	}
	if no != nil {
		return t, s.notNow(no)
	}
	return t, nil
}

// mending is the plan for a machine that an earlier transaction without a snapshot left out of order: the tools make none
// for it. They go forward to what the list says of what is there.
func mending(l *packages.List, have []packages.Installed) (plan manager.Plan) {
	for _, p := range l.Packages {
		i := slices.IndexFunc(have, func(i packages.Installed) bool { return i.ID() == p.ID() })
		switch {
		case i >= 0:
			plan.Changes = append(plan.Changes, packages.Change{Name: p.Name, Arch: p.Arch, From: have[i].Version, To: p.Version})
		case p.Role == packages.Install:
			plan.Changes = append(plan.Changes, packages.Change{Name: p.Name, Arch: p.Arch, To: p.Version})
		}
	}
	return plan
}

// brought are the packages of a list that a plan unpacks.
func brought(l *packages.List, plan manager.Plan) []packages.Package {
	to := map[string]string{}
	for _, c := range plan.Changes {
		to[c.ID()] = c.To
	}
	var out []packages.Package
	for _, p := range l.Packages {
		if to[p.ID()] == p.Version {
			out = append(out, p)
		}
	}
	return out
}

func bytesOf(ps []packages.Package) (n int64) {
	for _, p := range ps {
		n += p.InstalledBytes
	}
	return n
}

// deferral is a no for now.
type deferral struct {
	reason, detail string
	code           problem.Code
	next           time.Time // zero: the daemon chooses
}

func (e *deferral) Error() string { return e.reason + ": " + e.detail }

// noteNext remembers when it is worth while to ask again, if an error says so.
func (s *session) noteNext(err error) {
	var later *deferral
	if errors.As(err, &later) {
		s.next = later.next
	}
}

func (s *session) nextTry() *time.Time {
	if s.next.IsZero() {
		return nil
	}
	return &s.next
}

// notNow is the deferral that a preflight asks for.
func (s *session) notNow(no *preflight.Deferral) *deferral {
	e := &deferral{reason: string(no.Reason), detail: no.Detail}
	if no.Retry > 0 {
		e.next = s.Now().Add(no.Retry).UTC().Truncate(time.Second)
	}
	switch no.Reason {
	case preflight.LowDisk:
		e.code = problem.DiskFull
	case preflight.ManagerBusy:
		e.code = problem.Locked
	case preflight.LowPower, preflight.AppLock, preflight.HookDeferred, preflight.ClockUnsure, preflight.SnapshotUnavailable:
	}
	return e
}
