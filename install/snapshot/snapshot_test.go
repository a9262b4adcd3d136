package snapshot_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/snapshot"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
)

var programs = map[string]string{"getfattr": "attr", "lsattr": "e2fsprogs"}

// bench is a machine with a provider.
type bench struct {
	snapshot.Provider
	*treetest.Maker
	scope snapshot.Scope
	prune []string // of the manifest: what is not covered
}

func later() time.Time { return time.Now().Add(time.Hour) } // so that every ctime before counts

func newBench(t *testing.T, root string, p snapshot.Provider) *bench {
	t.Helper()
	b := &bench{Provider: p, Maker: treetest.New(t, filepath.Join(root, "usr"), 3), scope: snapshot.Scope{Root: root, Exclude: []string{"/state", "/home"}}}
	b.prune = []string{"state", "home", ".mesh-install"}
	for _, d := range []string{"state", "home", "usr"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) manifest(t *testing.T) []string {
	t.Helper()
	return strings.Split(treetest.Manifest(t, b.scope.Root, b.prune...), "\n")
}

func (b *bench) usable(t *testing.T) {
	t.Helper()
	if err := b.Usable(t.Context(), b.scope, 1<<20); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) take(t *testing.T, id string) snapshot.Snapshot {
	t.Helper()
	k, err := b.Take(t.Context(), b.scope, id)
	if err != nil || k.ID != id {
		t.Fatalf("%+v, %v", k, err)
	}
	return k
}

func (b *bench) restore(t *testing.T, id string) {
	t.Helper()
	if err := b.Restore(t.Context(), b.scope, id); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) ids(t *testing.T) (out []string) {
	t.Helper()
	list, err := b.List(t.Context(), b.scope)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		out = append(out, k.ID)
	}
	return out
}

func (b *bench) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.scope.Root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// conform is what every provider must do: the machine is to the byte what it was, what is left out is as it is now, two
// snapshots do not know each other, and nothing is left when they are deleted.
func (b *bench) conform(t *testing.T) {
	t.Helper()
	b.Fill(60)
	b.write(t, "home/letter", "before")
	b.usable(t)
	first, now := b.manifest(t), b.scope
	b.take(t, "one")
	b.Damage(40)
	b.write(t, "home/letter", "after")
	second := b.manifest(t)
	if cmp.Equal(first, second) {
		t.Fatal("nothing was damaged")
	}
	if b.take(t, "two"); !cmp.Equal([]string{"one", "two"}, b.ids(t)) {
		t.Fatalf("kept are %q", b.ids(t))
	}
	b.Damage(20)
	for range 2 { // the second one finds nothing to do
		b.restore(t, "two")
		if diff := cmp.Diff(second, b.manifest(t)); diff != "" {
			t.Fatalf("two:\n%s", diff)
		}
	}
	again := b.take(t, "one")
	b.restore(t, "one")
	if diff := cmp.Diff(first, b.manifest(t)); diff != "" {
		t.Fatalf("one, taken %s:\n%s", again.Created, diff)
	}
	if got, err := os.ReadFile(filepath.Join(b.scope.Root, "home/letter")); string(got) != "after" {
		t.Errorf("what is left out became %q, %v", got, err)
	}
	for _, id := range []string{"one", "none", "two", "two"} {
		if err := b.Delete(t.Context(), now, id); err != nil {
			t.Errorf("delete %s: %v", id, err)
		}
	}
	if got := b.ids(t); len(got) != 0 {
		t.Errorf("deleted, and there are %q", got)
	}
	if err := b.Restore(t.Context(), now, "one"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("restore of one that is deleted: %v", err)
	}
	for _, id := range []string{"", "..", "a/b", "a b", "-x", strings.Repeat("a", 200)} {
		if _, err := b.Take(t.Context(), now, id); err == nil {
			t.Errorf("ID %q is taken", id)
		}
	}
	if err := b.Usable(t.Context(), now, 1<<50); !errors.Is(err, snapshot.ErrUnusable) {
		t.Errorf("a petabyte fits: %v", err)
	}
	if diff := cmp.Diff(first, b.manifest(t)); diff != "" {
		t.Errorf("in the end:\n%s", diff)
	}
}

func TestCopy(t *testing.T) {
	treetest.Need(t, programs)
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			d := treetest.NewDisk(t, kind, "400m")
			b := newBench(t, d.Mount, &snapshot.Copy{Dir: filepath.Join(d.Mount, "state/snapshots"), Now: later})
			b.Flags = true
			defer b.Unflag()
			b.conform(t)
			b.write(t, "large", strings.Repeat("x", 1<<20))
			if k := b.take(t, "large"); (k.Bytes == 0) != (kind != "ext4") {
				t.Errorf("a copy with a file of 1 MiB took %d bytes", k.Bytes)
			}
		})
	}
	t.Run("tmpfs", func(t *testing.T) {
		root := filepath.Join(t.TempDir(), "root")
		treetest.NewMount(t, "tmpfs", root, "")
		newBench(t, root, &snapshot.Copy{Dir: filepath.Join(root, "state/snapshots"), Now: later}).conform(t)
	})
	t.Run("overlay", func(t *testing.T) {
		disk := t.TempDir()
		treetest.NewMount(t, "tmpfs", disk, "")
		for _, d := range []string{"lower", "upper", "work"} {
			if err := os.Mkdir(filepath.Join(disk, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(disk, "lower/usr"), 0o755); err != nil {
			t.Fatal(err)
		}
		treetest.New(t, filepath.Join(disk, "lower/usr"), 9).Fill(40)
		root := filepath.Join(disk, "root")
		treetest.NewMount(t, "overlay", root, "lowerdir="+disk+"/lower,upperdir="+disk+"/upper,workdir="+disk+"/work")
		newBench(t, root, &snapshot.Copy{Dir: filepath.Join(disk, "snapshots"), Now: later}).conform(t)
	})
}

func TestBtrfs(t *testing.T) {
	treetest.Need(t, programs)
	for place, dir := range map[string]string{"inside": "state/snapshots", "beside": ""} {
		t.Run(place, func(t *testing.T) {
			d := treetest.NewDisk(t, "btrfs", "400m")
			if dir != "" {
				dir = filepath.Join(d.Mount, dir)
			} else {
				dir = filepath.Join(t.TempDir(), "elsewhere")
			}
			b := newBench(t, d.Mount, &snapshot.Btrfs{Dir: dir, Now: later})
			b.Flags = true
			defer b.Unflag()
			if place == "beside" { // its place is made by the first one, and stays
				b.take(t, "zero")
				if err := b.Delete(t.Context(), b.scope, "zero"); err != nil {
					t.Fatal(err)
				}
			}
			b.conform(t)
		})
	}
}

// A part of the system that the snapshot would not hold is named, and auto goes on to the copy, which holds it.
func TestElsewhere(t *testing.T) {
	treetest.Need(t, map[string]string{"btrfs": "btrfs-progs"})
	d := treetest.NewDisk(t, "btrfs", "400m")
	boot := treetest.NewDisk(t, "ext4", "30m")
	b := newBench(t, d.Mount, &snapshot.Btrfs{Dir: filepath.Join(d.Mount, "state/snapshots"), Now: later})
	b.usable(t)
	for _, p := range []string{"boot", "var"} {
		if err := os.Mkdir(filepath.Join(d.Mount, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("btrfs", "subvolume", "create", filepath.Join(d.Mount, "var/lib")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	bind(t, boot.Mount, filepath.Join(d.Mount, "boot"))
	if err := b.Usable(t.Context(), b.scope, 1); !errors.Is(err, snapshot.ErrUnusable) || !strings.Contains(err.Error(), "/boot, /var/lib:") {
		t.Errorf("%v", err)
	}
	c := &bench{Provider: &snapshot.Copy{Dir: filepath.Join(d.Mount, "state/snapshots"), Now: later}, Maker: b.Maker, scope: b.scope}
	c.usable(t)
	c.write(t, "boot/vmlinuz", "old")
	c.write(t, "usr/program", "old")
	c.take(t, "one")
	c.write(t, "boot/vmlinuz", "new")
	c.write(t, "usr/program", "new")
	c.write(t, "var/lib/nested", "left alone")
	c.restore(t, "one")
	for name, want := range map[string]string{"boot/vmlinuz": "old", "usr/program": "old", "var/lib/nested": "left alone"} {
		if got, err := os.ReadFile(filepath.Join(d.Mount, name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	unbind(t, filepath.Join(d.Mount, "boot"))
	if err := c.Restore(t.Context(), c.scope, "one"); err == nil || !strings.Contains(err.Error(), "/boot") {
		t.Errorf("/boot is not mounted and is put back: %v", err)
	}
	if es, err := os.ReadDir(filepath.Join(d.Mount, "boot")); len(es) != 0 || err != nil {
		t.Errorf("below the mount point are %d names, %v", len(es), err)
	}
	bind(t, boot.Mount, filepath.Join(d.Mount, "boot"))
	t.Cleanup(func() { unbind(t, filepath.Join(d.Mount, "boot")) })
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("mount", "--bind", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

func unbind(t *testing.T, p string) {
	t.Helper()
	if out, err := exec.Command("umount", p).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// Options that changed between Take and Restore delete nothing: what was left out then is left alone now.
func TestExcludeChanged(t *testing.T) {
	treetest.Need(t, nil)
	dir := t.TempDir()
	b := newBench(t, filepath.Join(dir, "root"), &snapshot.Copy{Dir: filepath.Join(dir, "kept"), Now: later})
	b.write(t, "home/letter", "mine")
	b.take(t, "one")
	b.scope.Exclude = nil
	b.restore(t, "one")
	if got, err := os.ReadFile(filepath.Join(b.scope.Root, "home/letter")); string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
}
