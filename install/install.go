package install

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/install/isolate"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/install/snapshot"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Host is what the executor asks of the machine from outside of its namespace: *isolate.Outside, or whoever stands
// there.
type Host = isolate.Host

// Installer does one thing at a time and one thing in its life.
type Installer struct {
	Config    Config
	Host      Host
	Providers []snapshot.Provider // of snapshots, the best first
	Isolation string              // goes into results as it is
	Built     time.Time           // build time of the program: the least trusted time
	Now       func() time.Time
	Log       *slog.Logger
}

// session is an Installer under the lock.
type session struct {
	*Installer
	state     *state
	ledger    *ledger.Ledger
	unsure    bool                 // a write of the ledger failed: the file may hold the old bytes or the new ones
	open      *journal.Transaction // what an earlier run left
	garbled   bool                 // a journal is there and cannot be read
	recovered string
	lost      string    // why the ledger was made again
	verified  *verified // of the request, while there is one
	request   Request
	id        string // of the request, for its answer
	silent    bool   // there is nothing to tell the daemon
	patch     *patch // of the transaction that runs, or ran last
	next      time.Time
	began     time.Time                  // this run
	before    map[string]*ledger.Release // in force when it began, by bundle name
	revoked   *revocation.List           // bundles that are not to be installed; nil: none
	unread    error                      // why that is not known
}

// Apply acts on a request. It may be called twice, or after any crash: a request that was answered is not acted on again.
func (in *Installer) Apply(ctx context.Context, r Request) Result {
	return in.with(r.ID, func(s *session) Result {
		left := s.open != nil
		recovered, ok := s.recover(ctx)
		if !ok {
			s.id = r.ID
			return recovered
		}
		if old := s.answered(r); old != nil {
			if left {
				return recovered
			}
			s.silent = true
			return *old
		}
		s.id = r.ID
		if no := stale(r); no != nil {
			return *no
		}
		if err := s.learn(r); err != nil {
			return s.refuse(err)
		}
		if left && (r.Audit || r.notice()) { // its answer says nothing of what was carried on
			s.complete(&recovered)
			s.publish(recovered)
		}
		if r.Audit {
			return s.audit(ctx, r)
		}
		if len(r.Order) > 0 {
			return s.ordered(ctx, r)
		}
		if r.notice() {
			return s.takeNote(r)
		}
		answer := s.apply(ctx, r)
		if left && answer.Reason == ReasonNothingToDo && recovered.Reason == ReasonInstalled && *recovered.Checksum == *answer.Checksum {
			return recovered // what is asked for was done in this run
		}
		return answer
	})
}

// Recover carries on or undoes what an earlier run left open.
func (in *Installer) Recover(ctx context.Context) Result {
	return in.with("", func(s *session) Result {
		s.silent = s.open == nil
		r, _ := s.recover(ctx)
		return r
	})
}

// RecoverEarly is Recover for the time at which the machine starts and runs no service yet: see journal.Early. What has
// to wait is left to the next run.
func (in *Installer) RecoverEarly(ctx context.Context) Result {
	return in.with("", func(s *session) Result {
		if s.silent = s.open == nil || !journal.Early(*s.open, bootID()); s.silent {
			return newResult(Success, ExitDone, status.Installed, ReasonNothingToDo)
		}
		r, _ := s.recover(ctx)
		return r
	})
}

// Rollback puts the newest kept release with a lower sequence in force, after checking every byte of it, and holds
// back the one it replaces until Retry.
func (in *Installer) Rollback(ctx context.Context, name string) Result {
	return in.with("", func(s *session) Result {
		if r, ok := s.recover(ctx); !ok {
			return r
		}
		return s.rollback(ctx, name, nil)
	})
}

// Retry forgets the failures of a bundle name, so that the next Apply tries a release that was held back.
func (in *Installer) Retry(ctx context.Context, name string) Result {
	return in.with("", func(s *session) Result {
		if r, ok := s.recover(ctx); !ok {
			return r
		}
		r := newResult(Success, ExitDone, status.Installed, ReasonNothingToDo)
		err := s.change(func(l *ledger.Ledger) bool {
			if !l.Forget(name) {
				return false
			}
			r.Reason, r.Bundle = ReasonForgotten, name
			return true
		})
		if err != nil {
			return s.refuse(err)
		}
		s.silent = r.Reason == ReasonNothingToDo
		return r
	})
}

// with runs f under the lock and completes its result. id is the request's, for what keeps f from being run at all.
func (in *Installer) with(id string, f func(*session) Result) Result {
	r := func() Result {
		s := &session{Installer: in}
		if fi, err := os.Stat(in.Config.Root); err == nil {
			if err := checkOwner(in.Config.Root, fi); err != nil {
				return s.refuse(problem.New(problem.InvalidFile, "the root directory cannot be trusted").Because(err))
			}
		}
		st, err := lockState(in.Config.State)
		if err != nil {
			return s.refuse(err)
		}
		defer st.close()
		s.state = st
		if s.open, s.garbled, err = st.readJournal(); err != nil {
			return s.stuck(id, err)
		}
		if s.ledger, s.lost, err = st.readLedger(in.Config.Root, s.open, in.Now()); err != nil {
			return s.stuck(id, err)
		}
		if s.lost != "" {
			in.Log.Warn("ledger made again", "dir", st.dir, "why", s.lost)
		}
		s.revoked, s.unread = st.readRevoked()
		s.began, s.before = in.Now(), inForce(s.ledger)
		r := f(s)
		s.complete(&r)
		if !s.silent {
			r.ID = s.id
			s.publish(r)
		}
		return r
	}()
	r.Isolation = in.Isolation
	in.Log.Info("install ended", "outcome", r.Outcome, "reason", r.Reason, "bundle", r.Bundle, "version", r.Version)
	return r
}

// complete adds to a result what is the same for each: when, what was carried on, what is in force now.
func (s *session) complete(r *Result) {
	s.time(r)
	if r.Recovered = s.recovered; s.lost != "" {
		r.Recovered = strings.TrimSuffix(s.lost+"; "+r.Recovered, "; ")
	}
	if b := s.ledger.Bundle(r.Bundle); r.Bundle != "" {
		if b.Current != nil && b.Current.Installed() { // an older executor only laid repositories out
			r.Installed = b.Current
		}
		if len(b.Previous) > 0 {
			r.Previous = &b.Previous[0]
		}
	}
	r.Isolation = s.Isolation
}

// stuck is refuse for what has to be put right before anything can be done. Whoever waits for the answer to a request hears of it.
func (s *session) stuck(id string, err error) Result {
	r := s.refuse(err)
	if r.ID = id; id != "" && s.results().Answer(id) == nil {
		s.publish(r)
	}
	return r
}

// recover carries on an open transaction. Only when it returns true may another one be started.
func (s *session) recover(ctx context.Context) (Result, bool) {
	t := s.open
	if t == nil {
		var err error
		if s.garbled {
			err = s.restoreForeseen(ctx)
		}
		if err == nil {
			err = errors.Join(s.state.settle(s.Config.Root, s.ledger, s.garbled), s.state.sweep())
		}
		if err != nil {
			return s.refuse(err), false
		}
		if s.garbled {
			s.recovered = "the journal could not be read; what was in force before is in force"
			s.Log.Warn("journal unreadable", "dir", s.state.dir)
			if err := s.state.removeJournal(); err != nil {
				return s.refuse(err), false
			}
		}
		return newResult(Success, ExitDone, status.Installed, ReasonNothingToDo), true
	}
	s.Log.Info("journal found", "step", t.Step, "bundle", t.New.Bundle, "version", t.New.Version)
	switch t.Step {
	case journal.Preflight, journal.Transact, journal.Repair, journal.Verify: // the tools that were at work then may still be
		if _, err := tool.KillLeft(ctx, t.Packages.ID); err != nil {
			return s.refuse(err), false
		}
	case journal.Stage, journal.Snapshot, journal.Switch, journal.Reboot, journal.Check, journal.Commit, journal.Prune, journal.Undo, journal.Discard, journal.Close:
		// What a script has started and left running is a service now.
	}
	was, next := t.Step, journal.Resume(*t, bootID())
	if err := s.state.writeJournal(next); err != nil { // a try that cannot be counted is not made
		return s.refuse(err), false
	}
	end, err := s.run(ctx, next)
	r := s.resultOf(end, err)
	s.recovered = fmt.Sprintf("%s %s, cut off before %s: %s, %s", t.New.Bundle, t.New.Version, was, r.Outcome, r.Reason)
	if err != nil {
		return r, false
	}
	if err := s.state.settle(s.Config.Root, s.ledger, false); err != nil {
		return s.refuse(err), false
	}
	return r, true
}

func (s *session) apply(ctx context.Context, r Request) Result {
	set, err := readTrust(s.Config.Trust)
	if err != nil {
		return s.refuse(err)
	}
	facts, err := s.Config.facts()
	if err != nil {
		return s.refuse(err)
	}
	v, err := verify(s.Config, set, s.ledger, facts, s.Built, r)
	if err != nil {
		return s.about(v, s.refuse(err))
	}
	s.verified, s.request = v, r
	return s.about(v, s.admitted(ctx, v))
}

// admitted goes on with a request whose signatures and addressee are right.
func (s *session) admitted(ctx context.Context, v *verified) Result {
	d, err := release.Open(s.Config.Root, v.release.Bundle)
	if err != nil {
		return s.refuse(err)
	}
	old, err := d.Current()
	if err != nil {
		return s.refuse(err)
	}
	if old != "" {
		has, err := d.Has(old)
		if err != nil {
			return s.refuse(err)
		}
		if !has { // a link into nothing is nothing to go back to
			old = ""
		}
	}
	if cur := s.ledger.Bundle(v.release.Bundle).Current; cur != nil && cur.Checksum == v.release.Checksum && old == cur.Dir && cur.Installed() {
		if err := s.change(func(l *ledger.Ledger) bool { return l.Accept(v.policy, v.revision) }); err != nil {
			return s.refuse(err)
		}
		return newResult(Success, ExitDone, status.Installed, ReasonNothingToDo)
	}
	if err := s.notRevoked(v.release.Checksum); err != nil {
		return s.refuse(err)
	}
	if err := s.ledger.Admit(v.release, v.wanted.Downgrade); err != nil {
		return s.refuse(err)
	}
	if t := s.ledger.Held(v.release.Bundle, v.release.Checksum); t != nil {
		return held(*t)
	}
	if err := s.admitGrant(v); err != nil {
		return s.refuse(err)
	}
	if err := s.mayStart(v); err != nil {
		return s.refuse(err)
	}
	t := journal.Transaction{
		Schema: journal.Schema, Kind: journal.Apply, Step: journal.Stage,
		Attempt: s.ledger.Attempts(v.release.Bundle, v.release.Checksum) + 1,
		New:     v.release, Old: old, Health: v.health, Policy: v.policy, Revision: v.revision, Signed: v.signed,
	}
	t.New.Since = s.Now().UTC().Truncate(time.Second)
	if v.release.Format != manifest.FormatFiles {
		if t.Packages, err = s.packagesOf(v.wanted); err != nil {
			return s.refuse(err)
		}
	}
	if err := s.state.writeJournal(t); err != nil {
		return s.refuse(err)
	}
	end, err := s.run(ctx, t)
	return s.resultOf(end, err)
}

func (s *session) rollback(ctx context.Context, name string, o *order.Order) Result {
	b := s.ledger.Bundle(name)
	var noSnapshot string
	if b.Current != nil && b.Current.Format != manifest.FormatFiles {
		if k := b.Current.Snapshot; k != nil {
			if err := s.notRevokedDir(k.Old); err != nil {
				return s.refuse(err)
			}
		}
		r, why := s.putBack(ctx, *b.Current, o)
		if why == "" {
			return r
		}
		noSnapshot = "; the state before cannot be put back: " + why
	}
	var to *ledger.Release
	for i := range b.Previous {
		if p := &b.Previous[i]; b.Current != nil && p.Sequence < b.Current.Sequence && (to == nil || p.Sequence > to.Sequence) {
			to = p
		}
	}
	if to == nil {
		return s.refuse(problem.New(problem.NotFound, "bundle %s has no older release on this machine%s", name, noSnapshot).WithDone("nothing was changed"))
	}
	v := &verified{release: *to}
	if err := s.notRevoked(to.Checksum); err != nil {
		return s.about(v, s.refuse(err))
	}
	d, err := release.Open(s.Config.Root, name)
	if err != nil {
		return s.refuse(err)
	}
	x, err := s.state.evidenceIndex(*to)
	if err == nil {
		err = d.Verify(ctx, x, to.Dir)
	}
	if err != nil {
		return s.about(v, s.refuse(problem.New(problem.ChecksumMismatch, "release %s of %s is damaged: %v", to.Dir, name, err).
			WithDone("nothing was changed").WithNext("build the older content again under a higher sequence")))
	}
	t := under(journal.Transaction{
		Schema: journal.Schema, Kind: journal.Rollback, Step: journal.Switch, Attempt: 1, New: *to, Old: b.Current.Dir,
	}, o)
	t.New.Since = s.Now().UTC().Truncate(time.Second)
	if to.Format != manifest.FormatFiles { // its packages are installed as a downgrade
		if t.Packages, err = s.packagesOf(nil); err != nil {
			return s.about(v, s.refuse(err))
		}
		t.Step = journal.Preflight
	}
	if err := s.state.writeJournal(t); err != nil {
		return s.about(v, s.refuse(err))
	}
	end, err := s.run(ctx, t)
	return s.about(v, s.resultOf(end, err))
}

// about fills in which bundle the result is about; v is nil when not even that is trusted.
func (s *session) about(v *verified, r Result) Result {
	if v != nil {
		r.Bundle, r.Version, r.Sequence, r.Checksum = v.release.Bundle, v.release.Version, v.release.Sequence, &v.release.Checksum
	}
	return r
}

func readTrust(name string) (*trust.Set, error) {
	b, err := readOwn(name, trust.MaxSetBytes)
	if err == nil {
		var set *trust.Set
		if set, err = trust.ParseSet(b); err == nil {
			return set, nil
		}
	}
	return nil, problem.New(problem.InvalidFile, "the trusted keys cannot be read").Because(err).WithDone("nothing was changed")
}

// refuse is the result of an error before anything was changed.
func (s *session) refuse(err error) Result {
	f := faultOf(err, false)
	s.noteNext(err)
	r := newResult(Deferred, ExitDeferred, status.Deferred, f.Reason)
	r.Next = s.nextTry()
	r.Code, r.Detail, r.Chunk = f.Code, f.Detail, f.Chunk
	var p *problem.Error
	if errors.As(err, &p) && p.Next != "" {
		r.Detail = clip(r.Detail + "; " + p.Next)
	}
	switch f.Code {
	case problem.ChecksumMismatch, problem.ChunkCorrupt, problem.IndexInvalid:
		r.Outcome, r.Exit, r.Phase = VerificationFailure, ExitChecksum, status.Quarantined
	case problem.SignatureInvalid, problem.ManifestInvalid, problem.SequenceTooOld, problem.TargetMismatch,
		problem.InvalidPolicy, problem.InvalidWindow, problem.InvalidOrder, problem.OrderTooOld, problem.UnsupportedField, problem.Denied:
		r.Outcome, r.Exit, r.Phase = VerificationFailure, ExitSignature, status.Quarantined
	case problem.InstallFailed:
		r.Reason = ReasonUnusable
	}
	return r
}

// held is the result for a checksum that is not tried again by itself.
func held(t ledger.Trial) Result {
	r := newResult(RolledBack, ExitRolledBack, status.RolledBack, t.Reason)
	r.Code, r.Attempts = problem.InstallFailed, t.Attempts
	r.Detail = clip(fmt.Sprintf("held back after %d tries: %s; to try again: mesh-install retry NAME", t.Attempts, t.Detail))
	switch t.Reason {
	case ReasonHealthCheck:
		r.Code = problem.HealthFailed
	case ReasonOperator:
		r.Code = ""
	case ReasonUntrusted:
		r.Outcome, r.Exit, r.Phase, r.Code = VerificationFailure, ExitSignature, status.Quarantined, problem.SignatureInvalid
		return r
	}
	if !t.Held || t.Reason == ReasonTooManyAttempts {
		r.Outcome, r.Phase, r.Reason = InstallFailure, status.Quarantined, ReasonTooManyAttempts
	}
	return r
}

// resultOf is the result of a transaction that has ended, or stopped with err.
func (s *session) resultOf(t journal.Transaction, err error) Result {
	r := s.verdict(t, err)
	r.Open = err != nil
	r.Attempts = t.Attempt
	r.Bundle, r.Version, r.Sequence, r.Checksum = t.New.Bundle, t.New.Version, t.New.Sequence, &t.New.Checksum
	r.Before = s.beforeOf(t)
	if !undoes(t) {
		r.Started = t.New.Since
	}
	return s.withPatch(t, r)
}

func (s *session) verdict(t journal.Transaction, err error) Result {
	var later *deferral
	switch {
	case errors.As(err, &later):
		r := newResult(Deferred, ExitDeferred, status.Deferred, later.reason)
		r.Code, r.Detail = later.code, clip(later.detail+"; the way back is begun and waits")
		return r
	case err != nil && t.Step == journal.Undo:
		r := newResult(RollbackFailed, ExitRollbackFailed, status.InstallFailed, "RollbackFailed")
		r.Code, r.Detail = problem.RollbackFailed, clip(fmt.Sprintf("%v; the journal is kept and %q tries again", err, "mesh-install recover"))
		return r
	case errors.Is(err, errRebootPending):
		r := newResult(Deferred, ExitDeferred, status.Deferred, ReasonRebootPending)
		r.Detail = clip(err.Error())
		return r
	case err != nil: // stopped with the journal kept: the next run goes on
		f := faultOf(err, false)
		r := newResult(Deferred, ExitDeferred, status.Deferred, f.Reason)
		r.Code, r.Detail = f.Code, f.Detail
		if t.Step == journal.Check {
			r.Reason = ReasonInterrupted
		}
		return r
	case t.Fault == nil:
		return newResult(Success, ExitDone, status.Installed, map[journal.Kind]string{journal.Apply: ReasonInstalled, journal.Rollback: ReasonOperator}[t.Kind])
	case t.Kind == journal.Rollback && t.Packages.ID != "" && t.Packages.Provider != journal.None && t.Fault.Reason == ReasonOperator: // the machine was put back
		if t.Old == "" { // and nothing of this bundle was there before
			return newResult(Success, ExitDone, status.RolledBack, ReasonOperator)
		}
		return newResult(Success, ExitDone, status.Installed, ReasonOperator)
	case t.Packages.Touched && t.Packages.Provider == journal.None:
		r := newResult(InstallFailure, ExitRollbackFailed, status.InstallFailed, ReasonNoSnapshot)
		r.Code, r.Detail = problem.RollbackFailed, clip("there is no snapshot: the packages are as the package manager left them; "+t.Fault.Reason+": "+t.Fault.Detail)
		return r
	case t.Kind == journal.Rollback && t.Packages.ID == "":
		r := newResult(RollbackFailed, ExitRollbackFailed, status.InstallFailed, t.Fault.Reason)
		r.Code, r.Detail = problem.RollbackFailed, t.Fault.Detail
		return r
	}
	f := t.Fault
	var r Result
	switch f.Class {
	case journal.Deferred:
		r = newResult(Deferred, ExitDeferred, status.Deferred, f.Reason)
	case journal.Damaged:
		r = newResult(VerificationFailure, ExitChecksum, status.Deferred, f.Reason)
	case journal.Rejected:
		r = newResult(VerificationFailure, ExitSignature, status.Quarantined, f.Reason)
	case journal.Unhealthy:
		r = newResult(RolledBack, ExitRolledBack, status.RolledBack, f.Reason)
	case journal.Failed:
		r = newResult(InstallFailure, ExitRolledBack, status.InstallFailed, f.Reason)
		switch {
		case f.Code == problem.IndexInvalid:
			r = newResult(VerificationFailure, ExitChecksum, status.Quarantined, f.Reason)
		case f.Reason == ReasonInterrupted && t.Attempt < ledger.MaxAttempts:
			r = newResult(Deferred, ExitDeferred, status.Deferred, f.Reason)
		}
	}
	if f.Reason == ReasonTooManyAttempts || (f.Class == journal.Failed && t.Attempt >= ledger.MaxAttempts) {
		r.Phase = status.Quarantined
	}
	r.Code, r.Detail, r.Chunk = f.Code, f.Detail, f.Chunk
	return r
}

// Status is what is remembered and what is open, for people and for the daemon. It takes no lock.
type Status struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"` // InstallStatus
	Installed  *ledger.Ledger       `json:"installed"`
	Open       *journal.Transaction `json:"open"`
	Damage     string               `json:"damage,omitempty"`
}

// ReadStatus reads the state directory without changing it.
func ReadStatus(c Config) (Status, error) {
	st := Status{APIVersion: status.APIVersion, Kind: "InstallStatus", Installed: ledger.New()}
	s := &state{dir: c.State}
	b, err := os.ReadFile(s.path(installedName))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return st, err
	default:
		l, err := ledger.Parse(b)
		if err != nil {
			st.Damage = err.Error()
		} else {
			st.Installed = l
		}
	}
	t, garbled, err := s.readJournal()
	if garbled {
		st.Damage += " the journal cannot be read"
	}
	st.Open = t
	return st, err
}

// source opens the request's chunk store.
func (s *session) source() (*store.Reader, error) {
	src, err := store.OpenReadOnly(s.request.Store)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	return src, nil
}
