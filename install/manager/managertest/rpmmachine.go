package managertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/dnf"
	"github.com/patchmesh/patchmesh/install/tool"
)

// rpmMachine is a root with rpm's database.
type rpmMachine struct {
	root string
	bed  *RPM
}

func (m *rpmMachine) Root() string { return m.root }

func (m *rpmMachine) Manager(t testing.TB, r tool.Runner) manager.Manager {
	return dnf.New(dnf.Config{Root: m.root, Dir: t.TempDir(), Runner: r})
}

// Hold writes what "dnf versionlock add" writes.
func (m *rpmMachine) Hold(t testing.TB, name string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "rpm", "--root="+m.root, "-q", "--qf", "%{NAME}-0:%{VERSION}-%{RELEASE}.*\n", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	m.add(t, "etc/dnf/plugins/versionlock.list", "\n# Added lock on Sat Nov 21 10:00:00 2026\n"+string(out))
}

func (m *rpmMachine) Pin(t testing.TB, name, version string) {
	m.add(t, "etc/dnf/dnf.conf", "excludepkgs="+name+"-"+version+"\n")
}

func (m *rpmMachine) add(t testing.TB, name, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(m.root, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// dnf runs it as a script on that machine would: with the machine's own configuration, repositories and cache.
func (m *rpmMachine) dnf(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), "dnf-3", append([]string{"--installroot=" + m.root, "--releasever=1", "-y"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	return cmd
}

func (m *rpmMachine) Auto(t testing.TB, name string) {
	t.Helper()
	if said, err := m.dnf("mark", "remove", name).CombinedOutput(); err != nil {
		t.Fatalf("dnf mark: %v\n%s", err, said)
	}
}

func (m *rpmMachine) AddSource(t testing.TB, r *Repo) { m.source(t, "other", r.Dir) }

func (m *rpmMachine) source(t testing.TB, id, dir string) {
	t.Helper()
	m.add(t, "etc/yum.repos.d/"+id+".repo", "["+id+"]\nname="+id+"\nenabled=1\nbaseurl=file://"+dir+"\ngpgkey=file://"+dir+"/key.asc\n")
}

func (m *rpmMachine) Naive(t testing.TB, r *Repo) (int, string) {
	t.Helper()
	m.source(t, "local-patch", r.Dir)
	// With a root dnf reads the configuration of plugins from the host: this one sees the root's list.
	plugins := t.TempDir()
	conf := "[main]\nenabled=1\nlocklist=" + filepath.Join(m.root, "etc/dnf/plugins/versionlock.list") + "\n"
	if err := os.WriteFile(filepath.Join(plugins, "versionlock.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := m.dnf("--setopt=pluginconfpath="+plugins, "upgrade")
	said, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(said)
}

// Locks are held by the real programs, in a script of a package that then refuses to be installed.
func (m *rpmMachine) Locks() []Lock {
	slow := Package{Name: "slow", Version: "1.0-1", Pre: "touch /started\nwhile ! test -e /release; do sleep 0.02; done\nexit 1"}
	take := func(t testing.TB, cmd *exec.Cmd) (int, func()) {
		t.Helper()
		started, release := filepath.Join(m.root, "started"), filepath.Join(m.root, "release")
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(started); err == nil {
				break
			}
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("%v did not come to its script:\n%s", cmd.Args, &said)
			}
		}
		done := false
		letGo := func() {
			if done {
				return
			}
			done = true
			_ = os.WriteFile(release, nil, 0o644)
			_ = cmd.Wait()
			_, _ = os.Remove(started), os.Remove(release)
		}
		t.Cleanup(letGo)
		return cmd.Process.Pid, letGo
	}
	return []Lock{
		{Name: "another dnf in its transaction", Stops: true, Take: func(t testing.TB) (int, func()) {
			return take(t, m.dnf("--nogpgcheck", "--disablerepo=*", "install", m.bed.Build(t, slow)))
		}},
		{Name: "rpm in its transaction", Stops: true, Take: func(t testing.TB) (int, func()) {
			return take(t, exec.CommandContext(context.Background(), "rpm", "--root="+m.root, "--nosignature", "-i", m.bed.Build(t, slow)))
		}},
	}
}
