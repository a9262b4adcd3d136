package tree_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
)

var programs = map[string]string{"rsync": "rsync", "getfattr": "attr", "lsattr": "e2fsprogs"}

// recorded are the options for a copy that was begun in time so that every ctime before counts.
func recorded(begun time.Time) tree.Options {
	return tree.Options{Proof: tree.Recorded, Before: begun}
}

// scene is a tree, its copy, and what it looked like.
type scene struct {
	*treetest.Maker
	copied, want string
}

func newScene(t testing.TB, dir string, seed uint64, names int, flags bool) *scene {
	t.Helper()
	top := filepath.Join(dir, "machine")
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &scene{Maker: treetest.New(t, top, seed), copied: filepath.Join(dir, "kept")}
	s.Flags = flags
	s.Fill(names)
	s.want = treetest.Manifest(t, top)
	return s
}

func (s *scene) copy(t testing.TB) {
	t.Helper()
	if _, err := tree.Copy(t.Context(), s.Top, s.copied, tree.Options{}); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) equal(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(s.want, "\n"), strings.Split(treetest.Manifest(t, s.Top), "\n")); diff != "" {
		t.Errorf("the machine is not what it was:\n%s", diff)
	}
}

// tick returns when the file system's clock has gone on since now.
func tick(t testing.TB, dir string) {
	t.Helper()
	ctime := func() unix.Timespec {
		var st unix.Stat_t
		name := filepath.Join(dir, "tick")
		if err := errors.Join(os.WriteFile(name, nil, 0o600), unix.Stat(name, &st), os.Remove(name)); err != nil {
			t.Fatal(err)
		}
		return st.Ctim
	}
	for was := ctime(); ctime() == was; {
	}
}

// differences asks Compare.
func differences(t testing.TB, a, b string, o tree.Options) (out []string) {
	t.Helper()
	if err := tree.Compare(t.Context(), a, b, o, func(d tree.Diff) error { out = append(out, d.String()); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func digest(t testing.TB, top string, o tree.Options) string {
	t.Helper()
	d, err := tree.Digest(t.Context(), top, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Whatever a tree was and whatever was done to it, it is what it was after Restore, by the word of other programs, and
// Compare and Digest see the same as they do.
func TestRestore(t *testing.T) {
	treetest.Need(t, programs)
	seeds := uint64(8)
	if os.Getenv("PATCHMESH_LONG") != "" {
		seeds = 1000
	}
	base := t.TempDir()
	all := []uint64{133, 183, 471} // names of one immutable inode, some of which go
	for seed := range seeds {
		all = append(all, seed)
	}
	for _, seed := range all {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { roundTrip(t, base, seed) })
	}
}

func roundTrip(t *testing.T, base string, seed uint64) {
	dir := filepath.Join(base, strconv.FormatUint(seed, 10))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newScene(t, dir, seed, 5+int(seed*7%60), seed%2 == 1)
	t.Cleanup(func() { s.Unflag(); os.RemoveAll(dir) })
	begun := time.Now()
	if seed%3 == 0 { // ctimes count as proof: the tree is older than it is
		begun = begun.Add(time.Hour)
		tick(t, dir) // which the slack is for
	}
	s.copy(t)
	o := recorded(begun)
	was := digest(t, s.Top, tree.Options{})
	if got := digest(t, s.copied, o); got != was {
		t.Fatalf("the copy's digest %s is not the original's %s: %v", got, was, differences(t, s.copied, s.Top, recorded(time.Time{})))
	}
	s.Damage(int(seed * 5 % 31))
	damaged := treetest.Manifest(t, s.Top) != s.want
	found := differences(t, s.copied, s.Top, o)
	if damaged != (len(found) > 0) || damaged != (digest(t, s.Top, tree.Options{}) != was) {
		t.Fatalf("damaged %v, but Compare says %q and the digests differ %v", damaged, found, digest(t, s.Top, tree.Options{}) != was)
	}
	stats, err := tree.Restore(t.Context(), s.copied, s.Top, o)
	if err != nil {
		t.Fatal(err)
	}
	s.equal(t)
	if found := differences(t, s.copied, s.Top, o); len(found) > 0 || digest(t, s.Top, tree.Options{}) != was {
		t.Errorf("after Restore, %+v: %q", stats, found)
	}
	if again, err := tree.Restore(t.Context(), s.copied, s.Top, o); err != nil || again.Replaced+again.Mended+again.Removed > 0 {
		t.Errorf("a second Restore did %+v, %v", again, err)
	}
}

// The positive control of the oracle and of Restore: rsync, which trusts size and time, leaves what was forged.
func TestForged(t *testing.T) {
	treetest.Need(t, programs)
	s := newScene(t, t.TempDir(), 7, 80, false)
	pristine := filepath.Join(filepath.Dir(s.Top), "pristine")
	if out, err := exec.Command("rsync", "-aHAX", s.Top+"/", pristine).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	s.copy(t)
	var forged int
	err := filepath.WalkDir(s.Top, func(p string, e os.DirEntry, err error) error {
		if fi, ierr := e.Info(); err == nil && ierr == nil && fi.Mode().IsRegular() && fi.Size() > 0 && forged < 5 {
			treetest.Forge(t, p)
			forged++
		}
		return err
	})
	if err != nil || forged == 0 {
		t.Fatalf("%d forged, %v", forged, err)
	}
	if out, err := exec.Command("rsync", "-aHAX", "--delete", pristine+"/", s.Top).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if treetest.Manifest(t, s.Top) == s.want {
		t.Fatal("rsync without -c finds a forged file: the test forges nothing")
	}
	if _, err := tree.Restore(t.Context(), s.copied, s.Top, recorded(time.Now())); err != nil {
		t.Fatal(err)
	}
	s.equal(t)
}

func TestRefused(t *testing.T) {
	treetest.Need(t, nil)
	dir := t.TempDir()
	s := newScene(t, dir, 1, 10, false)
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Restore(t.Context(), empty, s.Top, tree.Options{}); !errors.Is(err, tree.ErrEmpty) {
		t.Errorf("an empty kept tree: %v", err)
	}
	if _, err := tree.Restore(t.Context(), s.Top, s.Top, tree.Options{}); err == nil {
		t.Error("a tree is put back from itself")
	}
	if _, err := tree.Copy(t.Context(), s.Top, empty, tree.Options{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("copy to what is there: %v", err)
	}
	for _, p := range []string{"etc", "/etc/", "/a/../b", ""} {
		if _, err := tree.Copy(t.Context(), s.Top, s.copied, tree.Options{Exclude: []string{p}}); err == nil {
			t.Errorf("exclude %q is accepted", p)
		}
	}
	s.copy(t)
	if _, err := tree.Restore(t.Context(), s.Top, s.copied, tree.Options{Proof: tree.Recorded}); err == nil {
		t.Error("a tree that is no copy passes for one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tree.Restore(ctx, s.copied, s.Top, recorded(time.Now())); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
	s.equal(t)
}
