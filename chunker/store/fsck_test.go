package store

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// spoil makes one of everything that Fsck looks for.
func spoil(t *testing.T, s *Store) (damaged chunk.ID) {
	t.Helper()
	ids := fill(t, s, 0, 6)
	flip := func(id chunk.ID) {
		b, err := os.ReadFile(s.path(id))
		if err != nil {
			t.Fatal(err)
		}
		b[3] ^= 4
		os.WriteFile(s.path(id), b, 0o644)
	}
	flip(ids[0])
	os.Remove(s.path(ids[1]))
	shard := filepath.Dir(s.path(ids[2]))
	wrong := filepath.Join(s.dir, "z")
	os.MkdirAll(wrong, 0o755)
	for name, b := range map[string][]byte{
		filepath.Join(wrong, ids[2].String()): plain(2, 1000),
		filepath.Join(shard, ".tmp-1"):        []byte("half"),
		filepath.Join(shard, "README"):        []byte("hello"),
		filepath.Join(s.dir, "notes.txt"):     []byte("hello"),
		filepath.Join(s.dir, "pins", "bad"):   []byte("not a pin file"),
		filepath.Join(s.dir, "pins", "#x"):    []byte("hello"),
	} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pin(t, s, "staging", ids[3], chunk.Sum([]byte("on its way")))
	return ids[0]
}

func TestFsck(t *testing.T) {
	dropped := 0
	s := open(t, t.TempDir(), Options{OnDamage: func(chunk.ID) { dropped++ }})
	damaged := spoil(t, s)
	want := Result{Chunks: 4, Bytes: 4000, Findings: map[Kind]int{Damaged: 2, Misplaced: 1, Temporary: 1, BadPins: 1, Foreign: 3, Missing: 1}}
	for range 2 { // looking changes nothing
		var found []Finding
		r, err := s.Fsck(context.Background(), false, func(f Finding) { found = append(found, f) })
		if err != nil || r.Clean() {
			t.Fatalf("%+v, %v", r, err)
		}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Error(diff)
		}
		if len(found) != 9 || !s.Has(damaged) || dropped != 0 {
			t.Errorf("%d findings, %d dropped", len(found), dropped)
		}
	}
	r, err := s.Fsck(context.Background(), true, nil)
	if err != nil || r.Repaired != 5 || dropped != 2 || s.Has(damaged) {
		t.Errorf("repair: %+v, %d dropped, %v", r, dropped, err)
	}
	r, err = s.Fsck(context.Background(), false, nil)
	want.Findings = map[Kind]int{Foreign: 3, Missing: 1}
	if diff := cmp.Diff(want, r); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	b, err := json.Marshal(r)
	if err != nil || string(b) != `{"chunks":4,"bytes":4000,"findings":{"foreign":3,"missing":1},"repaired":0}` {
		t.Errorf("%s, %v", b, err)
	}
}

func TestFsckCleanStore(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	fill(t, s, 0, 3)
	pin(t, s, "staging", chunk.Sum([]byte("on its way")))
	r, err := s.Fsck(context.Background(), false, nil)
	if err != nil || !r.Clean() || r.Chunks != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Fsck(stopped, false, nil); err == nil {
		t.Error("interrupted and no error")
	}
}

// Any single flipped bit in a chunk's file is found, and none is found without.
func TestFsckFindsEveryFlippedBit(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	b := plain(1, 64)
	id := put(t, s, b)
	for bit := range 64 * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(s.path(id), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Fsck(context.Background(), false, nil); err != nil || r.Findings[Damaged] != 1 {
			t.Errorf("bit %d: %+v, %v", bit, r, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	os.WriteFile(s.path(id), b, 0o644)
	if r, err := s.Fsck(context.Background(), false, nil); err != nil || !r.Clean() {
		t.Errorf("the control: %+v, %v", r, err)
	}
}
