package install_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// patchBench is a machine of real packages and its executor.
type patchBench struct {
	*installtest.Bench
	t       *testing.T
	bed     managertest.Bed
	machine managertest.Machine
	host    installtest.Host
	none    bool // no snapshot provider can be used
	rev     uint64
}

func newPatchBench(t *testing.T, bed managertest.Bed, installed ...managertest.Package) *patchBench {
	t.Helper()
	bed.Needs(t)
	p := &patchBench{t: t, bed: bed}
	p.Bench = installtest.New(t, nil)
	for _, dir := range []string{"run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.Config.Machine, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.machine = bed.Machine(t, p.Config.Machine, installed...)
	return p
}

func (p *patchBench) installer() *install.Installer {
	in := installer(p.Bench)
	in.Host = p.host
	if !p.none {
		in.Providers = install.Providers(p.Config)
	}
	return in
}

// apply asks for a bundle; each time by a newer revision.
func (p *patchBench) apply(b *installtest.Bundle, spec ...string) install.Result {
	p.t.Helper()
	p.rev++
	return p.installer().Apply(p.t.Context(), p.Request(p.t, b, installtest.Want{Revision: p.rev, Spec: strings.Join(spec, "")}))
}

func (p *patchBench) bundle(version string, sequence uint64, s managertest.Spec) *installtest.Bundle {
	p.t.Helper()
	return p.Packages(p.t, p.bed.Repo(p.t, s), version, sequence)
}

// keep remembers the machine as it is.
func (p *patchBench) keep() {
	p.t.Helper()
	if _, err := tree.Copy(p.t.Context(), p.Config.Machine, filepath.Join(p.Dir, "first"), tree.Options{}); err != nil {
		p.t.Fatal(err)
	}
}

// notKept is what a snapshot need not put back: what never is kept, and the index that sqlite's readers write, too.
func notKept() []string {
	root := func(p string) bool { return p == "/root" } // where the tests' rpm has its database
	return append(slices.DeleteFunc(install.DefaultExclude(), root), "/root/.rpmdb/rpmdb.sqlite-shm")
}

// differs says in what the machine is not what was kept, of what a snapshot has to keep.
func (p *patchBench) differs() (out []string) {
	p.t.Helper()
	err := tree.Compare(p.t.Context(), filepath.Join(p.Dir, "first"), p.Config.Machine, tree.Options{Exclude: notKept()}, func(d tree.Diff) error {
		out = append(out, d.String())
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// version is what a package's own file says.
func (p *patchBench) version(name string) string {
	b, err := os.ReadFile(filepath.Join(p.Config.Machine, "usr/share", name, "version"))
	if err != nil {
		return "none"
	}
	return strings.TrimSpace(string(b))
}

// clean checks that nothing of a transaction lies about.
func (p *patchBench) clean() {
	p.t.Helper()
	litter, err := p.Litter()
	for _, name := range []string{"foreseen.json", "manager"} {
		if _, err := os.Stat(filepath.Join(p.Config.State, name)); err == nil {
			litter = append(litter, name)
		}
	}
	if err != nil || len(litter) > 0 {
		p.t.Errorf("litter %v, %v", litter, err)
	}
}

// debFirst runs a test for deb, and in the long form for rpm.
func debFirst(t *testing.T, f func(*testing.T, managertest.Bed)) {
	if os.Getenv("PATCHMESH_LONG") != "" {
		beds(t, f)
		return
	}
	t.Parallel()
	f(t, managertest.Deb())
}

func beds(t *testing.T, f func(*testing.T, managertest.Bed)) {
	t.Run("deb", func(t *testing.T) { t.Parallel(); f(t, managertest.Deb()) })
	t.Run("rpm", func(t *testing.T) {
		t.Parallel()
		rpm, err := managertest.NewRPM()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := rpm.Close(); err != nil {
				t.Error(err)
			}
		})
		f(t, rpm)
	})
}

func pair(version string) []managertest.Package {
	return []managertest.Package{{Name: "demo", Version: version}, {Name: "demolib", Version: version}}
}

func TestPackages(t *testing.T) {
	beds(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, pair("1.0-1")...)
		p.keep()
		two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})
		var told []preflight.Phase
		p.host.Hook = func(c preflight.Call) *preflight.Deferral { told = append(told, c.Phase); return nil }
		r := p.apply(two)
		want(t, r, done)
		if got := fmt.Sprint(r.Changes, r.Kept, r.Findings, told, r.Snapshot != "", r.Log != ""); got != fmt.Sprintf(
			"[{demo %[1]s 1.0-1 2.0-1} {demolib %[1]s 1.0-1 2.0-1}] [] [] [preflight post-install] true true", bed.Arch()) {
			t.Errorf("%s", got)
		}
		if p.version("demo") != "2.0-1" || r.Installed == nil || r.Installed.Packages == "" || r.Installed.Snapshot == nil {
			t.Errorf("demo %s, %+v", p.version("demo"), r.Installed)
		}
		inForce(t, p.Bench, two)
		p.clean()
		want(t, p.apply(two), nothing)

		r = p.installer().Rollback(t.Context(), "os")
		want(t, r, "success 0 RolledBack RolledBackByOperator ")
		if d := p.differs(); len(d) > 0 || p.version("demo") != "1.0-1" {
			t.Errorf("after the rollback the machine is not what it was: demo %s, %q", p.version("demo"), d)
		}
		p.clean()
		if left, err := os.ReadDir(filepath.Join(p.Config.State, "snapshots")); err != nil || len(left) > 0 {
			t.Errorf("snapshots %v, %v", left, err)
		}
		want(t, p.apply(two), "rolled_back 4 RolledBack RolledBackByOperator ")
		want(t, p.installer().Retry(t.Context(), "os"), "success 0 Installed FailuresForgotten ")
		want(t, p.apply(two), done)
	})
}

// What fails after the machine was touched is taken back, to the byte, and says why; the exit statuses of the tools are
// 0 in half of the cases.
func TestPackagesFail(t *testing.T) {
	beds(t, func(t *testing.T, bed managertest.Bed) {
		post := pair("2.0-1")
		post[0].Post = "false"
		pre := pair("2.0-1")
		pre[0].Pre = "false"
		for name, c := range map[string]struct {
			packages []managertest.Package
			well     func(context.Context, health.Check) error
			want     string
		}{
			"post": {packages: post, want: "install_failure 4 InstallFailed"},
			"pre":  {packages: pre, want: "install_failure 4 InstallFailed"},
			"unhealthy": {packages: pair("2.0-1"), want: "rolled_back 4 RolledBack HealthCheck E5103", well: func(_ context.Context, c health.Check) error {
				return &health.UnhealthyError{After: c.Timeout, Last: errors.New("status 500")}
			}},
		} {
			t.Run(name, func(t *testing.T) {
				p := newPatchBench(t, bed, pair("1.0-1")...)
				p.Config.Health.Command = []string{"/bin/true"}
				p.host.Well = c.well
				var told []preflight.Phase
				p.host.Hook = func(c preflight.Call) *preflight.Deferral { told = append(told, c.Phase); return nil }
				p.keep()
				two := p.bundle("2", 2, managertest.Spec{Packages: c.packages})
				r := p.apply(two)
				if got := fmt.Sprintf("%s %d %s %s %s", r.Outcome, r.Exit, r.Phase, r.Reason, r.Code); !strings.HasPrefix(got, c.want) {
					t.Errorf("%s, want %s: %s", got, c.want, r.Detail)
				}
				if d := p.differs(); len(r.Changes) > 0 || len(d) > 0 {
					t.Errorf("the machine is not what it was: %v, %q", r.Changes, d)
				}
				if !slices.Equal(told, []preflight.Phase{preflight.BeforeInstall, preflight.RolledBack}) {
					t.Errorf("hooks were told %v", told)
				}
				if got, err := p.InForce("os", two); err != nil || got != nil {
					t.Errorf("in force: %v, %v", got, err)
				}
				p.clean()
			})
		}
	})
}

// What speaks against an install before anything is touched only defers it, counts for nothing, and what was copied
// stays for the next try.
func TestPackagesWait(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, pair("1.0-1")...)
		p.keep()
		two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})
		deferred := func(r install.Result, reason string) {
			t.Helper()
			if r.Outcome != install.Deferred || r.Exit != install.ExitDeferred || r.Reason != reason {
				t.Errorf("%+v, want %s", r, reason)
			}
			if d := p.differs(); len(d) > 0 {
				t.Errorf("%s: something was touched: %q", reason, d)
			}
			if st, err := install.ReadStatus(p.Config); err != nil || st.Installed.Bundle("os").Trial != nil {
				t.Errorf("%s: it counts: %+v, %v", reason, st.Installed.Bundle("os").Trial, err)
			}
			p.clean()
		}
		p.none = true
		deferred(p.apply(two), "SnapshotUnavailable")
		p.none = false
		staged := filepath.Join(p.Config.Root, "os/releases", two.Dir(), packages.FileName)
		if _, err := os.Stat(staged); err != nil {
			t.Fatal(err)
		}
		p.host.Hook = func(preflight.Call) *preflight.Deferral {
			return &preflight.Deferral{Reason: preflight.HookDeferred, Detail: "selling", Retry: 1e12}
		}
		r := p.apply(two)
		deferred(r, "HookDeferred")
		if r.Next == nil || r.Detail != "selling" {
			t.Errorf("%+v", r)
		}
		p.host.Hook = nil
		missing := pair("3.0-1")
		missing[0].Depends = []string{"absent"}
		three := p.bundle("3", 3, managertest.Spec{Packages: missing})
		deferred(p.apply(three), "ClosureIncomplete")
		if _, err := os.Stat(staged); err == nil {
			t.Error("what was staged and is no longer wanted is still there")
		}
		p.none = true
		deferred(p.apply(two), "SnapshotUnavailable")
		before, err := os.Stat(staged)
		if err != nil {
			t.Fatal(err)
		}
		p.none = false
		want(t, p.apply(two), done)
		if after, err := os.Stat(staged); err != nil || !os.SameFile(before, after) {
			t.Errorf("it was copied again: %v", err)
		}
	})
}

// Windows, blackouts and a zone that nobody knows keep an install from starting, whatever asks for it; a rollback by a
// person starts at any time.
func TestSchedule(t *testing.T) {
	at := func(day, hour int) func() time.Time {
		return func() time.Time { return time.Date(2026, 11, day, hour, 30, 0, 0, time.UTC) }
	}
	const windows = "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: %s%s}\n"
	for name, c := range map[string]struct {
		now      func() time.Time
		zone     string // of the site
		spec     string
		want     string
		nextHour int // UTC; 0: none
	}{
		"open":             {now: at(24, 2), spec: fmt.Sprintf(windows, "UTC", ""), want: done},
		"closed":           {now: at(24, 5), spec: fmt.Sprintf(windows, "UTC", ""), want: "deferred 1 Deferred WindowClosed ", nextHour: 2},
		"too little left":  {now: at(24, 3), spec: fmt.Sprintf(windows, "UTC", ", startCutoffMinutes: 45"), want: "deferred 1 Deferred WindowClosed ", nextHour: 2},
		"blackout":         {now: at(24, 2), spec: fmt.Sprintf(windows, "UTC", ", blackouts: [{from: 2026-11-20, to: 2026-11-30, reason: Black Friday}]"), want: "deferred 1 Deferred Blackout ", nextHour: 2},
		"the site's zone":  {now: at(24, 8), zone: "America/Chicago", spec: fmt.Sprintf(windows, "site", ""), want: done},
		"the site's night": {now: at(24, 2), zone: "America/Chicago", spec: fmt.Sprintf(windows, "site", ""), want: "deferred 1 Deferred WindowClosed ", nextHour: 8},
		"no zone":          {now: at(24, 2), spec: fmt.Sprintf(windows, "site", ""), want: "deferred 1 Deferred ClockUnsure "},
		"overdue":          {now: at(28, 5), spec: fmt.Sprintf(windows, "UTC", ", deadline: {after: 7d, action: RunAnytime}"), want: done},
		"not yet overdue":  {now: at(26, 5), spec: fmt.Sprintf(windows, "UTC", ", deadline: {after: 7d, action: RunAnytime}"), want: "deferred 1 Deferred WindowClosed ", nextHour: 2},
		"overdue, alert":   {now: at(28, 5), spec: fmt.Sprintf(windows, "UTC", ", deadline: {after: 7d, action: Alert}"), want: "deferred 1 Deferred WindowClosed ", nextHour: 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := installtest.New(t, nil)
			b.Config.Timezone = c.zone
			one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
			want(t, apply(t, b, one, installtest.Want{}), done)
			in := installer(b)
			in.Now = c.now
			r := in.Apply(t.Context(), b.Request(t, two, installtest.Want{Revision: 2, Spec: c.spec}))
			want(t, r, c.want)
			if (c.nextHour != 0) != (r.Next != nil) || r.Next != nil && r.Next.Hour() != c.nextHour {
				t.Errorf("next try %v, want hour %d", r.Next, c.nextHour)
			}
			if r.Outcome == install.Success {
				in = installer(b)
				in.Now = at(25, 12)
				want(t, in.Rollback(t.Context(), "pos"), "success 0 Installed RolledBackByOperator ")
			}
			inForce(t, b, one, two)
		})
	}
}

// Somebody else's package manager that comes between the preflight and the transaction is left to its work: nothing is
// put back under its hands, and it counts for nothing. What it changed by then makes another plan, and the same.
func TestPackagesOthers(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	p := newPatchBench(t, bed, pair("1.0-1")...)
	two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})
	var release func()
	p.host.Hook = func(c preflight.Call) *preflight.Deferral { // the last thing before the snapshot
		if c.Phase == preflight.BeforeInstall {
			_, release = p.machine.Locks()[0].Take(t)
		}
		return nil
	}
	mark := filepath.Join(p.Config.Machine, "etc/by-others")
	in := p.installer()
	r := func() install.Result {
		in.Log = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) { // the step that failed is told before the next is done
			if strings.Contains(string(b), "step=transact") {
				installtest.WriteFile(t, mark, []byte("they are not finished"))
			}
			return len(b), nil
		}), nil))
		p.rev++
		return in.Apply(t.Context(), p.Request(t, two, installtest.Want{Revision: p.rev}))
	}()
	want(t, r, "deferred 1 Deferred Locked E4104")
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("what they were at was taken back: %v", err)
	}
	release()
	p.clean()
	p.host.Hook = func(c preflight.Call) *preflight.Deferral {
		if c.Phase == preflight.BeforeInstall {
			back := p.machine.Manager(t, tool.Runner{ID: "by-hand"})
			repo := bed.Repo(t, managertest.Spec{Packages: pair("1.5-1")[:1]})
			plan, err := back.Plan(t.Context(), repo.Order())
			if err == nil {
				_, err = back.Apply(t.Context(), repo.Order(), plan)
			}
			if err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	want(t, p.apply(two), "deferred 1 Deferred PlanChanged ")
	if p.version("demo") != "1.5-1" {
		t.Errorf("what they did was taken back: demo %s", p.version("demo"))
	}
	p.host.Hook = nil
	want(t, p.apply(two), done)
	p.clean()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Where the policy allows it, a start of the machine that the packages need comes before the question about health, and
// the next run of the machine goes on there. One that never comes is asked for a bounded number of times.
func TestPackagesReboot(t *testing.T) {
	bed := managertest.Deb()
	for _, comes := range []bool{true, false} {
		t.Run(fmt.Sprint("comes ", comes), func(t *testing.T) {
			t.Parallel()
			p := newPatchBench(t, bed, pair("1.0-1")...)
			p.Config.Health.Command = []string{"/bin/true"}
			var asked, probed int
			p.host.Start = func() error { asked++; return nil }
			p.host.Well = func(context.Context, health.Check) error { probed++; return nil }
			two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1"), Reboot: true})
			r := p.apply(two)
			want(t, r, "success 0 Installed Installed ") // without a word in the policy
			if asked != 0 || probed != 1 || len(r.Reboot) != 1 {
				t.Fatalf("asked %d, probed %d, %q", asked, probed, r.Reboot)
			}
			three := p.bundle("3", 3, managertest.Spec{Packages: pair("3.0-1"), Reboot: true})
			want(t, p.apply(three, "  reboot: IfRequired\n"), "deferred 1 Deferred RebootPending ")
			if asked != 1 || probed != 1 {
				t.Fatalf("asked %d, probed %d", asked, probed)
			}
			for range journal.MaxReboots - 1 {
				if comes {
					break
				}
				want(t, p.installer().Recover(t.Context()), "deferred 1 Deferred RebootPending ")
			}
			if comes { // the journal is of another run of the machine
				file := filepath.Join(p.Config.State, "journal.json")
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				tr, err := journal.Parse(b)
				if err != nil || tr.Step != journal.Reboot {
					t.Fatalf("%+v, %v", tr, err)
				}
				tr.Packages.Boot = "another"
				if b, err = tr.Encode(); err != nil {
					t.Fatal(err)
				}
				installtest.WriteFile(t, file, b)
			}
			r = p.installer().Recover(t.Context())
			want(t, r, done)
			wantAsked := map[bool]int{true: 1, false: journal.MaxReboots}[comes]
			if asked != wantAsked || probed != 2 || (len(r.Reboot) == 0) != comes || len(r.Changes) != 2 {
				t.Errorf("asked %d, probed %d, reboot %q, changes %v", asked, probed, r.Reboot, r.Changes)
			}
			p.clean()
		})
	}
}

// A state to which the way back is barred, because somebody changed packages since, is reached by the older release as
// a downgrade, with a snapshot of its own. What a person holds is left alone in all of it, and said.
func TestPackagesRollbackAfterChange(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, append(pair("1.0-1"), managertest.Package{Name: "other", Version: "1.0-1"})...)
		two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})
		three := p.bundle("3", 3, managertest.Spec{Packages: append(pair("3.0-1"), managertest.Package{Name: "other", Version: "3.0-1"})})
		want(t, p.apply(two), done)
		p.machine.Hold(t, "other")
		r := p.apply(three)
		want(t, r, done)
		if len(r.Kept) != 1 || r.Kept[0].Name != "other" || p.version("other") != "1.0-1" {
			t.Errorf("kept %+v, other %s", r.Kept, p.version("other"))
		}
		// Somebody does something by hand.
		back := p.machine.Manager(t, tool.Runner{ID: "by-hand"})
		repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{{Name: "extra", Version: "1.0-1"}}, Roles: map[string]packages.Role{"extra": packages.Install}})
		plan, err := back.Plan(t.Context(), repo.Order())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := back.Apply(t.Context(), repo.Order(), plan); err != nil {
			t.Fatal(err)
		}
		r = p.installer().Rollback(t.Context(), "os")
		want(t, r, "success 0 Installed RolledBackByOperator ")
		if p.version("demo") != "2.0-1" || p.version("extra") != "1.0-1" || r.Installed == nil || r.Installed.Version != "2" {
			t.Errorf("demo %s, extra %s, %+v", p.version("demo"), p.version("extra"), r)
		}
		inForce(t, p.Bench, two, three)
		p.clean()
		want(t, p.apply(three), "rolled_back 4 RolledBack RolledBackByOperator ")
	})
}

// A snapshot that is older than the policy allows (14 days by default) is not put back: too much has been written since.
func TestPackagesOldSnapshot(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, pair("1.0-1")...)
		want(t, p.apply(p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})), done)
		in := p.installer()
		in.Now = func() time.Time { return time.Now().AddDate(0, 0, 15) }
		if r := in.Rollback(t.Context(), "os"); r.Outcome == "success" || !strings.Contains(r.Detail, "the snapshot is older than the policy allows") || p.version("demo") != "2.0-1" {
			t.Errorf("%+v, demo %s", r, p.version("demo"))
		}
		in.Now = func() time.Time { return time.Now().AddDate(0, 0, 13) } // control: it is there, and would do
		if r := in.Rollback(t.Context(), "os"); r.Outcome != "success" || p.version("demo") != "1.0-1" {
			t.Errorf("%+v, demo %s", r, p.version("demo"))
		}
	})
}
