package treetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a file system in a file, mounted.
type Disk struct {
	Image, Mount string
	options      string
}

// NewDisk makes a file system of a kind (btrfs, ext4, xfs) and size ("300m") in a file and mounts it.
func NewDisk(t testing.TB, kind, size string) *Disk {
	t.Helper()
	Need(t, map[string]string{"mkfs." + kind: map[string]string{"btrfs": "btrfs-progs", "ext4": "e2fsprogs", "xfs": "xfsprogs"}[kind]})
	dir := t.TempDir()
	d := &Disk{filepath.Join(dir, "image"), filepath.Join(dir, "mnt"), "loop"}
	args := map[string][]string{"btrfs": {"-q", "-m", "single"}, "ext4": {"-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0"}, "xfs": {"-q", "-m", "reflink=1"}}[kind]
	if kind == "ext4" {
		d.options = "loop,commit=300" // so that nothing is flushed that nobody flushes
	}
	for _, c := range [][]string{{"truncate", "-s", size, d.Image}, append(append([]string{"mkfs." + kind}, args...), d.Image)} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v %s", c, err, out)
		}
	}
	if err := os.Mkdir(d.Mount, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", d.options, d.Image, d.Mount).CombinedOutput(); err != nil {
		t.Skip("needs loop devices: run as root outside of a restricted container (" + strings.TrimSpace(string(out)) + ")")
	}
	t.Cleanup(func() { d.Unmount(t) })
	return d
}

// Unmount takes the file system away.
func (d *Disk) Unmount(t testing.TB) {
	t.Helper()
	if err := unix.Unmount(d.Mount, 0); err != nil {
		t.Errorf("unmount %s: %v", d.Mount, err)
	}
}

// Remount mounts another image in the place of this one, which need not be flushed: that is what a power cut leaves.
func (d *Disk) Remount(t testing.TB, image string) {
	t.Helper()
	d.Unmount(t)
	if out, err := exec.Command("mount", "-o", d.options, image, d.Mount).CombinedOutput(); err != nil {
		t.Fatalf("mount %s: %v %s", image, err, out)
	}
}

// NewMount mounts a file system that needs no disk.
func NewMount(t testing.TB, kind, point, data string) {
	t.Helper()
	Need(t, nil)
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(kind, point, kind, 0, data); err != nil {
		t.Skip("needs the right to mount " + kind + ": run as root outside of a restricted container (" + err.Error() + ")")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Errorf("unmount %s: %v", point, err)
		}
	})
}

// Free is the space that is left, flushed, in bytes.
func (d *Disk) Free(t testing.TB) int64 {
	t.Helper()
	d.Sync(t)
	var st unix.Statfs_t
	if err := unix.Statfs(d.Mount, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * int64(st.Bsize) //nolint:unconvert // other types on other platforms
}

// Sync flushes it, and no other.
func (d *Disk) Sync(t testing.TB) {
	t.Helper()
	f, err := os.Open(d.Mount)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}
