package install

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
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
	set      *manifest.Digest // of all packages, in the end
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
		return t, s.reboot(ctx)
	case journal.Prune:
		return t, errors.Join(s.prune(d, t.New.Bundle), s.pruneSnapshots(ctx, t))
	case journal.Stage, journal.Switch, journal.Check, journal.Commit, journal.Undo, journal.Discard, journal.Close:
	}
	return t, nil
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
			set := packages.SetDigest(now)
			p.set = &set
		} else {
			p.findings = append(p.findings, err.Error())
		}
	}
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
	r.PackageSet = p.set
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
