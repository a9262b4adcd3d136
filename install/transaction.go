package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/release"
)

// stops reports whether a transaction stays where it is after an error, for the next run to take up: when the way
// back fails, when the question about health was not answered, which is neither a yes nor a no, and when the machine is
// about to start again.
func stops(at journal.Step, err error) bool {
	var no *health.UnhealthyError
	return errors.Is(err, errRebootPending) || at == journal.Undo || at == journal.Discard || at == journal.Check && !errors.As(err, &no)
}

// run does the steps of a transaction until it is closed. An error means that it stopped with the journal kept.
func (s *session) run(ctx context.Context, t journal.Transaction) (journal.Transaction, error) {
	defer s.endPatch()
	told := context.WithoutCancel(ctx) // a machine that goes down for a start has asked for the end already
	for t.Step != journal.Close {
		var err error
		if t, err = s.act(ctx, t); err == nil || !stops(t.Step, err) {
			t, err = s.advance(t, err)
		}
		if err != nil {
			s.tell(told, t, false)
			return t, err
		}
	}
	s.tell(told, t, true)
	if err := s.state.removeJournal(); err != nil { // the outcome stands; the next run does the last steps again
		s.Log.Warn("journal not removed", "err", err)
	} else if err := s.state.sweep(); err != nil {
		s.Log.Warn("state not swept", "err", err)
	}
	return t, nil
}

// advance moves on and writes that down; what follows when it cannot be written is for journal.Unwritten to say. An
// error means that the run has to stop.
func (s *session) advance(t journal.Transaction, err error) (journal.Transaction, error) {
	var f *journal.Fault
	if err != nil {
		f = faultOf(err, t.Packages.Touched)
		s.noteNext(err)
		s.Log.Warn("step did not succeed", "step", t.Step, "bundle", t.New.Bundle, "version", t.New.Version, "err", err)
	}
	next := journal.Advance(t, f)
	if next.Step == journal.Close {
		return next, nil
	}
	if err := s.state.writeJournal(next); err != nil {
		s.Log.Warn("journal not written", "step", next.Step, "err", err)
		err = fmt.Errorf("journal: %w", err)
		var must bool
		if next, must = journal.Unwritten(next, faultOf(err, false)); must {
			if again := s.state.writeJournal(next); again != nil {
				return next, err
			}
		}
	}
	return next, nil
}

// act does one step. Each may be done again after it was done, or half done.
func (s *session) act(ctx context.Context, t journal.Transaction) (journal.Transaction, error) {
	d, err := release.Open(s.Config.Root, t.New.Bundle)
	if err != nil {
		return t, err
	}
	if t.Packages.ID != "" {
		return s.actPackages(ctx, d, t)
	}
	return t, s.actFiles(ctx, d, t)
}

func (s *session) actFiles(ctx context.Context, d *release.Dir, t journal.Transaction) error {
	switch t.Step {
	case journal.Stage:
		return s.stage(ctx, d)
	case journal.Switch:
		return d.Switch(t.New.Dir)
	case journal.Check:
		return s.Host.Probe(ctx, checkOf(t.New.Bundle, t.Health))
	case journal.Commit:
		return s.commit(t)
	case journal.Prune:
		return s.prune(d, t.New.Bundle)
	case journal.Undo:
		return d.Switch(t.Old)
	case journal.Discard:
		return s.discard(d, t)
	case journal.Close:
	case journal.Preflight, journal.Snapshot, journal.Transact, journal.Repair, journal.Verify, journal.Reboot: // not of files
	}
	return nil
}

func (s *session) stage(ctx context.Context, d *release.Dir) (err error) {
	src, err := s.source()
	if err != nil {
		return err
	}
	defer src.Close()
	x, raw, err := readIndex(s.verified.manifest, src)
	if err != nil {
		return err
	}
	if err := d.Prepare(); err != nil {
		return err
	}
	if err := d.Fits(x, s.Config.ReserveBytes); err != nil {
		return err
	}
	if err := d.Stage(ctx, x, src, s.verified.release.Dir); err != nil {
		return err
	}
	return s.state.writeEvidence(s.verified, raw)
}

// commit makes the new release the one in force in the ledger. In memory the ledger changes only if the file did.
func (s *session) commit(t journal.Transaction) error {
	t.New.Snapshot = keptAs(t)
	return s.change(func(l *ledger.Ledger) bool {
		replaced := l.Bundle(t.New.Bundle).Current
		keep := s.Config.Keep
		if t.Kind == journal.Rollback {
			keep++ // the release rolled back from stays as well, so that going forward again is as quick
		}
		l.Commit(t.New, keep, t.Signed)
		l.Accept(t.Policy, t.Revision)
		l.CarryOut(t.New.Bundle, t.Order, t.Policy, t.Revision)
		if t.Kind == journal.Rollback && replaced != nil && replaced.Checksum != t.New.Checksum {
			l.Hold(t.New.Bundle, replaced.Checksum, ReasonOperator)
		}
		return true
	})
}

// change works on a copy of the ledger, writes it if f changed it, and only then takes it over.
func (s *session) change(f func(*ledger.Ledger) bool) error {
	b, err := s.ledger.Encode()
	if err != nil {
		return err
	}
	l, err := ledger.Parse(b)
	if err != nil {
		return err
	}
	if !f(l) && !s.unsure {
		return nil
	}
	s.unsure = true
	if err := s.state.writeLedger(l); err != nil {
		return err
	}
	s.ledger, s.unsure = l, false
	return nil
}

func (s *session) prune(d *release.Dir, name string) error {
	keep := s.ledger.Dirs(name)
	return errors.Join(d.Sweep(), d.Prune(keep), s.state.pruneEvidence(name, keep))
}

// discard removes a release that did not come into force, unless it is one that is kept, and remembers why.
func (s *session) discard(d *release.Dir, t journal.Transaction) error {
	if err := d.Sweep(); err != nil {
		return err
	}
	if t.Kind == journal.Rollback {
		return nil
	}
	keep := s.ledger.Dirs(t.New.Bundle)
	if t.Old != "" && !slices.Contains(keep, t.Old) {
		keep = append(keep, t.Old)
	}
	waits := t.Packages.ID != "" && t.Fault.Class == journal.Deferred // what is copied already need not be copied again
	if !slices.Contains(keep, t.New.Dir) && !waits {
		if err := d.Remove(t.New.Dir); err != nil {
			return err
		}
	}
	if err := s.state.pruneEvidence(t.New.Bundle, keep); err != nil {
		return err
	}
	if t.Old == "" && len(keep) == 0 && !waits {
		d.Vanish()
	}
	return s.change(func(l *ledger.Ledger) bool {
		withdrawn := l.Withdraw(t.New, t.Old) // the file may have been written although commit saw an error
		return l.Fail(t.New.Bundle, t.Trial()) || withdrawn
	})
}
