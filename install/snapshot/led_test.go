package snapshot_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/install/snapshot"
)

// What is left out is left alone also where a link leads to it, unless that is the system itself.
func TestLinkToWhatIsLeftOut(t *testing.T) {
	root := t.TempDir()
	b := newBench(t, root, &snapshot.Copy{Dir: filepath.Join(root, "state/snapshots"), Now: later})
	for _, d := range []string{"var/lib", "data/db", "opt/tool"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"var/lib/db": "../../data/db", "srv": "opt"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	b.scope.Exclude = append(b.scope.Exclude, "/var/lib/db", "/srv")
	for _, name := range []string{"data/db/rows", "data/other", "opt/tool/file"} {
		b.write(t, name, "before")
	}
	b.take(t, "one")
	for _, name := range []string{"data/db/rows", "data/other", "opt/tool/file"} {
		b.write(t, name, "after it")
	}
	b.restore(t, "one")
	for name, want := range map[string]string{"data/db/rows": "after it", "data/other": "before", "opt/tool/file": "before"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); string(got) != want || err != nil {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
}

// A record that cannot be read hides no other, and is said.
func TestDamagedRecord(t *testing.T) {
	root := t.TempDir()
	b := newBench(t, root, &snapshot.Copy{Dir: filepath.Join(root, "state/snapshots"), Now: later})
	b.write(t, "file", "before")
	b.take(t, "one")
	b.take(t, "two")
	records, err := filepath.Glob(filepath.Join(root, "state/snapshots/one/*.json"))
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if err := os.WriteFile(records[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := b.List(t.Context(), b.scope)
	if err == nil || len(list) != 1 || list[0].ID != "two" {
		t.Errorf("%+v, %v", list, err)
	}
	b.write(t, "file", "after")
	b.restore(t, "two")
}
