package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// A store made when the last two letters of a cid named its directory is whole after the first Open, also when an
// earlier one was cut half-way.
func TestOpenAdoptsOldLayout(t *testing.T) {
	dir := t.TempDir()
	var ids []chunk.ID
	for i := range 40 {
		plain := []byte{byte(i), 1, 2, 3}
		id := chunk.Sum(plain)
		ids = append(ids, id)
		cid := id.String()
		name := filepath.Join(dir, cid[len(cid)-oldShard:], cid)
		if i%4 == 0 { // moved already
			name = filepath.Join(dir, Name(id))
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, plain, 0o644); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := os.WriteFile(filepath.Join(filepath.Dir(name), durable.TempPrefix+"1"), plain, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, id := range ids {
		if _, err := s.Get(id, nil); err != nil {
			t.Error(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "??")); len(left) != 0 {
		t.Errorf("old directories are left: %v", left)
	}
}
