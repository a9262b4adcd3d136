package tree_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
	"github.com/patchmesh/patchmesh/internal/durable/crashtest"
)

// fill writes a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// A disk that the transaction filled is put back: at first by taking away what was not there, and where what fills it
// does not belong to the snapshot, by giving up each file before its successor is written.
func TestRestoreFullDisk(t *testing.T) {
	treetest.Need(t, programs)
	for where, exclude := range map[string][]string{"machine/filler": nil, "machine/home/filler": {"/home"}} {
		t.Run(strings.ReplaceAll(where, "/", " "), func(t *testing.T) {
			d := treetest.NewDisk(t, "ext4", "64m")
			s := set{t, d.Mount}
			s.before()
			s.do(os.Mkdir(s.p("home"), 0o755))
			large := strings.Repeat("old", 5<<20)
			s.file("lib/large", large, 0o644)
			s.file("lib/larger", large+"old", 0o644)
			kept := filepath.Join(t.TempDir(), "kept") // on another disk, so that blocks are not shared
			o := tree.Options{Exclude: exclude}
			if _, err := tree.Copy(t.Context(), s.p(""), kept, o); err != nil {
				t.Fatal(err)
			}
			want := digest(t, s.p(""), o)
			s.after()
			s.do(os.Mkdir(s.p("home"), 0o755))
			s.file("lib/large", strings.Repeat("new", 5<<20), 0o644)
			s.file("lib/larger", strings.Repeat("new", 5<<20+1), 0o644)
			fill(t, filepath.Join(d.Mount, where))
			o.Proof = tree.Recorded
			stats, err := tree.Restore(t.Context(), kept, s.p(""), o)
			if err != nil {
				t.Fatalf("%+v, %v", stats, err)
			}
			if got := digest(t, s.p(""), tree.Options{Exclude: exclude}); got != want {
				t.Errorf("%+v: %q", stats, differences(t, kept, s.p(""), o))
			}
			if stats.Bytes < int64(len(large)) {
				t.Errorf("%+v: nothing large was written", stats)
			}
		})
	}
}

// copyImage copies what is in the file now: what no flush has pushed into it is lost, as it is when the power goes.
func copyImage(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	// A new file: the old one may still be mounted in a namespace that another process made meanwhile.
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// power is a machine on a disk of its own, kept and damaged, and the image of that.
type power struct {
	set
	disk              *treetest.Disk
	kept, want, image string
}

// newPower makes a machine; with a copy, it is damaged after it.
func newPower(t *testing.T, copied bool) *power {
	t.Helper()
	d := treetest.NewDisk(t, "ext4", "12m") // small: it is copied often
	p := &power{set: set{t, d.Mount}, disk: d, kept: filepath.Join(d.Mount, "kept"), image: d.Image + ".template"}
	p.before()
	p.want = digest(t, p.p(""), tree.Options{})
	if copied {
		if _, err := tree.Copy(t.Context(), p.p(""), p.kept, tree.Options{}); err != nil {
			t.Fatal(err)
		}
		p.after()
	}
	d.Sync(t)
	copyImage(t, d.Image, p.image)
	return p
}

// on mounts the machine as it was.
func (p *power) on(what string) string {
	p.disk.Remount(p.t, p.disk.Image) // away from the one that is written over
	copyImage(p.t, p.image, p.disk.Image+".work")
	p.disk.Remount(p.t, p.disk.Image+".work")
	return what + " " + p.dir
}

// cut is the loss of power, and the start after it.
func (p *power) cut() {
	copyImage(p.t, p.disk.Image+".work", p.disk.Image+".cut")
	p.disk.Remount(p.t, p.disk.Image+".cut")
}

func powerFaults() (calls, kinds []string) {
	if os.Getenv("PATCHMESH_LONG") != "" {
		return append([]string{"openat", "close"}, changing...), []string{"signal=KILL"}
	}
	return []string{"renameat", "renameat2", "syncfs"}, []string{"signal=KILL"}
}

func TestRestorePowerLoss(t *testing.T) {
	treetest.Need(t, nil)
	p := newPower(t, true)
	calls, kinds := powerFaults()
	cuts := crashtest.Each(t, calls, kinds, func() string { return p.on("restore") }, func(o crashtest.Outcome) {
		p.cut()
		if err := p.alive(); err != nil {
			t.Errorf("%s: %v", o.Fault, err)
		}
		if _, err := tree.Restore(t.Context(), p.kept, p.p(""), recorded(time.Time{})); err != nil {
			t.Errorf("%s: again: %v", o.Fault, err)
		}
		if got := digest(t, p.p(""), tree.Options{}); got != p.want {
			t.Errorf("%s: in the end it differs: %q", o.Fault, differences(t, p.kept, p.p(""), recorded(time.Time{})))
		}
	})
	p.told("restore")
	if got := digest(t, p.p(""), tree.Options{}); got != p.want {
		t.Error("said to be done, and the power took it back")
	}
	t.Logf("%d cuts under way, one after the end", cuts)
}

func TestCopyPowerLoss(t *testing.T) {
	treetest.Need(t, nil)
	p := newPower(t, false)
	calls, kinds := powerFaults()
	cuts := crashtest.Each(t, calls, kinds, func() string { return p.on("copy") }, func(o crashtest.Outcome) {
		p.cut()
		if _, err := os.Lstat(p.kept); err == nil {
			if got := digest(t, p.kept, recorded(time.Time{})); got != p.want {
				t.Errorf("%s: the copy is there and not whole", o.Fault)
			}
		}
	})
	p.told("copy")
	if got := digest(t, p.kept, recorded(time.Time{})); got != p.want {
		t.Error("said to be done, and the power took it back")
	}
	t.Logf("%d cuts under way, one after the end", cuts)
}

// told runs the child to its end, with what strace is to inject, and cuts the power at once.
func (p *power) told(what string, inject ...string) {
	p.t.Helper()
	args := []string{"-f", "-qq", "-o", os.DevNull}
	for _, i := range inject {
		args = append(args, "-e", "inject="+i)
	}
	cmd := exec.Command("strace", append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), "PATCHMESH_CRASHTEST_CHILD="+p.on(what))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "done") {
		p.t.Fatalf("%v %s", err, out)
	}
	p.cut()
}

// The positive control: with flushes that do nothing, what was said to be done is not there.
func TestPowerLossIsNoticed(t *testing.T) {
	treetest.Need(t, nil)
	for what, copied := range map[string]bool{"restore": true, "copy": false} {
		p := newPower(t, copied)
		p.told(what, "fsync:retval=0", "syncfs:retval=0", "sync_file_range:retval=0")
		if what == "restore" && digest(t, p.p(""), tree.Options{}) == p.want {
			t.Error("restore: flushes that do nothing make no difference")
		}
		if _, err := os.Lstat(p.kept); what == "copy" && err == nil && digest(t, p.kept, recorded(time.Time{})) == p.want {
			t.Error("copy: flushes that do nothing make no difference")
		}
	}
}

// overlayfs exchanges and renames no directory of its lower layer.
func TestRestoreOverlay(t *testing.T) {
	treetest.Need(t, programs)
	disk := filepath.Join(t.TempDir(), "disk")
	treetest.NewMount(t, "tmpfs", disk, "")
	s := set{t, disk}
	s.before()
	want := digest(t, s.p(""), tree.Options{})
	kept := filepath.Join(disk, "kept")
	if _, err := tree.Copy(t.Context(), s.p(""), kept, tree.Options{}); err != nil {
		t.Fatal(err)
	}
	s.after()
	s.do(os.Rename(s.p(""), filepath.Join(disk, "lower")), os.Mkdir(filepath.Join(disk, "upper"), 0o755), os.Mkdir(filepath.Join(disk, "work"), 0o755))
	treetest.NewMount(t, "overlay", s.p(""), "lowerdir="+disk+"/lower,upperdir="+disk+"/upper,workdir="+disk+"/work")
	if _, err := tree.Restore(t.Context(), kept, s.p(""), recorded(time.Time{})); err != nil {
		t.Fatal(err)
	}
	if got := digest(t, s.p(""), tree.Options{}); got != want {
		t.Errorf("%q", differences(t, kept, s.p(""), recorded(time.Time{})))
	}
}
