package install

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/apt"
	"github.com/patchmesh/patchmesh/install/manager/dnf"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// patch is what a transaction of packages has in hand, and what it has to tell in the end.
type patch struct {
	manager manager.Manager
	order   manager.Order
	log     *transcript

	said     string   // the last lines of the tools
	complain []string // what the tools said although they ended with status 0
	findings []string
	kept     []manager.Kept
	changes  []packages.Change
}

// openPatch makes the patch of a transaction: the back end, on the release that was verified when it was staged.
func (s *session) openPatch(d *release.Dir, t journal.Transaction) (*patch, error) {
	if s.patch != nil {
		return s.patch, nil
	}
	repo := d.At(t.New.Dir)
	b, err := os.ReadFile(filepath.Join(repo, packages.FileName))
	var list *packages.List
	if err == nil {
		list, err = packages.ParseList(b)
	}
	if err == nil && list.Format != t.New.Format {
		err = fmt.Errorf("%s is of %s, the bundle of %s", packages.FileName, list.Format, t.New.Format)
	}
	if err != nil {
		return nil, problem.New(problem.IndexInvalid, "bundle %s %s does not say which packages it brings", t.New.Bundle, t.New.Version).Because(err)
	}
	log, err := openTranscript(s.state.path(logName), t.Packages.ID)
	if err != nil {
		return nil, err
	}
	dir := s.state.path(managerName)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	runner := tool.Runner{ID: t.Packages.ID, Out: log, Max: time.Duration(s.Config.Packages.TimeoutMinutes) * time.Minute}
	p := &patch{log: log, order: manager.Order{Repo: repo, List: list, AllowDowngrade: t.Packages.Downgrade}}
	switch t.New.Format {
	case manifest.FormatDeb:
		p.manager = apt.New(apt.Config{Root: s.Config.Machine, Dir: dir, Runner: runner})
	case manifest.FormatRPM:
		p.manager = dnf.New(dnf.Config{Root: s.Config.Machine, Dir: dir, Runner: runner})
	case manifest.FormatFiles:
		return nil, fmt.Errorf("bundle %s holds no packages", t.New.Bundle)
	}
	s.patch = p
	return p, nil
}

// actPackages does one step of a transaction of packages. What it finds out and the next steps need is in the
// transaction that it returns. What was started finishes: from the first change to the machine on, nobody's wish that
// the program should end is heard.
func (s *session) actPackages(ctx context.Context, d *release.Dir, t journal.Transaction) (journal.Transaction, error) {
	switch t.Step {
	case journal.Stage:
		if err := d.Prune(append(s.ledger.Dirs(t.New.Bundle), t.New.Dir)); err != nil { // staged for a try that did not come
			return t, err
		}
		return t, s.stage(ctx, d)
	case journal.Switch:
		return t, d.Switch(t.New.Dir)
	case journal.Check:
		return t, s.Host.Probe(ctx, checkOf(t.New.Bundle, t.Health))
	case journal.Commit:
		return t, s.commit(t)
	case journal.Discard:
		return t, s.discardPackages(ctx, d, t)
	case journal.Close:
		return t, nil
	case journal.Undo:
		return s.undo(context.WithoutCancel(ctx), d, t)
	case journal.Preflight, journal.Snapshot, journal.Transact, journal.Repair, journal.Verify, journal.Reboot, journal.Prune:
	}
	p, err := s.openPatch(d, t)
	if err != nil {
		return t, err
	}
	finish := context.WithoutCancel(ctx)
	switch t.Step {
	case journal.Preflight:
		return s.preflight(ctx, p, t)
	case journal.Snapshot:
		return s.takeSnapshot(ctx, t)
	case journal.Transact:
		return s.transact(finish, p, t)
	case journal.Repair:
		return t, s.repair(finish, p, t)
	case journal.Verify:
		return s.judge(finish, p, t)
	case journal.Reboot:
		return t, s.reboot(ctx, t)
	case journal.Prune:
		return t, errors.Join(s.prune(d, t.New.Bundle), s.pruneSnapshots(ctx, t))
	case journal.Stage, journal.Switch, journal.Check, journal.Commit, journal.Undo, journal.Discard, journal.Close:
	}
	return t, nil
}

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
func (s *session) reboot(ctx context.Context, t journal.Transaction) error {
	if err := s.Host.Reboot(ctx); err != nil {
		s.Log.Warn("the machine cannot be started again", "err", err)
		s.patch.findings = append(s.patch.findings, "the machine cannot be started again: "+err.Error())
		return nil
	}
	return errRebootPending
}

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
		err = s.lookBack(ctx, p, t)
	}
	if err != nil {
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
func (s *session) lookBack(ctx context.Context, p *patch, t journal.Transaction) error {
	f, err := s.state.readForeseen(t.Packages.Foreseen)
	if err != nil || t.Kind == journal.Rollback && t.Fault.Reason == ReasonOperator {
		return err
	}
	now, err := p.manager.Installed(ctx)
	if err == nil && digestOf(now) != digestOf(f.Before) {
		err = errors.New("after going back the packages are not those from before")
	}
	return err
}

// discardPackages is discard, and gives up the snapshot. A release that only has to wait stays, so that the next try need
// not copy it again; its evidence goes, which is of what is or was in force.
func (s *session) discardPackages(ctx context.Context, d *release.Dir, t journal.Transaction) error {
	s.dropSnapshot(ctx, t)
	if t.Kind == journal.Rollback && t.Fault.Reason == ReasonOperator {
		return s.change(func(l *ledger.Ledger) bool {
			l.Back(t.New, t.Old, s.Config.Keep+1, ReasonOperator)
			l.CarryOut(t.New.Bundle, t.Order)
			return true
		})
	}
	return s.discard(d, t)
}

// tell is what a transaction of packages has to say once it is over, or stops.
func (s *session) tell(ctx context.Context, t journal.Transaction, over bool) {
	p := s.patch
	if p == nil {
		p = &patch{}
		s.patch = p
	}
	if over && t.Packages.Hooked {
		phase := preflight.AfterInstall
		if t.Fault != nil {
			phase = preflight.RolledBack
		}
		if _, err := s.Host.Hooks(ctx, preflight.Call{Phase: phase, Bundle: t.New.Bundle, Version: t.New.Version}); err != nil {
			s.Log.Warn("hooks not told", "phase", phase, "err", err)
		}
	}
	if f, err := s.state.readForeseen(t.Packages.Foreseen); err == nil && p.manager != nil && t.Packages.Touched {
		p.kept = f.Plan.Kept
		if now, err := p.manager.Installed(ctx); err == nil {
			p.changes = packages.Diff(f.Before, now)
		} else {
			p.findings = append(p.findings, err.Error())
		}
	}
}

// findingsError says that the machine is not as it should be after a transaction.
type findingsError struct{ findings []string }

func (e *findingsError) Error() string {
	return fmt.Sprintf("%d findings after the transaction: %s", len(e.findings), strings.Join(e.findings, "; "))
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

// foreseen is what was known before a transaction of packages.
type foreseen struct {
	ID       string               `json:"id"` // of the transaction and its snapshot
	Provider string               `json:"provider"`
	Before   []packages.Installed `json:"before"`
	Plan     manager.Plan         `json:"plan"`
}

// maxForeseen bounds the file in bytes: ten thousand packages, each twice.
const maxForeseen = 16 << 20

// writeForeseen keeps it beside the journal, which holds its digest.
func (s *state) writeForeseen(f foreseen) (string, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	b = ledger.Seal(b)
	if len(b) > maxForeseen {
		return "", fmt.Errorf("%s: %d bytes: at most %d", foreseenName, len(b), maxForeseen)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), s.write(foreseenName, b)
}

func (s *state) readForeseen(digest string) (f foreseen, err error) {
	b, err := readOwn(s.path(foreseenName), maxForeseen)
	if err != nil {
		return f, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != digest {
		return f, fmt.Errorf("%s is not what the journal names", foreseenName)
	}
	return f, ledger.Unseal("foreseen", b, maxForeseen, &f)
}

// bootID identifies the present run of the machine, see random(4).
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return noBootID
	}
	return strings.TrimSpace(string(b))
}

// maxFindings bounds what a result lists: the log has the rest.
const maxFindings = 50

// packagesOf begins a transaction of packages.
func (s *session) packagesOf(p *policy.Policy) (journal.Packages, error) {
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return journal.Packages{}, err
	}
	t := journal.Packages{
		ID:         fmt.Sprintf("mesh-%s-%x", s.Now().UTC().Format("20060102t150405"), id),
		Keep:       defaultKeep,
		MaxAgeDays: defaultKeepDays,
		Downgrade:  true, // what a person rolls back to is older
	}
	if p != nil {
		t.Downgrade, t.MayReboot = p.Downgrade, p.Reboot == policy.RebootIfRequired
		if w := p.Rollback.Snapshot; w.Provider != "" {
			t.Keep, t.MaxAgeDays = w.Keep, w.MaxAgeDays
		}
	}
	return t, nil
}

// withPatch fills in what there is to tell of packages.
func (s *session) withPatch(t journal.Transaction, r Result) Result {
	p := s.patch
	if t.Packages.ID == "" || p == nil {
		return r
	}
	r.Changes, r.Kept, r.Snapshot, r.Reboot = p.changes, p.kept, t.Packages.Snapshot, t.Packages.Reboot
	for _, f := range p.findings[:min(len(p.findings), maxFindings)] {
		r.Findings = append(r.Findings, clip(f))
	}
	r.Seconds = int64(max(0, s.Now().Sub(t.New.Since)) / time.Second)
	r.Log, r.Next = p.said, s.nextTry()
	return r
}

// endPatch closes what the patch of a transaction holds open.
func (s *session) endPatch() {
	if p := s.patch; p != nil && p.log != nil {
		p.log.close()
	}
}
