package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const unitDir = "usr/lib/systemd/system"

// units names our unit files.
func units(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("systemd/*.*")
	if err != nil || len(names) < 6 {
		t.Fatalf("%q, %v", names, err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	return names
}

func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("needs " + name + ": apt-get install systemd")
	}
}

func write(t *testing.T, name, text string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
}

// system is a root with the distribution's units, ours enabled beside them, and programs where they say.
func system(t *testing.T) string {
	t.Helper()
	tool(t, "systemd-analyze")
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, unitDir), os.DirFS("/"+unitDir)); err != nil {
		t.Skip("needs the units of the distribution: apt-get install systemd")
	}
	for _, p := range []string{"meshd", "mesh-install", "seeder"} {
		write(t, filepath.Join(root, "usr/bin", p), "#!/bin/sh\n", 0o755)
	}
	for _, name := range units(t) {
		b, err := os.ReadFile("systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		add(t, root, name, string(b))
	}
	return root
}

// add puts a unit into a root and enables it.
func add(t *testing.T, root, name, text string) {
	t.Helper()
	dir := filepath.Join(root, unitDir)
	write(t, filepath.Join(dir, name), text, 0o644)
	for l := range strings.Lines(text) {
		if target, ok := strings.CutPrefix(strings.TrimSpace(l), "WantedBy="); ok {
			wants := filepath.Join(dir, target+".wants")
			if err := os.MkdirAll(wants, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../"+name, filepath.Join(wants, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// verify returns what systemd has to say of a unit and all that it pulls in; empty: nothing.
func verify(root, unit string) string {
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--root="+root, unit).CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return string(out)
}

// systemd understands every line of our units, finds their programs, and starts a machine with all of them in some
// order.
func TestUnits(t *testing.T) {
	root := system(t)
	for _, unit := range append(units(t), "multi-user.target") {
		if said := verify(root, unit); said != "" {
			t.Errorf("%s:\n%s", unit, said)
		}
	}
	// The positive control: what is wrong would be said.
	for what, text := range map[string]string{
		"a key that is none":   "[Service]\nExecStart=/usr/bin/meshd\nProtectEverything=yes\n",
		"a program not there":  "[Service]\nExecStart=/usr/bin/meshdd\n",
		"an order in a circle": "[Unit]\nAfter=mesh-install.service\nBefore=sysinit.target\n[Service]\nExecStart=/usr/bin/meshd\n[Install]\nWantedBy=multi-user.target\n",
	} {
		root := system(t)
		add(t, root, "bad.service", text)
		if verify(root, "bad.service")+verify(root, "multi-user.target") == "" {
			t.Errorf("%s is not noticed", what)
		}
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

func score(t *testing.T, root, unit string) float64 {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--root="+root, unit).CombinedOutput()
	m := exposure.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%s: %v\n%s", unit, err, out)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The daemons that strangers talk to are shut in as far as systemd can; the executor as far as installing packages
// allows, which is little.
func TestExposure(t *testing.T) {
	root := system(t)
	for unit, most := range map[string]float64{"meshd.service": 1.5, "seeder.service": 1.5, "mesh-install.service": 8.5, "mesh-install-recover.service": 8.5} {
		n := score(t, root, unit)
		t.Logf("%s: %.1f", unit, n)
		if n > most {
			t.Errorf("%s: %.1f, at most %.1f", unit, n, most)
		}
	}
	add(t, root, "open.service", "[Service]\nExecStart=/usr/bin/meshd\n") // the positive control
	if n := score(t, root, "open.service"); n < 9 {
		t.Errorf("a unit without a wall: %.1f", n)
	}
}

// nobody is a user who is neither root nor one of ours.
const nobody = 65534

// TestUsersAndDirectories lays out users and directories as a package's scripts do, and looks at who may do what there.
func TestUsersAndDirectories(t *testing.T) {
	tool(t, "systemd-sysusers")
	tool(t, "systemd-tmpfiles")
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests as root")
	}
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // so that others get as far as the root
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"sysusers", "tmpfiles"} {
		for _, of := range []string{"node", "seeder"} {
			conf, err := filepath.Abs(fmt.Sprintf("%s.d/patchmesh-%s.conf", dir, of))
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"--root=" + root, conf}
			if dir == "tmpfiles" {
				args = append([]string{"--create"}, args...)
			}
			if out, err := exec.Command("systemd-"+dir, args...).CombinedOutput(); err != nil {
				t.Fatalf("systemd-%s %s: %v\n%s", dir, conf, err, out)
			}
		}
	}
	ids := func(file string) map[string]int {
		out := map[string]int{}
		b, err := os.ReadFile(filepath.Join(root, "etc", file))
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			if f := strings.Split(l, ":"); len(f) > 2 {
				out[f[0]], _ = strconv.Atoi(f[2])
			}
		}
		return out
	}
	users, groups := ids("passwd"), ids("group")
	if users["meshd"] == 0 || users["seeder"] == 0 || groups["meshd"] == 0 || groups["meshd-locks"] == 0 || users["meshd"] == users["seeder"] {
		t.Fatalf("%v, %v", users, groups)
	}
	// as tries a command as a user, in a group.
	as := func(uid, gid int, command string) bool {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-c", command)
		cmd.Dir = root
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return cmd.Run() == nil
	}
	meshd, app := users["meshd"], nobody
	for _, c := range []struct {
		what     string
		uid, gid int
		command  string
		may      bool
	}{
		{"the daemon makes its socket", meshd, groups["meshd"], "touch run/meshd/meshd.sock && rm run/meshd/meshd.sock && touch run/meshd/meshd.sock", true},
		{"the daemon moves the locks away", meshd, groups["meshd"], "mv run/meshd/locks run/meshd/gone", false},
		{"the daemon takes a lock", meshd, groups["meshd"], "touch run/meshd/locks/x", false},
		{"an application takes a lock", app, groups["meshd-locks"], "touch run/meshd/locks/till", true},
		{"another application takes it away", meshd, groups["meshd-locks"], "rm -f run/meshd/locks/till", false},
		{"a stranger takes a lock", app, app, "touch run/meshd/locks/y", false},
		{"a stranger takes the socket's place", app, app, "rm -f run/meshd/meshd.sock", false},
		{"the daemon reads the executor's answers", meshd, groups["meshd"], "ls var/lib/mesh-install", true},
		{"a node joins", meshd, groups["meshd"], "touch var/lib/meshd/identity.key", true},
		{"the daemon writes them", meshd, groups["meshd"], "touch var/lib/mesh-install/results.json", false},
		{"the daemon writes a hook", meshd, groups["meshd"], "touch etc/meshd/hooks.d/10-x", false},
		{"the daemon writes the keys that the executor trusts", meshd, groups["meshd"], "touch etc/meshd/trust.json", false},
		{"the daemon writes releases", meshd, groups["meshd"], "touch opt/patchmesh/x", false},
	} {
		if as(c.uid, c.gid, c.command) != c.may {
			t.Errorf("%s: %t", c.what, !c.may)
		}
	}
}
