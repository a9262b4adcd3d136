package install

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/install/tool"
)

// undo puts the state back that was kept, and "current". That takes nothing but the snapshot: neither the package manager
// nor the bundle need be in order. A snapshot that somebody took away leaves the way forward only.
func (s *session) undo(ctx context.Context, d *release.Dir, t journal.Transaction) (journal.Transaction, error) {
	if _, err := tool.KillLeft(ctx, t.Packages.ID); err != nil {
		return t, err
	}
	if !t.Packages.Touched || t.Packages.Provider == journal.None {
		return t, d.Switch(t.Old)
	}
	if err := s.awaitManagers(ctx); err != nil {
		return t, err
	}
	there, err := s.restore(ctx, t)
	if err != nil {
		return t, err
	}
	if err := errors.Join(flush(s.Config.Machine), d.Switch(t.Old)); err != nil {
		return t, err
	}
	p, err := s.openPatch(d, t)
	if err != nil {
		s.Log.Warn("the way back is not looked at", "err", err)
		p = &patch{}
		s.patch = p
	}
	switch {
	case !there:
		p.findings = append(p.findings, fmt.Sprintf("snapshot %s is gone: the packages stay as they are", t.Packages.Snapshot))
		t.Packages.Provider = journal.None
		if p.manager != nil {
			err = s.repair(ctx, p, t)
		}
	case p.manager != nil:
		t.Packages.Reboot, err = s.lookBack(ctx, p, t)
	}
	if err != nil {
		p.findings = append(p.findings, err.Error())
	}
	if err := rereadUnits(ctx, s.Config.Machine, t.Packages.ID); err != nil {
		p.findings = append(p.findings, err.Error())
	}
	return t, nil
}

// How long the way back waits for a package manager that somebody else has started meanwhile.
const (
	managersWait  = 5 * time.Minute
	managersPause = 2 * time.Second
)

// awaitManagers waits until nobody else is at work on the machine's packages. Whoever is at it for longer puts the way
// back off to the next run.
func (s *session) awaitManagers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, managersWait)
	defer cancel()
	places := preflight.DefaultPlaces(s.Config.Machine)
	for {
		facts, _, err := places.Look(s.Now())
		if err != nil {
			return err
		}
		no := preflight.Decide(preflight.Facts{Now: facts.Now, Managers: facts.Managers}, preflight.Limits{})
		if no == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return s.notNow(no)
		case <-time.After(managersPause):
		}
	}
}

// lookBack compares the packages after going back with those from before. A way back that a person asked for goes to what
// nobody wrote down.
func (s *session) lookBack(ctx context.Context, p *patch, t journal.Transaction) (reboot []string, err error) {
	f, err := s.state.readForeseen(t.Packages.Foreseen)
	if err != nil || t.Kind == journal.Rollback && t.Fault.Reason == ReasonOperator {
		return nil, err
	}
	now, err := p.manager.Installed(ctx)
	if err == nil && digestOf(now) != digestOf(f.Before) {
		err = errors.New("after going back the packages are not those from before")
	}
	if err != nil {
		return nil, err
	}
	// What takes a start of the machine to come takes one to go.
	reboot, err = p.manager.Reboot(ctx, f.Plan.Changes)
	return reboot[:min(len(reboot), journal.MaxReasons)], err
}

// discardPackages is discard, and gives up the snapshot. A release that only has to wait stays, so that the next try need
// not copy it again; its evidence goes, which is of what is or was in force.
func (s *session) discardPackages(ctx context.Context, d *release.Dir, t journal.Transaction) error {
	s.dropSnapshot(ctx, t)
	if t.Kind == journal.Rollback && t.Fault.Reason == ReasonOperator {
		return s.change(func(l *ledger.Ledger) bool {
			l.Back(t.New, t.Old, s.Config.Keep+1, ReasonOperator)
			l.CarryOut(t.New.Bundle, t.Order, t.Policy, t.Revision)
			return true
		})
	}
	return s.discard(d, t)
}
