package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/durable/crashtest"
)

func TestMain(m *testing.M) { crashtest.Main(m, child) }

// child replaces a file as a daemon does, and says so when that is durable.
func child(arg string) error {
	dir, how, _ := strings.Cut(arg, "|")
	name := filepath.Join(dir, "state")
	write := WriteFile
	if how == "naive" {
		write = os.WriteFile
	}
	if err := write(name, []byte(strings.Repeat("new", 1000)), 0o640); err != nil {
		return err
	}
	fmt.Println("written")
	return nil
}

func names(t testing.TB, dir string) (out []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

func content(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	calls = []string{"openat", "write", "fchmod", "fsync", "close", "renameat", "unlinkat"}
	kinds = []string{"signal=KILL", "error=EIO", "error=ENOSPC", "error=EROFS"}
)

// Killed or refused at any system call, a file that is written holds the old bytes or the new ones, the new ones if that was
// said, and the next start finds nothing left over.
func TestWriteFileAtEveryCall(t *testing.T) {
	dir := t.TempDir()
	old, fresh := strings.Repeat("old", 1000), strings.Repeat("new", 1000)
	var told, silent int
	runs := crashtest.Each(t, calls, kinds, func() string {
		if err := os.WriteFile(filepath.Join(dir, "state"), []byte(old), 0o640); err != nil {
			t.Fatal(err)
		}
		return dir + "|"
	}, func(o crashtest.Outcome) {
		got := content(t, filepath.Join(dir, "state"))
		if got != old && got != fresh {
			t.Errorf("%s: the file holds %d other bytes", o.Fault, len(got))
		}
		if strings.Contains(o.Stdout, "written") {
			told++
			if got != fresh {
				t.Errorf("%s: said to be written and is not", o.Fault)
			}
		} else {
			silent++
		}
		// Only a process that was killed, or that could not unlink either, leaves a temporary file.
		left := len(names(t, dir)) - 1
		if o.Kind != "signal=KILL" && left != 0 && o.Exit >= 0 && o.Exit != 2 {
			t.Errorf("%s: %d files left behind", o.Fault, left)
		}
		if err := Sweep(dir); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"state"}, names(t, dir)); diff != "" {
			t.Errorf("%s: after the sweep:\n%s", o.Fault, diff)
		}
	})
	t.Logf("%d runs with a fault: %d said written, %d did not", runs, told, silent)
	if runs < 20 || silent == 0 {
		t.Errorf("only %d runs", runs)
	}
}

// The positive control: what os.WriteFile leaves is found.
func TestNaiveWriteIsFound(t *testing.T) {
	dir := t.TempDir()
	broken := 0
	crashtest.Each(t, []string{"openat", "write"}, []string{"signal=KILL", "error=ENOSPC"}, func() string {
		os.WriteFile(filepath.Join(dir, "state"), []byte("old"), 0o640)
		return dir + "|naive"
	}, func(o crashtest.Outcome) {
		if got := content(t, filepath.Join(dir, "state")); got != "old" && len(got) != 3000 {
			broken++
		}
	})
	if broken == 0 {
		t.Error("the harness does not see a torn file")
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	for _, text := range []string{"first", "second", ""} {
		if err := WriteFile(name, []byte(text), 0o640); err != nil || content(t, name) != text {
			t.Errorf("%q: %v", text, err)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "x"), nil, 0o640); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	os.Mkdir(filepath.Join(dir, "taken"), 0o755)
	os.WriteFile(filepath.Join(dir, "taken", "x"), nil, 0o644)
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x"), 0o640); err == nil {
		t.Error("a directory was replaced")
	}
	if diff := cmp.Diff([]string{"state", "taken"}, names(t, dir)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func TestRenameRemoveSweep(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	os.Mkdir(a, 0o755)
	os.Mkdir(b, 0o755)
	os.WriteFile(filepath.Join(a, "x"), []byte("x"), 0o644)
	if err := Rename(filepath.Join(a, "x"), filepath.Join(b, "x")); err != nil || content(t, filepath.Join(b, "x")) != "x" {
		t.Error(err)
	}
	for range 2 { // a name that does not exist is no error
		if err := Remove(filepath.Join(b, "x")); err != nil {
			t.Error(err)
		}
	}
	os.WriteFile(filepath.Join(a, TempPrefix+"1"), nil, 0o644)
	os.MkdirAll(filepath.Join(a, TempPrefix+"2", "deep"), 0o755)
	os.WriteFile(filepath.Join(a, "keep"), nil, 0o644)
	if err := errors.Join(Sweep(a), Sweep(filepath.Join(dir, "none")), SyncTree(dir)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"keep"}, names(t, a)); diff != "" {
		t.Error(diff)
	}
}

func TestBatch(t *testing.T) {
	dir := t.TempDir()
	var b Batch
	if lost, err := b.Sync(); lost != nil || err != nil {
		t.Errorf("an empty batch: %v, %v", lost, err)
	}
	for _, n := range []string{"one", "two", "three"} {
		tmp, err := Temp(dir, []byte(n), 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Place(tmp, filepath.Join(dir, n), int64(len(n))); err != nil {
			t.Fatal(err)
		}
	}
	if b.Pending() != 11 {
		t.Errorf("%d bytes pending", b.Pending())
	}
	os.Remove(filepath.Join(dir, "two")) // removed before it was durable
	if lost, err := b.Sync(); lost != nil || err != nil || b.Pending() != 0 {
		t.Errorf("lost %v, %v, %d bytes pending", lost, err, b.Pending())
	}
	if diff := cmp.Diff([]string{"one", "three"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
	if _, err := Temp(filepath.Join(dir, "none"), nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
