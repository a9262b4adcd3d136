package managertest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Run holds a back end to every case. Each case says in one line of the log what the exit status of a naive script was,
// and what patchmesh says:
//
//	CASE|FORMAT: NAME|EXIT STATUS [STATE]|WHAT PATCHMESH SAYS [STATE]
func Run(t *testing.T, bed Bed) {
	t.Helper()
	bed.Needs(t)
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, bed)
		})
	}
	for _, f := range bed.Faults() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			fault(f).run(t, bed)
		})
	}
	for name, f := range map[string]func(*testing.T, Bed){
		"locks": locks, "stale cache": staleCache, "changed since the plan": changedSince, "killed in the script before": killedBefore,
		"killed in the script after": killedAfter, "disk too small": diskTooSmall, "clock": clocks, "script prints an error and succeeds": chattyScript,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, bed)
		})
	}
}

// A case is a machine, a repository, and what must come of it.
type testCase struct {
	name      string
	installed []Package
	spec      Spec
	machine   func(t testing.TB, bed Bed, m Machine)
	repo      func(t testing.TB, r *Repo)
	downgrade bool

	kind  manager.Kind      // of the error; nothing has changed then, unless it fails in the middle
	late  bool              // it fails in the middle
	kept  map[string]string // why, by name
	want  map[string]string // versions afterwards, where they are not those of before
	files map[string]string // content of files of the root afterwards; empty: not there

	// The control: a script that believes the exit status calls it a success, and the machine is not what the repository
	// holds, or not what this case wants.
	lies []manifest.Format
}

const (
	one   = "1.0-1"
	two   = "2.0-1"
	three = "3.0-1"
)

func at(version string, names ...string) []Package {
	var out []Package
	for _, n := range names {
		out = append(out, Package{Name: n, Version: version})
	}
	return out
}

// with alters the first package.
func with(ps []Package, change func(*Package)) []Package {
	change(&ps[0])
	return ps
}

func cases() []testCase {
	both := []manifest.Format{manifest.FormatDeb, manifest.FormatRPM}
	deb := both[:1]
	old := at(one, "demo", "lib")
	return []testCase{
		{name: "upgrade", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, want: map[string]string{"demo": two, "lib": two}},
		{name: "nothing to do", installed: at(two, "demo", "lib"), spec: Spec{Packages: at(two, "demo", "lib")}},
		{
			name: "script after fails", installed: old, late: true, kind: manager.Script, lies: both[1:],
			spec: Spec{Packages: []Package{{Name: "demo", Version: two, Post: "exit 1"}, {Name: "lib", Version: two, Depends: []string{"demo"}}}},
		},
		{
			name: "script before fails", installed: old, late: true, kind: manager.Script,
			spec: Spec{Packages: with(at(two, "demo", "lib"), func(p *Package) { p.Pre = "exit 1" })},
		},
		{
			name: "dependency missing", installed: old, kind: manager.Unresolved, lies: both,
			spec: Spec{Packages: with(at(two, "demo", "lib"), func(p *Package) { p.Depends = []string{"absent >= 1.0-1"} })},
		},
		{
			name: "new dependency in the bundle", installed: old, lies: deb, want: map[string]string{"demo": two, "helper": one},
			spec: Spec{
				Packages: append(with(at(two, "demo"), func(p *Package) { p.Depends = []string{"helper >= 1.0-1"} }), at(one, "helper")...),
				Roles:    map[string]packages.Role{"helper": packages.Dependency},
			},
		},
		{
			name: "new dependency that is an update elsewhere", installed: old, lies: deb, want: map[string]string{"demo": two, "helper": one},
			spec: Spec{Packages: append(with(at(two, "demo"), func(p *Package) { p.Depends = []string{"helper = 1.0-1"} }), at(one, "helper")...)},
		},
		{
			name: "dependency that nothing needs", installed: old, want: map[string]string{"demo": two},
			spec: Spec{Packages: append(at(two, "demo"), at(one, "helper")...), Roles: map[string]packages.Role{"helper": packages.Dependency}},
		},
		{
			name: "new package on every node", installed: old, lies: both, want: map[string]string{"demo": two, "agent": one},
			spec: Spec{Packages: append(at(two, "demo"), at(one, "agent")...), Roles: map[string]packages.Role{"agent": packages.Install}},
		},
		{
			name: "held", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, lies: both,
			machine: func(t testing.TB, _ Bed, m Machine) { m.Hold(t, "demo") },
			kept:    map[string]string{"demo": manager.KeptHeld}, want: map[string]string{"lib": two},
		},
		{
			name: "pinned", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, lies: both,
			machine: func(t testing.TB, _ Bed, m Machine) { m.Pin(t, "demo", two) },
			kept:    map[string]string{"demo": manager.KeptPinned}, want: map[string]string{"lib": two},
		},
		{name: "update of what is not installed", installed: at(one, "lib"), spec: Spec{Packages: at(two, "demo", "lib")}, want: map[string]string{"lib": two}},
		{
			name: "version that the repository lacks", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, kind: manager.Unresolved,
			repo: func(_ testing.TB, r *Repo) { r.List.Packages[0].Version = three }, lies: both,
		},
		{
			name: "name that the repository lacks", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, kind: manager.Unresolved,
			repo: func(_ testing.TB, r *Repo) {
				r.List.Packages = append(r.List.Packages, r.List.Packages[0])
				last := &r.List.Packages[2]
				last.Name, last.Role = "unknown", packages.Install
			}, lies: both,
		},
		{
			name: "newer installed", installed: append(at(three, "demo"), at(one, "lib")...), spec: Spec{Packages: at(two, "demo", "lib")}, lies: both,
			kept: map[string]string{"demo": manager.KeptNewer}, want: map[string]string{"lib": two},
		},
		{
			name: "downgrade allowed", installed: append(at(three, "demo"), at(one, "lib")...), spec: Spec{Packages: at(two, "demo", "lib")}, lies: both,
			downgrade: true, want: map[string]string{"demo": two, "lib": two},
		},
		{
			name: "removal not allowed", installed: old, kind: manager.Refused, lies: deb,
			spec: Spec{Packages: with(at(two, "demo"), func(p *Package) { p.Replaces = []string{"lib"} })},
		},
		{
			name: "removal allowed", installed: old, want: map[string]string{"demo": two, "lib": ""},
			spec: Spec{Packages: with(at(two, "demo"), func(p *Package) { p.Replaces = []string{"lib"} }), Remove: []string{"lib"}},
		},
		{
			name: "edited configuration file kept", installed: with(at(one, "demo"), func(p *Package) { p.Conffile = "from 1" }),
			spec:    Spec{Packages: with(at(two, "demo"), func(p *Package) { p.Conffile = "from 2" })},
			machine: editConffile, want: map[string]string{"demo": two}, files: map[string]string{"etc/demo.conf": "edited"},
		},
		{
			name: "edited configuration file replaced", installed: with(at(one, "demo"), func(p *Package) { p.Conffile = "from 1" }),
			spec:    Spec{Packages: with(at(two, "demo"), func(p *Package) { p.Conffile = "from 2" }), Conffiles: packages.Replace},
			machine: editConffile, want: map[string]string{"demo": two}, files: map[string]string{"etc/demo.conf": "from 2"}, lies: both,
		},
		{
			name: "marks are kept", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, want: map[string]string{"demo": two, "lib": two},
			machine: func(t testing.TB, _ Bed, m Machine) { m.Auto(t, "lib") },
		},
		{
			name: "other repository in the machine's configuration", installed: old, spec: Spec{Packages: at(two, "demo", "lib")}, lies: both,
			machine: func(t testing.TB, bed Bed, m Machine) {
				m.AddSource(t, bed.Repo(t, Spec{Packages: at(three, "demo", "lib")}))
			},
			want: map[string]string{"demo": two, "lib": two},
		},
		{
			name: "dependency only in another repository", installed: old, kind: manager.Unresolved, lies: both,
			spec: Spec{Packages: with(at(two, "demo", "lib"), func(p *Package) { p.Depends = []string{"outside"} })},
			machine: func(t testing.TB, bed Bed, m Machine) {
				m.AddSource(t, bed.Repo(t, Spec{Packages: at(three, "outside")}))
			},
		},
		{
			name: "database broken before", kind: manager.Broken, spec: Spec{Packages: at(two, "lib")},
			installed: with(at(one, "demo", "lib"), func(p *Package) { p.Depends = []string{"absent"} }),
		},
	}
}

func editConffile(t testing.TB, _ Bed, m Machine) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.Root(), "etc/demo.conf"), []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fault is a plain upgrade from a repository that is not as it should be.
func fault(f Fault) testCase {
	c := testCase{name: f.Name, installed: at(one, "demo", "lib"), spec: Spec{Packages: at(two, "demo", "lib")}, repo: f.Make, kind: f.Kind}
	if f.Believed {
		c.lies = []manifest.Format{manifest.FormatDeb, manifest.FormatRPM}
	}
	if f.Harmless {
		c.want = map[string]string{"demo": two, "lib": two}
	}
	return c
}

// scene is the machine and the repository of a case.
func (c testCase) scene(t *testing.T, bed Bed) (Machine, *Repo) {
	t.Helper()
	r := bed.Repo(t, c.spec)
	if c.repo != nil {
		c.repo(t, r)
	}
	return c.make(t, bed), r
}

func (c testCase) make(t *testing.T, bed Bed) Machine {
	t.Helper()
	m := bed.Machine(t, "", c.installed...)
	if c.machine != nil {
		c.machine(t, bed, m)
	}
	return m
}

func (c testCase) run(t *testing.T, bed Bed) {
	m, r := c.scene(t, bed)
	back := m.Manager(t, runner(t))
	o := r.Order()
	o.AllowDowngrade = c.downgrade
	a := carryOut(t.Context(), t, back, o)
	c.control(t, bed, r, &a)
	c.check(t, m, back, &a)
}

// check holds what came of a case to what it wants.
func (c testCase) check(t *testing.T, m Machine, back manager.Manager, a *attempt) {
	t.Helper()
	switch {
	case c.late && (a.good() || len(a.findings) == 0 && len(a.out.Complain) == 0):
		t.Errorf("a failure in the middle is not seen: %s", a.says())
	case c.late:
		if a.err != nil && a.kind() != c.kind {
			t.Errorf("error %v, want %s", a.err, c.kind)
		}
		return
	case c.kind != "":
		if a.kind() != c.kind {
			t.Errorf("error %v, want %s", a.err, c.kind)
		}
		if !slices.Equal(a.before, a.after) {
			t.Errorf("refused, and yet changed: from %s to %s", state(a.before), state(a.after))
		}
		return
	case !a.good():
		t.Errorf("want success: %v %q %q\n%s", a.err, a.findings, a.out.Complain, a.out.Log)
	}
	want := versions(a.before)
	for name, v := range c.want {
		want[name] = v
		if v == "" {
			delete(want, name)
		}
	}
	if got := versions(a.after); !maps.Equal(got, want) {
		t.Errorf("installed %v, want %v", got, want)
	}
	kept := map[string]string{}
	for _, k := range a.plan.Kept {
		kept[k.Name] = k.Why
	}
	if !maps.Equal(kept, c.kept) {
		t.Errorf("kept %v, want %v", kept, c.kept)
	}
	for name, content := range c.files {
		if got, err := os.ReadFile(filepath.Join(m.Root(), name)); err != nil || string(got) != content {
			t.Errorf("%s: %q, %v; want %q", name, got, err, content)
		}
	}
	if who, err := back.Holder(); who != "" || err != nil {
		t.Errorf("a lock is left with %q, %v", who, err)
	}
	if a.out.Exit != 0 {
		t.Errorf("exit status %d with success", a.out.Exit)
	}
}

// control has a script try the same on a machine that is the same, and logs the row of the table.
func (c testCase) control(t *testing.T, bed Bed, r *Repo, a *attempt) {
	t.Helper()
	m := c.make(t, bed)
	exit, said := m.Naive(t, r)
	after := installed(t, m.Manager(t, runner(t)))
	t.Logf("CASE|%s: %s|%d %s|%s", bed.Format(), c.name, exit, state(after), a.says())
	if !slices.Contains(c.lies, bed.Format()) {
		return
	}
	whole := true // as the list says
	for _, p := range r.List.Packages {
		if p.Role != packages.Dependency && versions(after)[p.Name] != p.Version {
			whole = false
		}
	}
	for name, content := range c.files {
		got, _ := os.ReadFile(filepath.Join(m.Root(), name))
		whole = whole && string(got) == content
	}
	for name := range versions(after) { // and nothing from elsewhere
		known := slices.ContainsFunc(r.List.Packages, func(p packages.Package) bool { return p.Name == name })
		whole = whole && (known || slices.ContainsFunc(c.installed, func(p Package) bool { return p.Name == name }))
	}
	if exit != 0 || whole && len(a.out.Complain) == 0 {
		t.Errorf("the control: a script ends with %d, %s: want 0 and a machine that is not as the list says\n%s", exit, state(after), said)
	}
}

// locks: whoever is at work is named, and not disturbed.
func locks(t *testing.T, bed Bed) {
	m, r := testCase{installed: at(one, "demo"), spec: Spec{Packages: at(two, "demo")}}.scene(t, bed)
	back := m.Manager(t, runner(t))
	for _, l := range m.Locks() {
		pid, release := l.Take(t)
		who, err := back.Holder()
		if err != nil || l.Stops && !strings.Contains(who, fmt.Sprintf("pid %d ", pid)) {
			t.Errorf("%s: held by %q, %v; want pid %d", l.Name, who, err, pid)
		}
		a := attempt{before: installed(t, back)}
		a.plan, a.err = back.Plan(t.Context(), r.Order())
		a.look(t, back, r.Order())
		if l.Stops {
			if a.kind() != manager.Busy || !slices.Equal(a.before, a.after) {
				t.Errorf("%s: %s", l.Name, a.says())
			}
			// The same after the plan, when somebody was faster.
			a.out, a.err = back.Apply(t.Context(), r.Order(), manager.Plan{Changes: []packages.Change{{Name: "demo", Arch: bed.Arch(), From: one, To: two}}})
			if a.kind() != manager.Busy {
				t.Errorf("%s: apply: %v", l.Name, a.err)
			}
		}
		t.Logf("CASE|%s: lock %s is held||%s", bed.Format(), l.Name, a.says())
		release()
		if who, err := back.Holder(); who != "" || err != nil {
			t.Errorf("%s: released, and yet held by %q, %v", l.Name, who, err)
		}
	}
	if a := carryOut(t.Context(), t, back, r.Order()); !a.good() {
		t.Errorf("after all were released: %s", a.says())
	}
}

// staleCache: the same path with other content, and the same private directory.
func staleCache(t *testing.T, bed Bed) {
	m, r := testCase{installed: at(one, "demo"), spec: Spec{Packages: at(two, "demo")}}.scene(t, bed)
	back := m.Manager(t, runner(t))
	if a := carryOut(t.Context(), t, back, r.Order()); !a.good() {
		t.Fatalf("first: %s", a.says())
	}
	next := bed.Repo(t, Spec{Packages: at(three, "demo")})
	if err := os.RemoveAll(r.Dir); err != nil {
		t.Fatal(err)
	}
	if err := durable.Rename(next.Dir, r.Dir); err != nil {
		t.Fatal(err)
	}
	next.Dir = r.Dir
	a := carryOut(t.Context(), t, back, next.Order())
	if !a.good() || versions(a.after)["demo"] != three {
		t.Errorf("second: %s", a.says())
	}
	t.Logf("CASE|%s: same path, new content||%s", bed.Format(), a.says())
}

// changedSince: what was planned is not what would be done now.
func changedSince(t *testing.T, bed Bed) {
	m, r := testCase{installed: at(one, "demo", "lib"), spec: Spec{Packages: at(two, "demo", "lib")}}.scene(t, bed)
	back := m.Manager(t, runner(t))
	a := attempt{before: installed(t, back), planned: true}
	if a.plan, a.err = back.Plan(t.Context(), r.Order()); a.err != nil {
		t.Fatal(a.err)
	}
	m.Hold(t, "demo")
	a.out, a.err = back.Apply(t.Context(), r.Order(), a.plan)
	a.look(t, back, r.Order())
	if a.kind() != manager.Refused || !maps.Equal(versions(a.before), versions(a.after)) {
		t.Errorf("a package was held after the plan: %s", a.says())
	}
	t.Logf("CASE|%s: changed since the plan||%s", bed.Format(), a.says())
}

func killedBefore(t *testing.T, bed Bed) { killed(t, bed, func(p *Package, s string) { p.Pre = s }) }
func killedAfter(t *testing.T, bed Bed)  { killed(t, bed, func(p *Package, s string) { p.Post = s }) }

// killed: everything ends in the middle of a script. What is left is seen, and mended by going forward.
func killed(t *testing.T, bed Bed, where func(*Package, string)) {
	const script = "test -p /gate || exit 0; echo here > /gate; sleep 600"
	m, r := testCase{
		installed: at(one, "demo", "lib"),
		machine:   func(t testing.TB, _ Bed, m Machine) { m.Auto(t, "lib") },
		spec: Spec{
			Packages: append(with(at(two, "demo", "lib"), func(p *Package) { p.Depends = []string{"helper"}; where(p, script) }), at(one, "helper")...),
			Roles:    map[string]packages.Role{"helper": packages.Dependency},
		},
	}.scene(t, bed)
	gate := filepath.Join(m.Root(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reached := false
	var wait sync.WaitGroup
	wait.Go(func() {
		n, _ := f.Read(make([]byte, 1))
		reached = n == 1
		cancel()
	})
	run := runner(t)
	back := m.Manager(t, run)
	a := carryOut(ctx, t, back, r.Order())
	f.Close()
	wait.Wait()
	if !reached {
		t.Fatalf("the script was not reached: %s", a.says())
	}
	if a.kind() != manager.Cut || len(a.findings) == 0 {
		t.Errorf("cut: %s", a.says())
	}
	if n, err := tool.KillLeft(t.Context(), run.ID); n != 0 || err != nil {
		t.Errorf("%d processes were left, %v", n, err)
	}
	said := a.says()
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	back = m.Manager(t, run) // another executor
	a.out, a.err = back.Repair(t.Context(), r.Order(), a.plan)
	a.look(t, back, r.Order())
	if !a.good() {
		t.Errorf("repair: %v %q\n%s", a.err, a.findings, a.out.Log)
	}
	t.Logf("CASE|%s: %s||%s; then repaired: %s", bed.Format(), filepath.Base(t.Name()), said, a.says())
	if again, err := back.Repair(t.Context(), r.Order(), a.plan); err != nil || again.Exit != 0 {
		t.Errorf("repair of what is whole: %v\n%s", err, again.Log)
	}
}

// diskTooSmall: a file system that the packages do not fit into.
func diskTooSmall(t *testing.T, bed Bed) {
	root := t.TempDir()
	if err := syscall.Mount("none", root, "tmpfs", 0, "size=12m"); err != nil {
		t.Skip("needs the right to mount: run as root, not in a container without it")
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	m := bed.Machine(t, root, at(one, "demo", "lib")...)
	r := bed.Repo(t, Spec{Packages: with(at(two, "demo", "lib"), func(p *Package) { p.Bytes = 16 << 20 })})
	a := carryOut(t.Context(), t, m.Manager(t, runner(t)), r.Order())
	if a.kind() != manager.Space || a.planned && len(a.findings) == 0 {
		t.Errorf("%s\n%s", a.says(), a.out.Log)
	}
	t.Logf("CASE|%s: disk too small|%d|%s", bed.Format(), a.out.Exit, a.says())
}

// clocks: one that stands at the beginning, and one of the far future.
func clocks(t *testing.T, bed Bed) {
	lib, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(lib) == 0 {
		t.Skip("needs faketime: apt-get install faketime")
	}
	for _, day := range []string{"@1970-01-02 00:00:00", "@2099-01-01 00:00:00"} {
		m, r := testCase{installed: at(one, "demo"), spec: Spec{Packages: at(two, "demo")}}.scene(t, bed)
		a := carryOut(t.Context(), t, m.Manager(t, runner(t, "LD_PRELOAD="+lib[0], "FAKETIME="+day)), r.Order())
		if !a.good() || versions(a.after)["demo"] != two {
			t.Errorf("%s: %s\n%s", day, a.says(), a.out.Log)
		}
		t.Logf("CASE|%s: clock says %s||%s", bed.Format(), day[1:11], a.says())
	}
}

// chattyScript: what a script prints does not make a failure of a success.
func chattyScript(t *testing.T, bed Bed) {
	m, r := testCase{installed: at(one, "demo"), spec: Spec{
		Packages: with(at(two, "demo"), func(p *Package) { p.Post = "echo Error: No space left on device >&2; echo E: failed >&2; exit 0" }),
	}}.scene(t, bed)
	a := carryOut(t.Context(), t, m.Manager(t, runner(t)), r.Order())
	if !a.good() {
		t.Errorf("%s\n%s", a.says(), a.out.Log)
	}
	t.Logf("CASE|%s: script speaks of an error and succeeds||%s", bed.Format(), a.says())
}
