package snapshot_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/snapshot"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
)

const swapBytes = 8 << 20

// swapFile makes a file that can be swapped to and returns what switches it on.
func swapFile(t *testing.T, name string) (on func()) {
	t.Helper()
	treetest.Need(t, map[string]string{"mkswap": "util-linux", "swapon": "mount"})
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = exec.Command("chattr", "+C", name).Run() // btrfs swaps to no file that it copies on write; others know no such flag
	for range swapBytes >> 16 {
		if _, err := f.Write(make([]byte, 1<<16)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if out, err := exec.Command("mkswap", name).CombinedOutput(); err != nil {
			t.Fatalf("mkswap: %v %s", err, out)
		}
		if out, err := exec.Command("swapon", "--priority", "0", name).CombinedOutput(); err != nil {
			t.Skip("needs the right to swap: run as root outside of a restricted container (" + strings.TrimSpace(string(out)) + ")")
		}
		t.Cleanup(func() {
			if out, err := exec.Command("swapoff", name).CombinedOutput(); err != nil {
				t.Errorf("swapoff: %v %s", err, out)
			}
		})
	}
}

// A file that the kernel swaps to is memory, not state: it is not copied, asks for no room, and one that was switched on
// since does not stop the way back, although the kernel lets nobody replace it.
func TestCopySwap(t *testing.T) {
	disk := treetest.NewDisk(t, "ext4", "64m")
	b := newBench(t, disk.Mount, &snapshot.Copy{Dir: filepath.Join(disk.Mount, "state/snapshots"), Now: later})
	b.prune = append(b.prune, "swap", "late", "lost+found")
	b.Fill(20)
	swapFile(t, filepath.Join(disk.Mount, "swap"))()
	late := swapFile(t, filepath.Join(disk.Mount, "late"))
	first := b.manifest(t)
	free := disk.Free(t)
	if err := b.Usable(t.Context(), b.scope, free-swapBytes*7/4); err != nil {
		t.Errorf("room is asked for what is not copied: %v", err)
	}
	if k := b.take(t, "one"); k.Bytes >= 2*swapBytes {
		t.Errorf("%d bytes were copied, with %d of swap", k.Bytes, swapBytes)
	}
	late()
	b.Damage(10)
	b.restore(t, "one")
	if diff := cmp.Diff(first, b.manifest(t)); diff != "" {
		t.Error(diff)
	}
}

// The kernel takes no snapshot of a subvolume with such a file, so that is known before.
func TestBtrfsSwap(t *testing.T) {
	disk := treetest.NewDisk(t, "btrfs", "200m")
	b := newBench(t, disk.Mount, &snapshot.Btrfs{Dir: filepath.Join(disk.Mount, "state"), Now: later})
	on := swapFile(t, filepath.Join(disk.Mount, "swap"))
	b.usable(t)
	on()
	if err := b.Usable(t.Context(), b.scope, 0); !errors.Is(err, snapshot.ErrUnusable) || !strings.Contains(err.Error(), filepath.Join(disk.Mount, "swap")) {
		t.Errorf("%v", err)
	}
	if _, err := b.Take(t.Context(), b.scope, "one"); err == nil {
		t.Error("the kernel takes one: nothing need be asked before")
	}
}
