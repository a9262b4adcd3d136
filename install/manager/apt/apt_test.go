package apt_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/apt"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

func TestConformance(t *testing.T) { managertest.Run(t, managertest.Deb()) }

func pkg(name, version string) managertest.Package {
	return managertest.Package{Name: name, Version: version}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func upgrade(t *testing.T, back manager.Manager, o manager.Order) manager.Output {
	t.Helper()
	p, err := back.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := back.Apply(t.Context(), o, p)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.Log)
	}
	return out
}

// Hooks of the machine's own apt configuration do not run, and apt's own directories stay as they are. The control is
// the script that does not care.
func TestMachinesOwnConfiguration(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	bed.Needs(t)
	m := bed.Machine(t, "", pkg("demo", "1.0-1"))
	ran := filepath.Join(m.Root(), "hook-ran")
	write(t, filepath.Join(m.Root(), "etc/apt/apt.conf.d/99hook"), fmt.Sprintf("DPkg::Pre-Invoke {\"touch %s\";};\nAPT::Get::AllowUnauthenticated \"1\";\n", ran))
	write(t, filepath.Join(m.Root(), "var/lib/apt/lists/theirs_Packages"), "")
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1")}})
	before := names(t, filepath.Join(m.Root(), "var/lib/apt"), filepath.Join(m.Root(), "var/cache/apt"), filepath.Join(m.Root(), "etc/apt"))
	upgrade(t, m.Manager(t, tool.Runner{ID: "own-configuration"}), repo.Order())
	if _, err := os.Stat(ran); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a hook of the machine's ran: %v", err)
	}
	if diff := cmp.Diff(before, names(t, filepath.Join(m.Root(), "var/lib/apt"), filepath.Join(m.Root(), "var/cache/apt"), filepath.Join(m.Root(), "etc/apt"))); diff != "" {
		t.Errorf("apt's own directories changed:\n%s", diff)
	}
	if exit, said := m.Naive(t, bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "3.0-1")}})); exit != 0 {
		t.Fatal(said)
	}
	if _, err := os.Stat(ran); err != nil {
		t.Errorf("the control: the hook does not run at all: %v", err)
	}
}

// names lists every file below some directories.
func names(t *testing.T, dirs ...string) []string {
	t.Helper()
	var out []string
	for _, d := range dirs {
		if err := filepath.WalkDir(d, func(p string, _ fs.DirEntry, err error) error {
			out = append(out, p)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Versions that apt's command line would take for something else.
func TestOddVersions(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	bed.Needs(t)
	m := bed.Machine(t, "", pkg("demo++", "1.0-1"), pkg("lib", "1:1.0-1"))
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo++", "2.0~rc1-1+"), pkg("lib", "1:1.0-1+b1")}})
	back := m.Manager(t, tool.Runner{ID: "odd-versions"})
	upgrade(t, back, repo.Order())
	got, err := back.Installed(t.Context())
	want := []packages.Installed{{Name: "demo++", Arch: "all", Version: "2.0~rc1-1+"}, {Name: "lib", Arch: "all", Version: "1:1.0-1+b1"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// Packages that keep their configuration with ucf are told the same as dpkg.
func TestConffilesByScript(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	bed.Needs(t)
	for conffiles, want := range map[packages.Conffiles]string{packages.Keep: "YES/\n", packages.Replace: "/YES\n"} {
		m := bed.Machine(t, "", pkg("demo", "1.0-1"))
		next := pkg("demo", "2.0-1")
		next.Post = `echo "$UCF_FORCE_CONFFOLD/$UCF_FORCE_CONFFNEW" > /told`
		repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{next}, Conffiles: conffiles})
		upgrade(t, m.Manager(t, tool.Runner{ID: "by-script"}), repo.Order())
		if got, err := os.ReadFile(filepath.Join(m.Root(), "told")); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", conffiles, got, err)
		}
	}
}

// A key of the list must lie in the repository, and be a key.
func TestKeys(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	bed.Needs(t)
	m := bed.Machine(t, "", pkg("demo", "1.0-1"))
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1")}})
	key := filepath.Join(repo.Dir, repo.List.Keys[0])
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "key.asc")
	write(t, outside, string(good))
	for name, spoil := range map[string]func(){
		"cut":      func() { write(t, key, string(good[:len(good)/2])) },
		"rubbish":  func() { write(t, key, "no key at all") },
		"large":    func() { write(t, key, strings.Repeat("x", 2<<20)) },
		"missing":  func() { os.Remove(key) },
		"a link":   func() { os.Remove(key); _ = os.Symlink(outside, key) },
		"original": func() { os.Remove(key); write(t, key, string(good)) },
	} {
		os.Remove(key)
		spoil()
		_, err := m.Manager(t, tool.Runner{ID: "keys"}).Plan(t.Context(), repo.Order())
		if (err == nil) != (name == "original") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDirectories(t *testing.T) {
	t.Parallel()
	for _, c := range []apt.Config{{Root: "/x y", Dir: "/d"}, {Root: "/", Dir: "relative"}, {Root: "/", Dir: "/a\"b"}, {Root: "/", Dir: "/a,b"}, {Root: "", Dir: "/d"}} {
		if findings, err := apt.New(c).Audit(t.Context()); err == nil {
			t.Errorf("%+v: %q", c, findings)
		}
	}
}

func TestReboot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	m := apt.New(apt.Config{Root: root, Dir: t.TempDir()})
	check := func(name string, done []packages.Change, want ...string) {
		t.Helper()
		got, err := m.Reboot(t.Context(), done)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	check("an application", []packages.Change{{Name: "nginx", From: "1", To: "2"}, {Name: "systemd-container", From: "1", To: "2"}})
	check("a kernel comes", []packages.Change{{Name: "linux-image-6.1.0-56-amd64", To: "6.1"}}, "linux-image-6.1.0-56-amd64 6.1")
	check("a kernel goes", []packages.Change{{Name: "linux-image-6.1.0-1-amd64", From: "6.1"}})
	check("the library of all", []packages.Change{{Name: "libc6", Arch: "amd64", From: "1", To: "2"}}, "libc6 2")
	write(t, filepath.Join(root, "run/reboot-required"), "*** System restart required ***\n")
	check("the mark", nil, "/run/reboot-required is there")
	write(t, filepath.Join(root, "run/reboot-required.pkgs"), "libc6\ndbus\n")
	check("the mark with names", nil, "/run/reboot-required is there, for libc6, dbus")
}

// Everything is killed at instants spread over a whole transaction. Whatever is left, going forward from there ends as
// the list says, and a success that is not one is never seen.
func TestKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	bed.Needs(t)
	kills := 6
	if os.Getenv("PATCHMESH_LONG") != "" {
		kills = 300
	}
	demo, next := pkg("demo", "1.0-1"), pkg("demo", "2.0-1")
	demo.Files, demo.Conffile = 50, "from 1"
	next.Files, next.Conffile, next.Depends, next.Pre, next.Post = 60, "from 2", []string{"helper"}, "true", "true"
	repo := bed.Repo(t, managertest.Spec{
		Packages: []managertest.Package{next, pkg("lib", "2.0-1"), pkg("helper", "1.0-1")}, Roles: map[string]packages.Role{"helper": packages.Dependency},
	})
	o := repo.Order()
	run := tool.Runner{ID: fmt.Sprintf("killed-at-any-instant-%d", os.Getpid())}
	var whole time.Duration
	cut := 0
	for i := -1; i < kills; i++ {
		m := bed.Machine(t, "", demo, pkg("lib", "1.0-1"))
		m.Auto(t, "lib")
		back := m.Manager(t, run)
		before, err := back.Installed(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := back.Plan(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.Background(), func() {}
		if i >= 0 {
			ctx, cancel = context.WithTimeout(ctx, whole*time.Duration(2*i+1)/time.Duration(2*kills))
		}
		begin := time.Now()
		out, applied := back.Apply(ctx, o, p)
		if took := time.Since(begin); applied == nil {
			whole = took // of the latest that was let be: how long it takes depends on what else runs here
		}
		cancel()
		back = m.Manager(t, run)
		if applied == nil {
			verdict(t, "not killed", back, o, p, before)
			continue
		}
		cut++
		if e := new(manager.Error); !errors.As(applied, &e) || e.Kind != manager.Cut {
			t.Fatalf("kill %d: %v\n%s", i, applied, out.Log)
		}
		if out, err := back.Repair(t.Context(), o, p); err != nil {
			t.Errorf("kill %d: repair: %v\n%s", i, err, out.Log)
			continue
		}
		verdict(t, fmt.Sprintf("kill %d", i), back, o, p, before)
		os.RemoveAll(m.Root())
	}
	t.Logf("%d transactions killed within %v, all repaired", cut, whole)
	if cut == 0 {
		t.Error("none was killed")
	}
}

// Killed at the very end of unpacking, a package has its new version and has to be installed again. Without being told so
// apt takes it for the newest, and dpkg does not configure it.
func TestKilledAtTheEndOfUnpacking(t *testing.T) {
	t.Parallel()
	bed := managertest.Deb()
	bed.Needs(t)
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1"), pkg("lib", "2.0-1")}})
	m := bed.Machine(t, "", pkg("demo", "1.0-1"), pkg("lib", "1.0-1"))
	back := m.Manager(t, tool.Runner{ID: fmt.Sprintf("killed-at-the-end-%d", os.Getpid())})
	before, err := back.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := back.Plan(t.Context(), repo.Order())
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(m.Root(), "var/lib/dpkg/status")
	status, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(status), "\n\n")
	for i, b := range blocks {
		if strings.HasPrefix(b, "Package: demo\n") {
			blocks[i] = strings.NewReplacer("install ok installed", "install reinstreq half-installed", "Version: 1.0-1", "Version: 2.0-1").Replace(b)
		}
	}
	if err := os.WriteFile(name, []byte(strings.Join(blocks, "\n\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := back.Repair(t.Context(), repo.Order(), p); err != nil {
		t.Fatalf("%v\n%s", err, out.Log)
	}
	verdict(t, "killed at the end", back, repo.Order(), p, before)
}

func verdict(t *testing.T, what string, back manager.Manager, o manager.Order, p manager.Plan, before []packages.Installed) {
	t.Helper()
	after, err := back.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := manager.Judge(before, after, o.List, p, o.AllowDowngrade)
	audit, err := back.Audit(t.Context())
	if found = append(found, audit...); err != nil || len(found) > 0 {
		t.Errorf("%s: %v %q", what, err, found)
	}
}
