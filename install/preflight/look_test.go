package preflight_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// write makes a file with what is above it.
func write(t *testing.T, name, text string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, perm); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func TestPower(t *testing.T) {
	battery := func(capacity, status string) map[string]string {
		return map[string]string{"type": "Battery", "present": "1", "capacity": capacity, "status": status}
	}
	mains := func(online string) map[string]string { return map[string]string{"type": "Mains", "online": online} }
	for what, c := range map[string]struct {
		supplies map[string]map[string]string
		want     preflight.Power
	}{
		"desktop":                    {nil, preflight.Power{}},
		"desktop with its plug":      {map[string]map[string]string{"AC": mains("0")}, preflight.Power{}},
		"laptop on mains":            {map[string]map[string]string{"AC": mains("1"), "BAT0": battery("3", "Charging")}, preflight.Power{}},
		"laptop, unplugged":          {map[string]map[string]string{"AC": mains("0"), "BAT0": battery("39", "Discharging")}, preflight.Power{OnBattery: true, Percent: 39}},
		"unplugged, status unknown":  {map[string]map[string]string{"AC": mains("0"), "BAT0": battery("39", "Unknown")}, preflight.Power{OnBattery: true, Percent: 39}},
		"two batteries":              {map[string]map[string]string{"AC": mains("0"), "BAT0": battery("100", "Full"), "BAT1": battery("20", "Discharging")}, preflight.Power{OnBattery: true, Percent: 60}},
		"by USB":                     {map[string]map[string]string{"AC": mains("0"), "C1": {"type": "USB", "online": "1"}, "BAT0": battery("20", "Charging")}, preflight.Power{}},
		"tablet":                     {map[string]map[string]string{"C1": {"type": "USB", "online": "0"}, "BAT0": battery("20", "Discharging")}, preflight.Power{OnBattery: true, Percent: 20}},
		"fed by a dock":              {map[string]map[string]string{"BAT0": battery("20", "Full")}, preflight.Power{}},
		"a mouse":                    {map[string]map[string]string{"hid": {"type": "Battery", "scope": "Device", "capacity": "1", "status": "Discharging"}}, preflight.Power{}},
		"an empty bay":               {map[string]map[string]string{"BAT1": {"type": "Battery", "present": "0"}}, preflight.Power{}},
		"does not say how full":      {map[string]map[string]string{"AC": mains("0"), "BAT0": battery("", "Discharging")}, preflight.Power{OnBattery: true}},
		"an UPS, which a hook knows": {map[string]map[string]string{"ups": {"type": "UPS", "capacity": "5", "status": "Discharging"}}, preflight.Power{}},
	} {
		dir := t.TempDir()
		for name, values := range c.supplies {
			for k, v := range values {
				write(t, filepath.Join(dir, name, k), v+"\n", 0o644)
			}
		}
		if got, err := preflight.LookPower(dir); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if got, err := preflight.LookPower(filepath.Join(t.TempDir(), "none")); err != nil || got.OnBattery {
		t.Errorf("no directory: %+v, %v", got, err)
	}
}

// holder starts a shell command that prints a line when it has its lock and keeps it until the test ends it.
func holder(t *testing.T, script string) (*exec.Cmd, func()) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			in.Close()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	if l, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%s: %q, %v", script, l, err)
	}
	return cmd, end
}

func needFlock(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("needs flock: apt-get install util-linux")
	}
}

// A lock is seen while somebody holds it, in whichever way, and no longer. That a file is open means nothing.
func TestHolders(t *testing.T) {
	needFlock(t)
	dir := t.TempDir()
	byCommand, byShell, open, free := filepath.Join(dir, "command"), filepath.Join(dir, "shell"), filepath.Join(dir, "open"), filepath.Join(dir, "free")
	posix := filepath.Join(dir, "posix")
	files := []string{byCommand, byShell, open, free, posix, filepath.Join(dir, "none")}
	for _, f := range files[:5] {
		write(t, f, "", 0o644)
	}
	_, end := holder(t, "exec flock "+byCommand+" sh -c 'echo held; cat'")
	// flock(1) is gone when the shell goes on: the process that took the lock does not live, the lock does.
	shell, endShell := holder(t, "exec 9<"+byShell+"; flock 9; echo held; read x")
	holder(t, "exec 9<"+open+"; echo open; read x")
	f, err := os.OpenFile(posix, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	held := func() map[string]preflight.Process {
		t.Helper()
		ps, err := preflight.Holders("/proc", files)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]preflight.Process{}
		for _, p := range ps {
			if age := time.Since(p.Since); age < -time.Minute || p.Name == "" {
				t.Errorf("%+v", p)
			}
			if _, ok := by[p.File]; !ok {
				by[p.File] = p
			}
		}
		return by
	}
	got := held()
	if len(got) != 3 || got[byShell].PID != shell.Process.Pid || got[posix].PID != os.Getpid() || got[byCommand].PID == 0 {
		t.Errorf("%+v", got)
	}
	end()
	endShell()
	if got := held(); len(got) != 1 || got[posix].PID == 0 {
		t.Errorf("still held: %+v", got)
	}
}

// The one-liners of the documentation, and what is left when their process is killed.
func TestApplicationLocks(t *testing.T) {
	needFlock(t)
	dir := t.TempDir()
	held := filepath.Join(dir, "held")
	_, end := holder(t, "exec flock "+held+" sh -c 'echo held; cat'")
	_, endLease := holder(t, `echo "@$(( $(date +%s) + 1200 )) pos-till:$$ card batch" > `+dir+`/lease; echo; read x`)
	write(t, filepath.Join(dir, "long"), fmt.Sprintf("%s till\n", time.Now().AddDate(50, 0, 0).Format(time.RFC3339)), 0o644)
	write(t, filepath.Join(dir, "huge"), strings.Repeat("x", 1<<20), 0o644)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	names := func() (string, []string, []preflight.Lock) {
		t.Helper()
		locks, notes, err := preflight.Locks(dir, "/proc", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, k := range locks {
			out = append(out, k.Name)
		}
		return strings.Join(out, " "), notes, locks
	}
	got, notes, locks := names()
	if got != "held lease long" || len(notes) != 3 {
		t.Errorf("%s; notes %q", got, notes)
	}
	for _, k := range locks {
		if k.Name == "lease" && (k.Who != "pos-till" || k.Why != "card batch" || k.PID == 0) {
			t.Errorf("%+v", k)
		}
		if k.Name == "long" && time.Until(k.Until) > preflight.MaxLease {
			t.Errorf("%+v holds for ever", k)
		}
	}
	end()
	endLease()
	if got, notes, _ = names(); got != "long" || len(notes) != 4 {
		t.Errorf("after the end of both: %s; notes %q", got, notes)
	}
}

// hooks is a directory of hooks with a runner.
func hooks(t *testing.T) preflight.Hooks {
	t.Helper()
	return preflight.Hooks{Dir: filepath.Join(t.TempDir(), "hooks.d"), Runner: tool.Runner{ID: "hooks-" + strings.ReplaceAll(t.Name(), "/", "-")}, Time: 20 * time.Second}
}

const sh = "#!/bin/sh\n"

func TestHooks(t *testing.T) {
	for what, c := range map[string]struct {
		files map[string]string
		want  string // in Detail; empty: yes
		retry time.Duration
	}{
		"no directory":    {nil, "", 0},
		"yes":             {map[string]string{"10-a": "exit 0", "20-b": "exit 0"}, "", 0},
		"not now":         {map[string]string{"10-a": "echo the store is open; echo retry-after: 600; exit 75"}, "hook 10-a: the store is open", 10 * time.Minute},
		"without a word":  {map[string]string{"10-a": "exit 75"}, "hook 10-a: not now", 5 * time.Minute},
		"the first no":    {map[string]string{"20-b": "echo b; exit 75", "10-a": "echo a; exit 75"}, "hook 10-a: a", 5 * time.Minute},
		"broken":          {map[string]string{"10-a": "echo oh; exit 3"}, "hook 10-a: it ended with status 3, which is neither yes (0) nor not now (75): oh", 5 * time.Minute},
		"killed":          {map[string]string{"10-a": "kill -9 $$"}, "hook 10-a: it ended by signal 9", 5 * time.Minute},
		"no interpreter":  {map[string]string{"10-a": "#!/nowhere"}, "hook 10-a: it cannot be run", time.Hour},
		"not by its name": {map[string]string{"10-a.sh": "exit 75", "b~": "exit 75", ".c": "exit 75", "d.dpkg-old": "exit 75"}, "", 0},
		"knows what for":  {map[string]string{"10-a": `test "$HOOK_PHASE $HOOK_BUNDLE $HOOK_VERSION" = "preflight pos 1.0"`}, "", 0},
	} {
		t.Run(what, func(t *testing.T) {
			h := hooks(t)
			for name, text := range c.files {
				if !strings.HasPrefix(text, "#!") {
					text = sh + text
				}
				write(t, filepath.Join(h.Dir, name), text+"\n", 0o755)
			}
			d, err := h.Ask(t.Context(), "pos", "1.0")
			switch {
			case err != nil:
				t.Error(err)
			case d == nil && c.want == "":
			case d == nil || c.want == "" || d.Reason != preflight.HookDeferred || !strings.Contains(d.Detail, c.want) || d.Retry != c.retry:
				t.Errorf("%+v", d)
			}
		})
	}
}

// What others could have written is not run, and does not let a patch through either.
func TestHooksOfOthers(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, dir, hook string){
		"the hook is for the group to write": func(t *testing.T, _, hook string) { os.Chmod(hook, 0o775) },
		"the hook is for all to write":       func(t *testing.T, _, hook string) { os.Chmod(hook, 0o757) },
		"the directory is for all to write":  func(t *testing.T, dir, _ string) { os.Chmod(dir, 0o777) },
		"the hook is a link": func(t *testing.T, _, hook string) {
			os.Rename(hook, hook+".real")
			os.Symlink(hook+".real", hook)
		},
		"the hook belongs to another": func(t *testing.T, _, hook string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root: run the tests as root")
			}
			os.Chown(hook, 65534, 65534)
		},
		"the directory belongs to another": func(t *testing.T, dir, _ string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root: run the tests as root")
			}
			os.Chown(dir, 65534, 65534)
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := hooks(t)
			hook, ran := filepath.Join(h.Dir, "10-a"), filepath.Join(t.TempDir(), "ran")
			write(t, hook, sh+"touch "+ran+"\n", 0o755)
			if d, err := h.Ask(t.Context(), "pos", "1"); d != nil || err != nil { // the positive control
				t.Fatalf("%+v, %v", d, err)
			}
			if err := os.Remove(ran); err != nil {
				t.Fatal(err)
			}
			spoil(t, h.Dir, hook)
			d, err := h.Ask(t.Context(), "pos", "1")
			if err != nil || d == nil || d.Reason != preflight.HookDeferred {
				t.Errorf("%+v, %v", d, err)
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("it was run")
			}
		})
	}
}

// A hook that hangs is killed with what it has started, and is a no.
func TestHookHangs(t *testing.T) {
	h := hooks(t)
	h.Time = 300 * time.Millisecond
	pid := filepath.Join(t.TempDir(), "pid")
	write(t, filepath.Join(h.Dir, "10-a"), sh+"setsid sleep 1000 & echo $! > "+pid+"; wait\n", 0o755)
	d, err := h.Ask(t.Context(), "pos", "1")
	if err != nil || d == nil || !strings.Contains(d.Detail, "hook 10-a: it did not end within 300ms") {
		t.Fatalf("%+v, %v", d, err)
	}
	var n int
	b, err := os.ReadFile(pid)
	if _, serr := fmt.Sscan(string(b), &n); err != nil || serr != nil {
		t.Fatalf("%q: %v, %v", b, err, serr)
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", n)); err == nil && len(env) > 0 {
		syscall.Kill(n, syscall.SIGKILL)
		t.Error("what it had started lives on")
	}
}

// Afterwards hooks are told, all of them, and what they answer changes nothing.
func TestHooksAreTold(t *testing.T) {
	h := hooks(t)
	told := filepath.Join(t.TempDir(), "told")
	for _, name := range []string{"10-a", "20-b"} {
		write(t, filepath.Join(h.Dir, name), sh+"echo $HOOK_PHASE >> "+told+"; exit 75\n", 0o755)
	}
	notes := h.Tell(t.Context(), preflight.Call{Phase: preflight.RolledBack, Bundle: "pos", Version: "1"})
	if b, err := os.ReadFile(told); err != nil || string(b) != "rolled-back\nrolled-back\n" || len(notes) != 2 {
		t.Errorf("%q, %v, %q", b, err, notes)
	}
}

// mount puts a file system of its own of so many bytes and inodes on a directory.
func mount(t *testing.T, dir string, size, inodes int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests as root")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", size, inodes)); err != nil {
		t.Skip("needs mounts: run the tests as root with CAP_SYS_ADMIN")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// bring builds a real package with files of given sizes.
func bring(t *testing.T, repo string, files map[string]int) packages.Package {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("needs dpkg-deb: apt-get install dpkg")
	}
	tree := t.TempDir()
	var total int64
	for name, size := range files {
		write(t, filepath.Join(tree, name), strings.Repeat("x", size), 0o644)
		total += int64(size)
	}
	write(t, filepath.Join(tree, "DEBIAN/control"), "Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: t\n", 0o644)
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, filepath.Join(repo, "demo.deb")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return packages.Package{Name: "demo", Arch: "all", Version: "1", File: "demo.deb", InstalledBytes: total}
}

// Bytes and inodes are counted on the file system they go to: packages are asked for their files where there are
// several, and sizes that they state are enough where there is one.
func TestDisk(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	root, repo, work := filepath.Join(dir, "root"), filepath.Join(dir, "repo"), filepath.Join(dir, "work")
	mount(t, root, 512*mib, 1e5)
	for _, d := range []string{"usr/share", "etc", "var/lib/dpkg", "boot", "opt"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{repo, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pkg := bring(t, repo, map[string]int{"usr/share/demo/a": 3 * mib, "usr/share/demo/b": 1, "boot/image": 2 * mib, "opt/till/new/data": 5 * mib})
	disk := preflight.Disk{Root: root, Format: manifest.FormatDeb, Repo: repo, Work: work, Bring: []packages.Package{pkg}, Runner: tool.Runner{ID: "disk"}}
	look := func() map[string]preflight.Space {
		t.Helper()
		all, err := disk.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]preflight.Space{}
		for _, s := range all {
			out[strings.TrimPrefix(s.Path, root)] = s
		}
		return out
	}
	one := look()
	base := one[""].Need - pkg.InstalledBytes - pkg.InstalledBytes/16
	if base < 0 || base > 200*mib {
		t.Errorf("%+v", one)
	}
	mount(t, filepath.Join(root, "boot"), 64*mib, 1000)
	mount(t, filepath.Join(root, "opt"), 32*mib, 1000)
	several := look()
	for at, want := range map[string]int64{"": base + 3*mib + 4096, "/boot": 2 * mib, "/opt": 5 * mib} {
		s := several[at]
		if slack := s.Need - want; slack < 0 || slack > 100<<10 || s.Files < 0 || s.NeedFiles < 1 { // the directories are files too
			t.Errorf("%q: %+v, want about %d bytes", at, s, want)
		}
	}
	if d := preflight.Decide(preflight.Facts{Space: spaces(several)}, preflight.DefaultLimits()); d != nil {
		t.Errorf("it fits: %+v", d)
	}
	write(t, filepath.Join(root, "opt/full"), strings.Repeat("x", 28*mib), 0o644)
	d := preflight.Decide(preflight.Facts{Space: spaces(look())}, preflight.DefaultLimits())
	if d == nil || d.Reason != preflight.LowDisk || !strings.Contains(d.Detail, root+"/opt needs 5.") {
		t.Errorf("full: %+v", d)
	}
	if err := os.Remove(filepath.Join(root, "opt/full")); err != nil {
		t.Fatal(err)
	}
	disk.Reserve = 64 * mib // of a small file system a sixteenth
	if got := look()["/opt"].Need - several["/opt"].Need; got != 2*mib {
		t.Errorf("reserve of %d", got)
	}
	disk.Extra = []preflight.Need{{Dir: filepath.Join(root, "opt", "snapshots"), Bytes: 100 * mib}}
	if got := look()["/opt"]; got.Need <= got.Free {
		t.Errorf("%+v", got)
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(root, "boot", fmt.Sprint(i)), nil, 0o644); err != nil {
			break
		}
	}
	disk.Extra = nil
	d = preflight.Decide(preflight.Facts{Space: spaces(look())}, preflight.DefaultLimits())
	if d == nil || !strings.Contains(d.Detail, "inodes") {
		t.Errorf("no inodes left: %+v", d)
	}
}

func spaces(m map[string]preflight.Space) (out []preflight.Space) {
	for _, s := range m {
		out = append(out, s)
	}
	return out
}

// A kernel needs room for what its scripts make, which no package lists.
func TestDiskForKernels(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "boot/initrd.img-1"), strings.Repeat("x", 3<<20), 0o644)
	need := func(name string) int64 {
		s, err := preflight.Disk{Root: root, Work: root, Bring: []packages.Package{{Name: name, Arch: "amd64"}}}.Look(t.Context())
		if err != nil || len(s) != 1 {
			t.Fatalf("%+v, %v", s, err)
		}
		return s[0].Need
	}
	if more := need("linux-image-6.1.0-9-amd64") - need("bash"); more != 3<<20 {
		t.Errorf("%d bytes more", more)
	}
}

// Look puts together what is there.
func TestLook(t *testing.T) {
	p := preflight.DefaultPlaces(t.TempDir())
	p.Power, p.Locks = t.TempDir(), t.TempDir()
	f, notes, err := p.Look(time.Now())
	if err != nil || len(notes) != 0 || preflight.Decide(f, preflight.DefaultLimits()) != nil {
		t.Errorf("%+v, %q, %v", f, notes, err)
	}
	lock := p.Managers[0]
	write(t, lock, "", 0o644)
	file, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if f, _, err = p.Look(time.Now()); err != nil || len(f.Managers) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// A lock of a package manager that may be read by everybody is one that everybody can take, with flock(2). Whoever is
// neither root nor its owner keeps nobody from patches by that, nor from the way back; an application's lock is for
// everybody.
func TestLockOfAStranger(t *testing.T) {
	needFlock(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests as root")
	}
	root, err := os.MkdirTemp("", "lock") // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(root, "var/lib/rpm/.rpm.lock")
	write(t, lock, "", 0o644)
	const nobody = 65534
	cmd := exec.Command("flock", "-x", lock, "sh", "-c", "echo held; read _")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if l, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", l, err)
	}
	if all, err := preflight.Holders("/proc", []string{lock}); err != nil || len(all) == 0 {
		t.Fatalf("the stranger does not hold it: %v, %v", all, err) // the control
	}
	f, _, err := preflight.DefaultPlaces(root).Look(time.Now())
	if err != nil || len(f.Managers) > 0 {
		t.Errorf("taken for a package manager: %v, %v", f.Managers, err)
	}
}
