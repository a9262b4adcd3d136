package snapshot_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/snapshot"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
)

// A whole Debian is damaged and put back by each provider; the log says what it took. The tar file is one that
// "mmdebstrap --variant=apt bookworm FILE" makes.
func TestRealRoot(t *testing.T) {
	treetest.Need(t, programs)
	tar := os.Getenv("PATCHMESH_ROOT_TAR")
	if tar == "" {
		t.Skip("needs a root file system in PATCHMESH_ROOT_TAR: make install-test")
	}
	for _, c := range []struct {
		kind, size string
		provider   func(root string) snapshot.Provider
	}{
		{"ext4", "1g", func(root string) snapshot.Provider {
			return &snapshot.Copy{Dir: root + "/state/snapshots", Now: time.Now}
		}},
		{"xfs", "1g", func(root string) snapshot.Provider {
			return &snapshot.Copy{Dir: root + "/state/snapshots", Now: time.Now}
		}},
		{"btrfs", "1g", func(root string) snapshot.Provider {
			return &snapshot.Copy{Dir: root + "/state/snapshots", Now: time.Now}
		}},
		{"btrfs", "1g", func(root string) snapshot.Provider {
			return &snapshot.Btrfs{Dir: root + "/state/snapshots", Now: time.Now}
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			d := treetest.NewDisk(t, c.kind, c.size)
			if out, err := exec.Command("tar", "-C", d.Mount, "-xpf", tar).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			b := newBench(t, d.Mount, c.provider(d.Mount))
			time.Sleep(3 * time.Second) // a real machine was not unpacked a moment ago: its ctimes count
			b.usable(t)
			before := b.manifest(t)
			took := func(what string, f func()) {
				t.Helper()
				free, begun := d.Free(t), time.Now()
				f()
				seconds := time.Since(begun).Seconds()
				t.Logf("%s %s: %s took %.2f s, %d KiB of the disk", c.kind, b.Name(), what, seconds, (free-d.Free(t))>>10)
			}
			took("take", func() { b.take(t, "one") })
			took("restore of nothing", func() { b.restore(t, "one") })
			b.Damage(100)
			if err := os.RemoveAll(filepath.Join(d.Mount, "usr/share")); err != nil {
				t.Fatal(err)
			}
			if cmp.Equal(before, b.manifest(t)) {
				t.Fatal("nothing was damaged")
			}
			took("restore", func() { b.restore(t, "one") })
			if diff := cmp.Diff(before, b.manifest(t)); diff != "" {
				t.Errorf("it is not what it was:\n%.2000s", diff)
			}
		})
	}
}
