package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
)

// The power cut: root and state lie on an ext4 in a file. The worker is killed at a call, or has ended, and at once
// the file is copied: what no flush has pushed into it is lost, as it is when the power goes. Then the copy is mounted
// in the place of the original, which replays the file system's journal, and the oracle looks at it.

// disk is a file system in a file, mounted where the bench works.
type disk struct {
	image, mount string
}

func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs the right to mount: run as root")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4: apt-get install e2fsprogs")
	}
	dir := t.TempDir()
	d := &disk{filepath.Join(dir, "image"), filepath.Join(dir, "mnt")}
	if err := os.Mkdir(d.mount, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-J", "size=4", d.image, size).CombinedOutput(); err != nil { // small: it is copied often
		t.Fatalf("%v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,commit=300", d.image, d.mount).CombinedOutput(); err != nil {
		t.Skip("needs loop devices: run as root outside of a restricted container (" + strings.TrimSpace(string(out)) + ")")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.mount, 0); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *disk) remount(t *testing.T, image string) {
	t.Helper()
	d.off(t)
	d.on(t, image)
}

// off unmounts it. A process that was just killed may hold it for an instant longer.
func (d *disk) off(t *testing.T) {
	t.Helper()
	err := unix.Unmount(d.mount, 0)
	for tick := time.NewTicker(10 * time.Millisecond); errors.Is(err, unix.EBUSY); <-tick.C {
		if err = unix.Unmount(d.mount, 0); t.Context().Err() != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (d *disk) on(t *testing.T, image string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop,commit=300", image, d.mount).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// copyFile copies what is in the file now; holes stay holes.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// powerCuts cuts the power at each of the given injections and returns what the oracle says.
func powerCuts(t *testing.T, points func(log string) []string, always ...string) (cuts int, wrong []string) {
	t.Helper()
	d := newDisk(t, "12m")
	s := upgradeOn(t, yes, func(c *install.Config) { c.Root, c.State = d.mount+"/root", d.mount+"/state" })
	// The machine as it is before: flushed, and kept aside.
	unix.Sync()
	template, cut := d.image+".template", d.image+".cut"
	d.off(t)
	copyFile(t, d.image, template)
	d.on(t, d.image)
	_, _, log := s.run(t, "fsync,renameat,symlinkat", "")
	for _, point := range points(log) {
		work := d.image + ".work"
		copyFile(t, template, work)
		d.remount(t, work)
		inject := append([]string{point}, always...)
		exit, result, _ := s.run(t, "fsync,renameat,symlinkat", strings.Join(inject, "\n"))
		copyFile(t, work, cut)
		d.remount(t, cut)
		cuts++
		for _, w := range s.judge(t, exit, result) {
			wrong = append(wrong, point+": "+w)
		}
	}
	return cuts, wrong
}

func TestCrashPowerCut(t *testing.T) {
	needStrace(t)
	cuts, wrong := powerCuts(t, func(log string) []string {
		points := []string{"symlinkat:signal=KILL:when=1000"} // never: the power goes just after the end
		for _, call := range []string{"fsync", "renameat", "symlinkat"} {
			n := count(log, call)
			step := 1
			if os.Getenv("PATCHMESH_LONG") == "" {
				step = max(1, n/5)
			}
			for k := 1; k <= n; k += step {
				points = append(points, fmt.Sprintf("%s:signal=KILL:when=%d", call, k))
			}
		}
		return points
	})
	for _, w := range wrong {
		t.Error(w)
	}
	t.Logf("%d power cuts, %d wrong states", cuts, len(wrong))
}

// The positive control: with flushes that do nothing the oracle finds releases that are not whole, or an install that
// was reported and is not there.
func TestCrashPowerCutIsNoticed(t *testing.T) {
	needStrace(t)
	_, wrong := powerCuts(t, func(string) []string { return []string{"symlinkat:signal=KILL:when=1000"} }, "fsync:retval=0")
	if len(wrong) == 0 {
		t.Error("flushes that do nothing make no difference: the power cut loses nothing and proves nothing")
	}
}
