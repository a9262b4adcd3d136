package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable/crashtest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func TestMain(m *testing.M) { crashtest.Main(m, child) }

// child uses a store and says what it was told is done. Its argument is the directory and what to do.
func child(arg string) error {
	dir, what, _ := strings.Cut(arg, "|")
	switch what {
	case "work":
		return work(dir)
	default:
		return fillForEver(dir, what == "synced")
	}
}

// work pins, puts, syncs, unpins and evicts, as a node does with one bundle after another.
func work(dir string) error {
	s, err := Open(dir, Options{SyncBytes: 2500})
	if err != nil {
		return err
	}
	say := func(format string, a ...any) { os.Stdout.WriteString(fmt.Sprintf(format, a...) + "\n") }
	var ids []chunk.ID
	for n := range 4 {
		ids = append(ids, chunk.Sum(plain(n, 1000)))
	}
	if err := s.Pin("new", ids); err != nil {
		return err
	}
	say("pinned")
	for n, id := range ids {
		if _, err := s.Put(id, plain(n, 1000)); err != nil {
			return err
		}
		say("put %s", id)
	}
	if err := s.Unpin("old"); err != nil {
		return err
	}
	if _, _, err := s.GC(context.Background()); err != nil {
		return err
	}
	say("collected")
	return s.Close()
}

// Killed or refused at any system call, the store opens again, is clean, and holds and pins what it said it does.
func TestStoreAtEveryCall(t *testing.T) {
	if testing.Short() {
		t.Skip("needs time: run without -short")
	}
	template := t.TempDir()
	before := open(t, template, Options{})
	old := fill(t, before, 100, 3) // of the bundle before
	pin(t, before, "old", old[1:]...)
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	var dir string
	prepare := func() string {
		dir = t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
		return dir + "|work"
	}
	check := func(o crashtest.Outcome) {
		s, err := Open(dir, Options{})
		if err != nil {
			t.Errorf("%s: %v", o.Fault, err)
			return
		}
		defer s.Close()
		for line := range strings.Lines(o.Stdout) {
			if cid, ok := strings.CutPrefix(strings.TrimSpace(line), "put "); ok {
				id, err := chunk.Parse(cid)
				if err != nil {
					t.Fatal(err)
				}
				// An fsync that fails takes the chunk back, and says so.
				if _, err := s.Get(id, nil); err != nil && (o.Call != "fsync" || o.Exit != 3) {
					t.Errorf("%s: a chunk that was put: %v", o.Fault, err)
				}
			}
		}
		if strings.Contains(o.Stdout, "pinned") && !slices.Contains(s.Owners(), "new") {
			t.Errorf("%s: the pins are gone", o.Fault)
		}
		if slices.Contains(s.Owners(), "old") && len(which(s, old[1:])) != 2 {
			t.Errorf("%s: a pinned chunk is gone", o.Fault)
		}
		if r, err := s.Fsck(context.Background(), false, nil); err != nil || !r.Clean() {
			t.Errorf("%s: %+v, %v", o.Fault, r, err)
		}
	}
	runs := crashtest.Each(t, []string{"openat", "mkdirat", "write", "fsync", "renameat", "unlinkat", "close"},
		[]string{"signal=KILL", "error=EIO"}, prepare, check)
	runs += crashtest.Each(t, []string{"mkdirat", "write"}, []string{"error=ENOSPC"}, prepare, check)
	t.Logf("%d runs with a fault", runs)
	if runs < 100 {
		t.Errorf("only %d runs", runs)
	}
}

// fillForEver puts chunks, and says which are durable; with sync false it lies.
func fillForEver(dir string, sync bool) error {
	s, err := Open(dir, Options{SyncBytes: 1 << 40})
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		var say bytes.Buffer
		for k := range 4 {
			b := plain(4*n+k, 20_000)
			id := chunk.Sum(b)
			if _, err := s.Put(id, b); err != nil {
				return err
			}
			fmt.Fprintln(&say, id)
		}
		if sync {
			if err := s.Sync(); err != nil {
				return err
			}
		}
		os.Stdout.Write(say.Bytes())
	}
}

// TestPowerLoss copies the file system under a store that is being filled, as a loss of power would leave it, and
// looks at the copy. Every chunk that was synced must be there; of the others whatever is torn must be noticed.
func TestPowerLoss(t *testing.T) {
	for _, c := range []struct {
		name string
		sync bool
	}{{"synced", true}, {"control without sync", false}} {
		t.Run(c.name, func(t *testing.T) {
			var said, lost, torn int
			for round := range 4 {
				s, l, d := powerLoss(t, c.name, 20+37*round)
				said, lost, torn = said+s, lost+l, torn+d
			}
			t.Logf("%d chunks said to be durable, %d of them lost, %d torn ones noticed", said, lost, torn)
			if said == 0 {
				t.Error("nothing was put")
			}
			if c.sync && lost > 0 {
				t.Errorf("%d synced chunks are lost", lost)
			}
			if !c.sync && lost == 0 {
				t.Error("the harness does not see what was never synced")
			}
		})
	}
}

// powerLoss cuts the power when that many chunks were said to be durable.
func powerLoss(t *testing.T, what string, after int) (said, lost, torn int) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4: apt-get install e2fsprogs")
	}
	dir := t.TempDir()
	disk, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	os.Mkdir(mnt, 0o755)
	if err := os.WriteFile(disk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	os.Truncate(disk, 256<<20)
	if out, err := exec.Command("mkfs.ext4", "-q", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	umount := mount(t, disk, mnt)

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PATCHMESH_CRASHTEST_CHILD="+mnt+"/store|"+what)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []chunk.ID
	lines := bufio.NewScanner(stdout)
	hear := func() bool {
		if !lines.Scan() {
			return false
		}
		if id, err := chunk.Parse(lines.Text()); err == nil { // the last line may be cut
			ids = append(ids, id)
		}
		return true
	}
	for len(ids) < after && hear() {
	}
	cmd.Process.Signal(syscall.SIGSTOP)
	waitStopped(t, cmd.Process.Pid)
	cut := filepath.Join(dir, "cut")
	out, err := exec.Command("cp", "--sparse=always", disk, cut).CombinedOutput()
	cmd.Process.Kill()
	for hear() { // what it said before it was stopped counts
	}
	cmd.Wait()
	umount()
	if err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}

	umount = mount(t, cut, mnt)
	defer umount()
	damaged := 0
	s, err := Open(filepath.Join(mnt, "store"), Options{OnDamage: func(chunk.ID) { damaged++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, id := range ids {
		if _, err := s.Get(id, nil); err != nil {
			lost++
		}
	}
	if _, err := s.Fsck(context.Background(), true, nil); err != nil {
		t.Error(err)
	}
	if r, err := s.Fsck(context.Background(), false, nil); err != nil || !r.Clean() {
		t.Errorf("after the repair: %+v, %v", r, err)
	}
	return len(ids), lost, damaged
}

func mount(t *testing.T, disk, mnt string) (umount func()) {
	t.Helper()
	out, err := exec.Command("mount", "-o", "loop", disk, mnt).CombinedOutput()
	if err != nil {
		t.Skip("needs root and loop devices: run as root on a kernel with loop mounts (" + string(bytes.TrimSpace(out)) + ")")
	}
	done := false
	umount = func() {
		if !done {
			done = true
			if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
				t.Errorf("umount: %v", err)
			}
		}
	}
	t.Cleanup(umount)
	return umount
}

// waitStopped returns when every thread of a process has stopped.
func waitStopped(t *testing.T, pid int) {
	t.Helper()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatalf("the child did not stop: %v %v", ws, err)
	}
}

// A full disk refuses a chunk with a code, leaves nothing behind, and lets the work go on when there is space.
func TestDiskFull(t *testing.T) {
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("needs root: it mounts a small tmpfs, run as root")
	}
	t.Cleanup(func() { unix.Unmount(mnt, unix.MNT_DETACH) })
	s := open(t, filepath.Join(mnt, "store"), Options{})
	var ids []chunk.ID
	var err error
	for n := 0; err == nil && n < 100; n++ {
		b := plain(n, 100_000)
		ids = append(ids, chunk.Sum(b))
		_, err = s.Put(ids[n], b)
	}
	if problem.CodeOf(err) != problem.DiskFull {
		t.Fatalf("after %d chunks: %v", len(ids), err)
	}
	n := len(ids) - 1
	if st := s.Stats(); st.Chunks != n || st.Bytes != int64(n)*100_000 || len(strays(mnt)) != 0 {
		t.Errorf("%+v, left behind %v", st, strays(mnt))
	}
	if r, err := s.Fsck(context.Background(), false, nil); err != nil || !r.Clean() {
		t.Errorf("%+v, %v", r, err)
	}
	var stat unix.Statfs_t
	unix.Statfs(mnt, &stat)
	os.WriteFile(filepath.Join(mnt, "rest"), make([]byte, int64(stat.Bfree)*stat.Bsize), 0o644) // not a byte is left
	if err := s.Pin("x", ids); problem.CodeOf(err) != problem.DiskFull {
		t.Errorf("Pin: %v", err)
	}
	if len(s.Owners()) != 0 {
		t.Error("pins that are not on disk are in force")
	}
	os.Remove(filepath.Join(mnt, "rest"))
	if _, _, err := s.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	put(t, s, plain(n, 100_000))
}
