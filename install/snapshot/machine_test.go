package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/snapshot"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
)

// on is the root of the machine that a test may change.
func on(t *testing.T) string {
	t.Helper()
	root := os.Getenv("PATCHMESH_VM_ROOT")
	if root == "" {
		t.Skip("needs an emulated machine: make vm-test")
	}
	treetest.Need(t, programs)
	return root
}

// The root is an ext4 or xfs on a thin volume in a pool of less than 400 MiB.
func TestThinOn(t *testing.T) {
	root := on(t)
	b := newBench(t, root, &snapshot.LVM{Dir: filepath.Join(root, "state/lvm"), Now: time.Now})
	b.Flags = true
	b.conform(t)
	b.Unflag()
	if err := b.Usable(t.Context(), b.scope, 400<<20); !errors.Is(err, snapshot.ErrUnusable) || !strings.Contains(err.Error(), "pool") {
		t.Errorf("more than the pool has fits: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "usr")); err != nil {
		t.Fatal(err)
	}
}

// The root is the running machine's own, and Timeshift is configured to keep it.
func TestTimeshiftOn(t *testing.T) {
	if on(t) != "/" {
		t.Fatal("timeshift keeps / only")
	}
	ctx, p := t.Context(), &snapshot.Timeshift{Dir: "/var/lib/mesh-install/timeshift", Now: time.Now}
	scope := snapshot.Scope{Root: "/", Exclude: []string{"/var/lib/mesh-install", "/var/log", "/var/tmp", "/tmp", "/run", "/home", "/root"}}
	top := "/usr/lib/filled"
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(top, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	manifest := func() []string { // Timeshift writes its configuration itself
		t.Helper()
		return strings.Split(treetest.Manifest(t, top)+treetest.Manifest(t, "/etc", "timeshift")+treetest.Manifest(t, "/var/lib/dpkg"), "\n")
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		write(fmt.Sprintf("d%d/f%d", i%5, i), strings.Repeat("old", i), []os.FileMode{0o644, 0o755, 0o4755}[i%3])
	}
	do(os.Symlink("f0", filepath.Join(top, "d0/link")))
	do(os.MkdirAll("/home/ann", 0o755))
	do(os.WriteFile("/home/ann/letter", []byte("old"), 0o644))
	before := manifest()
	do(p.Usable(ctx, scope, 1<<20))
	kept, err := p.Take(ctx, scope, "one")
	do(err)
	if list, err := p.List(ctx, scope); err != nil || len(list) != 1 || list[0].ID != "one" {
		t.Fatalf("kept are %+v, %v", list, err)
	}
	for i := range 10 {
		write(fmt.Sprintf("d%d/f%d", i%5, i), "new", 0o600)
	}
	write("d9/more", "new", 0o644)
	treetest.Forge(t, filepath.Join(top, "d0/f20"))
	do(os.RemoveAll(filepath.Join(top, "d3")))
	do(errors.Join(os.Remove(filepath.Join(top, "d0/link")), os.Symlink("f5", filepath.Join(top, "d0/link"))))
	do(os.WriteFile("/etc/hostname", []byte("other\n"), 0o644))
	do(os.WriteFile("/var/lib/dpkg/status", nil, 0o644))
	do(os.Chmod("/usr/bin/dpkg", 0))
	do(os.WriteFile("/home/ann/letter", []byte("new"), 0o644))
	if cmp.Equal(before, manifest()) {
		t.Fatal("nothing was damaged")
	}
	for range 2 { // the second one finds nothing to do
		do(p.Restore(ctx, scope, "one"))
		if diff := cmp.Diff(before, manifest()); diff != "" {
			t.Fatalf("%s:\n%.3000s", kept.Name, diff)
		}
	}
	if fi, err := os.Stat("/usr/bin/dpkg"); err != nil || fi.Mode() != 0o755 {
		t.Errorf("dpkg: %v, %v", fi.Mode(), err)
	}
	if b, err := os.ReadFile("/home/ann/letter"); err != nil || string(b) != "new" {
		t.Errorf("what is left out became %q, %v", b, err)
	}
	do(p.Delete(ctx, scope, "one"))
	do(p.Delete(ctx, scope, "one"))
	if list, err := p.List(ctx, scope); err != nil || len(list) != 0 {
		t.Errorf("deleted, and there are %+v, %v", list, err)
	}
	if err := p.Restore(ctx, scope, "one"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("restore of one that is deleted: %v", err)
	}
}
