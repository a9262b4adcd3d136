package dnf_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

var bed *managertest.RPM

func TestMain(m *testing.M) {
	var err error
	if bed, err = managertest.NewRPM(); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := bed.Close(); err != nil {
		panic(err)
	}
	os.Exit(code)
}

func TestConformance(t *testing.T) { managertest.Run(t, bed) }

// attempt is an order carried out: plan, transaction, and a look at what there is.
type attempt struct {
	plan     manager.Plan
	out      manager.Output
	err      error
	after    []packages.Installed
	findings []string
}

func runner(t *testing.T) tool.Runner {
	return tool.Runner{ID: strings.NewReplacer("/", "-", " ", "-", "_", "-").Replace(t.Name())}
}

func carryOut(t *testing.T, m managertest.Machine, o manager.Order) (a attempt) {
	t.Helper()
	back := m.Manager(t, runner(t))
	before, err := back.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a.plan, a.err = back.Plan(t.Context(), o); a.err == nil {
		a.out, a.err = back.Apply(t.Context(), o, a.plan)
	}
	if a.after, err = back.Installed(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.findings, err = back.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a.err == nil {
		a.findings = append(a.findings, manager.Judge(before, a.after, o.List, a.plan, o.AllowDowngrade)...)
	}
	return a
}

func (a attempt) good() bool {
	return a.err == nil && len(a.findings) == 0 && len(a.out.Complain) == 0
}

func (a attempt) says() string {
	said := "done"
	if !a.good() {
		said = fmt.Sprintf("failed: %v; complaints %q; findings %q", a.err, a.out.Complain, a.findings)
	}
	return strings.ReplaceAll(said, "|", "/") + " " + state(a.after)
}

func kind(err error) manager.Kind {
	if e := (*manager.Error)(nil); errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

func state(ps []packages.Installed) string {
	var s []string
	for _, p := range ps {
		if p.Name != "tinybase" {
			s = append(s, strings.TrimSpace(p.Name+" "+p.Version+" "+p.State))
		}
	}
	return "[" + strings.Join(s, ", ") + "]"
}

func stateOf(t *testing.T, m managertest.Machine) string {
	t.Helper()
	ps, err := m.Manager(t, runner(t)).Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state(ps)
}

func pkg(name, version string) managertest.Package {
	return managertest.Package{Name: name, Version: version}
}

// spec is a spec file of a package that holds its version, with lines for the head and sections for the end.
func spec(name, version, head, sections string) string {
	return fmt.Sprintf("Name: %s\nVersion: %s\nRelease: 1\nSummary: test\nLicense: MIT\nAutoReqProv: no\n%s\n%%description\ntest\n"+
		"%%install\nmkdir -p %%{buildroot}/usr/share/%[1]s\necho %[2]s >%%{buildroot}/usr/share/%[1]s/version\n%%files\n/usr/share/%[1]s\n%[4]s\n", name, version, head, sections)
}

const noarch = "BuildArch: noarch"

// Scripts that fail: rpm goes on after most of them, and dnf ends with status 0.
func TestScripts(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	lua := func(section string) string { return "%" + section + " -p <lua>\nerror(\"it fails\")\n" }
	for _, c := range []struct {
		name     string
		old, new string // sections of the old and the new demo
		watcher  string // of a package that watches
		lies     bool
		long     bool // the short form has its like
	}{
		{name: "pretrans", long: true, new: lua("pretrans")},
		{name: "pre", long: true, new: lua("pre")},
		{name: "post", new: lua("post"), lies: true},
		{name: "posttrans", new: lua("posttrans"), lies: true},
		{name: "preun", old: lua("preun")},
		{name: "postun", long: true, old: lua("postun"), lies: true},
		{name: "triggerin", watcher: "%triggerin -p <lua> -- demo\nerror(\"it fails\")\n", lies: true},
		{name: "triggerun", long: true, watcher: "%triggerun -p <lua> -- demo\nerror(\"it fails\")\n", lies: true},
		{name: "filetriggerin", long: true, watcher: "%filetriggerin -p <lua> -- /usr/share/demo\nerror(\"it fails\")\n", lies: true},
		{name: "transfiletriggerin", long: true, watcher: "%transfiletriggerin -p <lua> -- /usr/share/demo\nerror(\"it fails\")\n", lies: true},
		{name: "no interpreter", new: "%post -p /usr/bin/perl\nprint 1\n", lies: true},
	} {
		if c.long && os.Getenv("PATCHMESH_LONG") == "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			machine := func() managertest.Machine {
				at := []string{bed.BuildSpec(t, spec("demo", "1.0", noarch, c.old))}
				if c.watcher != "" {
					at = append(at, bed.BuildSpec(t, spec("watcher", "1.0", noarch, c.watcher)))
				}
				return bed.MachineOf(t, "", at...)
			}
			// What an interpreter of rpm's own choosing needs is not asked for: the script itself has to fail.
			repo := bed.RepoOf(t, managertest.Spec{}, bed.BuildSpec(t, spec("demo", "2.0", noarch+"\nProvides: /usr/bin/perl", c.new)))
			a := carryOut(t, machine(), repo.Order())
			naive := machine()
			exit, said := naive.Naive(t, repo)
			t.Logf("CASE|rpm: %%%s fails|%d %s|%s", c.name, exit, stateOf(t, naive), a.says())
			if a.good() {
				t.Errorf("not seen\n%s", a.out.Log)
			}
			if (exit == 0) != c.lies {
				t.Errorf("the control: a script ends with %d\n%s", exit, said)
			}
		})
	}
}

// A kill while rpm unpacks leaves files that neither rpm nor dnf ever speaks of again.
func TestKilledWhileUnpacking(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	big := pkg("demo", "2.0-1")
	big.Bytes, big.Files = 24<<20, 20
	small := pkg("demo", "1.0-1")
	small.Bytes, small.Files = 1, 20
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{big}})
	m := bed.Machine(t, "", small)
	dir := filepath.Join(m.Root(), "usr/share/demo")
	left := func() []string {
		found, err := filepath.Glob(dir + "/*;*")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	ctx, cancel := contextUntil(t, func() bool { return len(left()) > 0 })
	defer cancel()
	back := m.Manager(t, runner(t))
	plan, err := back.Plan(t.Context(), repo.Order())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.Apply(ctx, repo.Order(), plan); kind(err) != manager.Cut {
		t.Fatalf("want it cut: %v", err)
	}
	orphans := left()
	if len(orphans) == 0 {
		t.Fatal("nothing was left: the test shows nothing")
	}
	mine := filepath.Join(dir, "mine;deadbeef")
	if err := os.WriteFile(mine, nil, 0o644); err != nil {
		t.Fatal(err)
	}

	// The control: the tools are content, and a run to the end leaves the files where they are.
	verify := exec.CommandContext(t.Context(), "rpm", "--root="+m.Root(), "-V", "demo")
	if said, err := verify.CombinedOutput(); err != nil {
		t.Errorf("rpm -V: %v %s", err, said)
	}
	twin := t.TempDir()
	if said, err := exec.CommandContext(t.Context(), "cp", "-a", m.Root()+"/.", twin).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, said)
	}
	// The suffix is the second in which rpm began. A run within that very second meets its own name, fails and clears it up.
	began, err := strconv.ParseInt(orphans[0][strings.LastIndexByte(orphans[0], ';')+1:], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(time.Unix(began+1, 0)))
	script := bed.MachineAt(twin)
	exit, said := script.Naive(t, repo)
	remain, _ := filepath.Glob(twin + "/usr/share/demo/*;*")
	if exit != 0 || len(remain) < len(orphans) {
		t.Errorf("the control: a script ends with %d, %q remain of %q\n%s", exit, remain, orphans, said)
	}

	found, err := back.Audit(t.Context())
	if err != nil || len(found) != 1 || !strings.Contains(found[0], orphans[0]) {
		t.Errorf("audit: %q, %v", found, err)
	}
	out, err := back.Repair(t.Context(), repo.Order(), plan)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.Log)
	}
	if got := left(); !slices.Equal(got, []string{mine}) {
		t.Errorf("left: %q, want only the stranger's", got)
	}
	found, err = back.Audit(t.Context())
	if len(found) > 0 || err != nil || stateOf(t, m) != "[demo 2.0-1]" {
		t.Errorf("after the repair: %q, %v, %s", found, err, stateOf(t, m))
	}
	t.Logf("CASE|rpm: killed while unpacking, then run again|%d, %d orphans remain|repaired %s, 0 remain", exit, len(remain), stateOf(t, m))
}

// The keys of a bundle are asked, and do not stay.
func TestKeysDoNotStay(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1")}})
	keys := func(m managertest.Machine) int {
		out, _ := exec.CommandContext(t.Context(), "rpm", "--root="+m.Root(), "-qa", "gpg-pubkey").Output()
		return len(strings.Fields(string(out)))
	}
	m := bed.Machine(t, "", pkg("demo", "1.0-1"))
	if a := carryOut(t, m, repo.Order()); !a.good() || keys(m) != 0 {
		t.Errorf("%s, %d keys", a.says(), keys(m))
	}
	naive := bed.Machine(t, "", pkg("demo", "1.0-1"))
	if exit, said := naive.Naive(t, repo); exit != 0 || keys(naive) != 1 {
		t.Errorf("the control: a script ends with %d and leaves %d keys\n%s", exit, keys(naive), said)
	}

	// A bundle without keys: those of the machine, which has none, and then has it.
	repo.List.Keys = []string{}
	m = bed.Machine(t, "", pkg("demo", "1.0-1"))
	if a := carryOut(t, m, repo.Order()); kind(a.err) != manager.Untrusted {
		t.Errorf("no key anywhere: %s", a.says())
	}
	if said, err := exec.CommandContext(t.Context(), "rpmkeys", "--root="+m.Root(), "--import", repo.Dir+"/key.asc").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, said)
	}
	if a := carryOut(t, m, repo.Order()); !a.good() {
		t.Errorf("with the machine's key: %s", a.says())
	}
}

// Of some packages several versions are there at once; what the machine's own limit says goes.
func TestSeveralVersions(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	kernel := func(v string) string {
		s := spec("image", v, noarch+"\nProvides: installonlypkg(kernel)", "")
		return bed.BuildSpec(t, strings.ReplaceAll(s, "/usr/share/image", "/usr/share/image-"+v))
	}
	repo := bed.RepoOf(t, managertest.Spec{}, kernel("3"))
	for limit, want := range map[string]string{"3": "[image 1-1, image 2-1, image 3-1]", "2": "[image 2-1, image 3-1]"} {
		m := bed.MachineOf(t, "", kernel("1"), kernel("2"))
		configure(t, m, "installonly_limit="+limit+"\n")
		a := carryOut(t, m, repo.Order())
		if !a.good() || state(a.after) != want {
			t.Errorf("limit %s: %s", limit, a.says())
		}
		t.Logf("CASE|rpm: several versions, limit %s||%s", limit, a.says())
	}
}

func configure(t *testing.T, m managertest.Machine, lines string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.Root(), "etc/dnf/dnf.conf"), []byte("[main]\n"+lines), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Rows of one machine and one repository each.
func TestRows(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	for _, c := range []struct {
		name    string
		old     []string // spec files
		new     []string
		spec    managertest.Spec
		machine func(*testing.T, managertest.Machine)
		down    bool
		kind    manager.Kind
		want    string
	}{
		{
			name: "epoch", old: []string{spec("demo", "9.0", noarch, "")}, new: []string{spec("demo", "0.5", noarch+"\nEpoch: 1", "")}, want: "[demo 1:0.5-1]",
		},
		{
			name: "architecture changes", old: []string{spec("demo", "1.0", noarch, "")}, new: []string{spec("demo", "2.0", "", "")}, want: "[demo 2.0-1]",
		},
		{
			name: "new package obsoletes", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new:  []string{spec("next", "1.0", noarch+"\nObsoletes: lib\nProvides: lib", "")},
			spec: managertest.Spec{Roles: map[string]packages.Role{"next": packages.Install}, Remove: []string{"lib"}}, want: "[demo 1.0-1, next 1.0-1]",
		},
		{
			name: "new package obsoletes what is held", old: []string{spec("lib", "1.0", noarch, "")},
			new:     []string{spec("next", "1.0", noarch+"\nObsoletes: lib\nProvides: lib", "")},
			spec:    managertest.Spec{Roles: map[string]packages.Role{"next": packages.Install}, Remove: []string{"lib"}},
			machine: func(t *testing.T, m managertest.Machine) { m.Hold(t, "lib") }, kind: manager.Refused, want: "[lib 1.0-1]",
		},
		{
			name: "file conflict", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new:  []string{strings.Replace(spec("demo", "2.0", noarch, "/usr/share/lib"), "%files", "mkdir -p %{buildroot}/usr/share/lib\necho mine >%{buildroot}/usr/share/lib/version\n%files", 1)},
			kind: manager.Refused, want: "[demo 1.0-1, lib 1.0-1]",
		},
		{
			name: "weak dependency is not brought", old: []string{spec("demo", "1.0", noarch, "")},
			new:  []string{spec("demo", "2.0", noarch+"\nRecommends: extra", ""), spec("extra", "1.0", noarch, "")},
			spec: managertest.Spec{Roles: map[string]packages.Role{"extra": packages.Dependency}}, want: "[demo 2.0-1]",
		},
		{
			name: "the machine's settings do not reach dnf", old: []string{spec("demo", "1.0", noarch, "")}, new: []string{spec("demo", "2.0", noarch, "")},
			machine: func(t *testing.T, m managertest.Machine) {
				configure(t, m, "tsflags=test\nassumeno=1\ncacheonly=1\nbest=0\nplugins=1\nproxy=http://192.0.2.1:1\nmetadata_expire=never\nreposdir=/nowhere\n")
			}, want: "[demo 2.0-1]",
		},
		{
			name: "includepkgs", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new:     []string{spec("demo", "2.0", noarch, ""), spec("lib", "2.0", noarch, "")},
			machine: func(t *testing.T, m managertest.Machine) { configure(t, m, "includepkgs=lib*\n") }, want: "[demo 1.0-1, lib 2.0-1]",
		},
		{
			name: "dependency is pinned", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new:     []string{spec("demo", "2.0", noarch+"\nRequires: lib >= 2.0", ""), spec("lib", "2.0", noarch, "")},
			machine: func(t *testing.T, m managertest.Machine) { configure(t, m, "excludepkgs=lib\n") }, kind: manager.Unresolved, want: "[demo 1.0-1, lib 1.0-1]",
		},
		{
			name: "protected package is not removed", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new:     []string{spec("demo", "2.0", noarch+"\nConflicts: lib", "")},
			machine: func(t *testing.T, m managertest.Machine) { configure(t, m, "protected_packages=lib\n") },
			spec:    managertest.Spec{Remove: []string{"lib"}}, kind: manager.Unresolved, want: "[demo 1.0-1, lib 1.0-1]",
		},
		{
			name: "conflict that a removal solves", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new: []string{spec("demo", "2.0", noarch+"\nConflicts: lib", "")}, spec: managertest.Spec{Remove: []string{"lib"}}, want: "[demo 2.0-1]",
		},
		{
			name: "conflict that another removal would solve", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new:  []string{spec("demo", "2.0", noarch+"\nConflicts: lib", "")},
			spec: managertest.Spec{Remove: []string{"other"}}, kind: manager.Refused, want: "[demo 1.0-1, lib 1.0-1]",
		},
		{
			name: "conflict", old: []string{spec("demo", "1.0", noarch, ""), spec("lib", "1.0", noarch, "")},
			new: []string{spec("demo", "2.0", noarch+"\nConflicts: lib", "")}, kind: manager.Unresolved, want: "[demo 1.0-1, lib 1.0-1]",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			build := func(specs []string) (paths []string) {
				for _, s := range specs {
					paths = append(paths, bed.BuildSpec(t, s))
				}
				return paths
			}
			m := bed.MachineOf(t, "", build(c.old)...)
			if c.machine != nil {
				c.machine(t, m)
			}
			repo := bed.RepoOf(t, c.spec, build(c.new)...)
			a := carryOut(t, m, repo.Order())
			t.Logf("CASE|rpm: %s||%s", c.name, a.says())
			if kind(a.err) != c.kind || c.kind == "" && !a.good() || state(a.after) != c.want {
				t.Errorf("%s, want %q %s\n%s", a.says(), c.kind, c.want, a.out.Log)
			}
		})
	}
}

// What an owner edited stays or goes as the list says, however the package calls the file.
func TestConfigurationFiles(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	for _, flag := range []string{"%config", "%config(noreplace)"} {
		for _, want := range []packages.Conffiles{packages.Keep, packages.Replace} {
			t.Run(fmt.Sprintf("%s %s", flag, want), func(t *testing.T) {
				t.Parallel()
				build := func(v string) string {
					s := strings.Replace(spec("demo", v, noarch, flag+" /etc/demo.conf"), "%files", "mkdir %{buildroot}/etc\necho from "+v+" >%{buildroot}/etc/demo.conf\n%files", 1)
					return bed.BuildSpec(t, s)
				}
				m := bed.MachineOf(t, "", build("1.0"))
				conf := filepath.Join(m.Root(), "etc/demo.conf")
				if err := os.WriteFile(conf, []byte("edited\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				repo := bed.RepoOf(t, managertest.Spec{Conffiles: want}, build("2.0"))
				if a := carryOut(t, m, repo.Order()); !a.good() {
					t.Fatal(a.says())
				}
				files := map[string]string{"": "edited\n", ".rpmnew": "from 2.0\n"}
				if want == packages.Replace {
					files = map[string]string{"": "from 2.0\n", ".rpmsave": "edited\n"}
				}
				for _, ending := range []string{"", ".rpmnew", ".rpmsave", ".rpmorig"} {
					if b, _ := os.ReadFile(conf + ending); string(b) != files[ending] {
						t.Errorf("demo.conf%s: %q, want %q", ending, b, files[ending])
					}
				}
			})
		}
	}
}

// Looking changes nothing: every file of the root is as it was, dnf's log beside.
func TestLookingChangesNothing(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	m := bed.Machine(t, "", pkg("demo", "1.0-1"), pkg("lib", "1.0-1"))
	m.Auto(t, "lib")
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1"), pkg("lib", "2.0-1")}})
	before := tree(t, m.Root())
	back := m.Manager(t, runner(t))
	plan, err := back.Plan(t.Context(), repo.Order())
	if err != nil || len(plan.Changes) != 2 {
		t.Fatal(plan, err)
	}
	_, err1 := back.Installed(t.Context())
	_, err2 := back.Audit(t.Context())
	_, err3 := back.Holder()
	_, err4 := back.Reboot(t.Context(), plan.Changes)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	after := tree(t, m.Root())
	for name, sum := range after {
		if before[name] != sum {
			t.Errorf("%s: %q, before %q", name, sum, before[name])
		}
	}
	for name := range before {
		if after[name] == "" {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestHistoryNamesTheTransaction(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	m := bed.Machine(t, "", pkg("demo", "1.0-1"))
	a := carryOut(t, m, bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1")}}).Order())
	said, err := exec.CommandContext(t.Context(), "dnf-3", "--installroot="+m.Root(), "--releasever=1", "history", "info", "last").CombinedOutput()
	if err != nil || !a.good() || !strings.Contains(string(said), "patchmesh "+runner(t).ID) {
		t.Errorf("%s, %v\n%s", a.says(), err, said)
	}
}

// A power cut leaves dnf's lock, and the next boot gives its process ID to somebody else.
func TestStaleLock(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	m := bed.Machine(t, "", pkg("demo", "1.0-1"))
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1")}})
	lock := filepath.Join(m.Root(), "var/lib/dnf/rpmdb_lock.pid")
	if err := errors.Join(os.MkdirAll(filepath.Dir(lock), 0o755), os.WriteFile(lock, []byte(strconv.Itoa(os.Getpid())), 0o644)); err != nil {
		t.Fatal(err)
	}
	back := m.Manager(t, runner(t))
	if who, err := back.Holder(); !strings.HasPrefix(who, fmt.Sprintf("pid %d ", os.Getpid())) || err != nil {
		t.Errorf("a lock that is held: %q, %v", who, err)
	}
	ago := time.Now().Add(-1000 * time.Hour)
	if err := os.Chtimes(lock, ago, ago); err != nil {
		t.Fatal(err)
	}
	control := exec.CommandContext(t.Context(), "dnf-3", "--installroot="+m.Root(), "--releasever=1", "-y", "--nogpgcheck", "--setopt=exit_on_lock=1", "install", repo.Dir+"/demo-2.0-1.noarch.rpm")
	if said, err := control.CombinedOutput(); control.ProcessState.ExitCode() != 200 {
		t.Errorf("the control: dnf ends with %v\n%s", err, said)
	}
	if err := os.Chtimes(lock, ago, ago); err != nil {
		t.Fatal(err)
	}
	if who, err := back.Holder(); who != "" || err != nil {
		t.Errorf("a lock of before the boot: %q, %v", who, err)
	}
	a := carryOut(t, m, repo.Order())
	t.Logf("CASE|rpm: lock left by a power cut|200|%s", a.says())
	if !a.good() {
		t.Error(a.says())
	}
}

func TestReboot(t *testing.T) {
	t.Parallel()
	bed.Needs(t)
	m := bed.Machine(t, "")
	back := m.Manager(t, runner(t))
	ask := func() string {
		why, err := back.Reboot(t.Context(), []packages.Change{
			{Name: "glibc", To: "2.39-1"}, {Name: "kernel-doc", To: "6-1"}, {Name: "systemd", From: "255-1"}, {Name: "demo", From: "1-1", To: "2-1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(why, ", ")
	}
	if got := ask(); got != "glibc 2.39-1" {
		t.Error(got)
	}
	dir := filepath.Join(m.Root(), "etc/dnf/plugins/needs-restarting.d")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/own.conf", []byte("demo\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != "glibc 2.39-1, demo 2-1" {
		t.Error(got)
	}
}
