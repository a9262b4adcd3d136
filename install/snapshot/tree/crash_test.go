package tree_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
	"github.com/patchmesh/patchmesh/internal/durable/crashtest"
)

func TestMain(m *testing.M) { crashtest.Main(m, child) }

// child does one thing to the scene in a directory: the executor's part, which is cut.
func child(arg string) error {
	what, dir, _ := strings.Cut(arg, " ")
	var err error
	switch machine, kept := filepath.Join(dir, "machine"), filepath.Join(dir, "kept"); what {
	case "copy":
		_, err = tree.Copy(context.Background(), machine, kept, tree.Options{})
	case "restore":
		_, err = tree.Restore(context.Background(), kept, machine, recorded(time.Time{}))
	case "naive": // the positive control: what a script does
		err = naive(kept, machine)
	}
	if err == nil {
		fmt.Println("done")
	}
	return err
}

// naive empties the machine and writes it anew.
func naive(kept, machine string) error {
	es, err := os.ReadDir(machine)
	if err != nil {
		return err
	}
	for _, e := range es {
		if err := os.RemoveAll(filepath.Join(machine, e.Name())); err != nil {
			return err
		}
	}
	return os.CopyFS(machine, os.DirFS(kept))
}

// set is a small machine in which each kind of change is one. Of paths with two contents, one is what was kept.
type set struct {
	t   *testing.T
	dir string
}

func (s set) do(errs ...error) {
	s.t.Helper()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

func (s set) p(name string) string { return filepath.Join(s.dir, "machine", name) }

func (s set) file(name, text string, mode uint32) {
	s.do(os.WriteFile(s.p(name), []byte(text), 0o600), unix.Chmod(s.p(name), mode))
}

// settle gives everything one time.
func (s set) settle() {
	s.do(filepath.WalkDir(s.p(""), func(p string, _ os.DirEntry, err error) error {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1e9, Nsec: 5}}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	}))
}

func (s set) fresh() {
	s.do(os.RemoveAll(s.p("")), os.Mkdir(s.p(""), 0o755))
	for _, d := range []string{"lib", "doc", "etc"} {
		s.do(os.Mkdir(s.p(d), 0o755))
	}
}

// before is the state that is kept.
func (s set) before() {
	s.fresh()
	s.file("lib/lib.so.1", strings.Repeat("old", 3000), 0o755)
	s.do(os.Symlink("lib.so.1", s.p("lib/lib.so")), os.Symlink("lib", s.p("lib64")))
	s.file("lib/su", "old", 0o4755)
	s.do(unix.Setxattr(s.p("lib/su"), "trusted.label", []byte("old"), 0))
	s.file("etc/conf", "old", 0o644)
	s.do(os.Link(s.p("etc/conf"), s.p("etc/conf.link")))
	s.do(os.Mkdir(s.p("doc/now-a-file"), 0o750))
	s.file("doc/now-a-file/text", "old", 0o644)
	s.file("doc/now-a-dir", "old", 0o600)
	s.file("doc/same", "same", 0o644)
	s.do(unix.Mkfifo(s.p("doc/fifo"), 0o640))
	s.settle()
}

// after is what a transaction made of it.
func (s set) after() {
	s.fresh()
	s.file("lib/lib.so.2", strings.Repeat("new", 3000), 0o755)
	s.file("lib/lib.so.1", strings.Repeat("new", 3000), 0o755)
	s.do(os.Symlink("lib.so.2", s.p("lib/lib.so")), os.Mkdir(s.p("lib64"), 0o755))
	s.file("lib64/extra", "new", 0o644)
	s.file("lib/su", "old", 0o755)
	s.file("etc/conf", "new", 0o644)
	s.file("etc/conf.link", "old", 0o644)
	s.file("doc/now-a-file", "new", 0o644)
	s.do(os.Mkdir(s.p("doc/now-a-dir"), 0o755))
	s.file("doc/now-a-dir/extra", "new", 0o644)
	s.file("doc/same", "same", 0o644)
	s.settle()
}

// alive checks that what a running machine needs at each instant is there, whole: old or new.
func (s set) alive() error {
	library := strings.Repeat("old", 3000)
	for name, old := range map[string]string{"lib/lib.so": library, "lib/lib.so.1": library, "lib/su": "old", "etc/conf": "old", "doc/same": "same"} {
		b, err := os.ReadFile(s.p(name))
		if err != nil {
			return err
		}
		if got := string(b); got != old && got != strings.ReplaceAll(old, "old", "new") {
			return fmt.Errorf("%s is torn: %d bytes", name, len(b))
		}
	}
	return nil
}

// The calls that change something, and the rest.
var (
	changing = []string{"renameat", "renameat2", "unlinkat", "linkat", "symlinkat", "mkdirat", "mknodat", "fsync", "sync_file_range", "syncfs", "setxattr", "lsetxattr", "removexattr", "chmod", "fchmodat", "fchownat", "utimensat", "pwrite64", "ftruncate"}
	others   = []string{"openat", "statx", "getdents64", "pread64", "readlinkat", "llistxattr", "lgetxattr", "ioctl", "lseek", "close"}
)

func faults() (calls, kinds []string) {
	if os.Getenv("PATCHMESH_LONG") != "" {
		return append(slices.Clone(changing), others...), []string{"signal=KILL", "error=EIO", "error=ENOSPC"}
	}
	return changing, []string{"signal=KILL"}
}

// Cut or refused at any call, Restore leaves a machine that runs, and the next one makes it what it was.
func TestRestoreAtEveryCall(t *testing.T) {
	treetest.Need(t, nil)
	s := set{t, t.TempDir()}
	s.before()
	want := digest(t, s.p(""), tree.Options{})
	if _, err := tree.Copy(t.Context(), s.p(""), filepath.Join(s.dir, "kept"), tree.Options{}); err != nil {
		t.Fatal(err)
	}
	calls, kinds := faults()
	var done int
	runs := crashtest.Each(t, calls, kinds, func() string { s.after(); return "restore " + s.dir }, func(o crashtest.Outcome) {
		if err := s.alive(); err != nil {
			t.Errorf("%s: %v", o.Fault, err)
		}
		if strings.Contains(o.Stdout, "done") {
			done++
			if got := digest(t, s.p(""), tree.Options{}); got != want {
				t.Errorf("%s: said to be done, and is not", o.Fault)
			}
		}
		if _, err := tree.Restore(t.Context(), filepath.Join(s.dir, "kept"), s.p(""), recorded(time.Time{})); err != nil {
			t.Errorf("%s: again: %v", o.Fault, err)
		}
		if got := digest(t, s.p(""), tree.Options{}); got != want {
			t.Errorf("%s: in the end it differs: %q", o.Fault, differences(t, filepath.Join(s.dir, "kept"), s.p(""), recorded(time.Time{})))
		}
	})
	t.Logf("%d runs with a fault, in %d of them Restore found another way", runs, done)
	if runs < 50 {
		t.Errorf("only %d runs", runs)
	}
}

// The positive control: what empties a machine before it writes it is found out.
func TestNaiveRestoreIsFound(t *testing.T) {
	treetest.Need(t, nil)
	s := set{t, t.TempDir()}
	s.before()
	s.do(os.CopyFS(filepath.Join(s.dir, "kept"), os.DirFS(s.p("lib"))))
	broken := 0
	crashtest.Each(t, []string{"unlinkat"}, []string{"signal=KILL"}, func() string { s.after(); return "naive " + s.dir }, func(crashtest.Outcome) {
		if s.alive() != nil {
			broken++
		}
	})
	if broken == 0 {
		t.Error("the oracle does not see an emptied machine")
	}
}

// A copy that was cut is not there; one that is there is whole.
func TestCopyAtEveryCall(t *testing.T) {
	treetest.Need(t, nil)
	s := set{t, t.TempDir()}
	s.before()
	want := digest(t, s.p(""), tree.Options{})
	kept := filepath.Join(s.dir, "kept")
	calls, kinds := faults()
	var there int
	runs := crashtest.Each(t, calls, kinds, func() string { s.do(os.RemoveAll(kept)); return "copy " + s.dir }, func(o crashtest.Outcome) {
		_, err := os.Lstat(kept)
		switch {
		case err == nil:
			there++
		case strings.Contains(o.Stdout, "done"):
			t.Errorf("%s: said to be done, and is not there", o.Fault)
		default:
			if _, err := tree.Copy(t.Context(), s.p(""), kept, tree.Options{}); err != nil {
				t.Fatalf("%s: again: %v", o.Fault, err)
			}
		}
		if got := digest(t, kept, recorded(time.Time{})); got != want {
			t.Errorf("%s: the copy is not whole", o.Fault)
		}
		if o.Exit == 3 {
			if _, err := os.Lstat(tree.Unfinished(kept)); err == nil && o.Call != "unlinkat" && o.Call != "openat" {
				t.Errorf("%s: an unfinished copy is left behind", o.Fault)
			}
		}
	})
	t.Logf("%d runs with a fault, in %d the copy was there", runs, there)
	if runs < 20 {
		t.Errorf("only %d runs", runs)
	}
}
