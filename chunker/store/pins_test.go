package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func fill(t testing.TB, s *Store, from, n int) (ids []chunk.ID) {
	t.Helper()
	for i := from; i < from+n; i++ {
		b := plain(i, 1000)
		ids = append(ids, chunk.Sum(b))
		if _, err := s.Put(ids[len(ids)-1], b); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func pin(t testing.TB, s *Store, owner string, ids ...chunk.ID) {
	t.Helper()
	if err := s.Pin(owner, ids); err != nil {
		t.Fatal(err)
	}
}

func which(s *Store, ids []chunk.ID) (held []int) {
	for i, id := range ids {
		if s.Has(id) {
			held = append(held, i)
		}
	}
	return held
}

func TestGCKeepsWhatIsPinned(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	ids := fill(t, s, 0, 6)
	pin(t, s, "sha256:old", ids[0], ids[1])
	pin(t, s, "sha256:new", ids[1], ids[2], chunk.Sum([]byte("not here yet")))
	s.Close()
	s = open(t, dir, Options{}) // pins outlive the process
	if n, freed, err := s.GC(context.Background()); n != 3 || freed != 3000 || err != nil {
		t.Errorf("GC: %d chunks, %d bytes, %v", n, freed, err)
	}
	if diff := cmp.Diff([]int{0, 1, 2}, which(s, ids)); diff != "" {
		t.Error(diff)
	}
	if err := s.Unpin("sha256:old"); err != nil {
		t.Fatal(err)
	}
	if err := s.Unpin("sha256:never"); err != nil {
		t.Error(err)
	}
	s.GC(context.Background())
	if diff := cmp.Diff([]int{1, 2}, which(s, ids)); diff != "" {
		t.Error(diff)
	}
	pin(t, s, "sha256:new", ids[2]) // a new list replaces the old one
	s.GC(context.Background())
	if diff := cmp.Diff([]int{2}, which(s, ids)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"sha256:new"}, s.Owners()); diff != "" {
		t.Error(diff)
	}
	if st := s.Stats(); st != (Stats{Chunks: 1, Bytes: 1000, PinnedBytes: 1000}) {
		t.Errorf("%+v", st)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.GC(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestQuotaEvictsOldestUnpinned(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Quota: 4000})
	ids := fill(t, s, 0, 4)
	pin(t, s, "keep", ids[0])
	ids = append(ids, fill(t, s, 4, 2)...)
	if diff := cmp.Diff([]int{0, 3, 4, 5}, which(s, ids)); diff != "" {
		t.Error(diff)
	}
	pin(t, s, "keep", ids[0], ids[3], ids[4], ids[5])
	b := plain(6, 1000)
	_, err := s.Put(chunk.Sum(b), b)
	if problem.CodeOf(err) != problem.QuotaExceeded {
		t.Errorf("everything is pinned: %v", err)
	}
	if diff := cmp.Diff([]int{0, 3, 4, 5}, which(s, ids)); diff != "" {
		t.Errorf("something was evicted for nothing:\n%s", diff)
	}
	// It is not too late: an owner lets go, and the put succeeds.
	pin(t, s, "keep", ids[5])
	put(t, s, b)
	if st := s.Stats(); st.Bytes != 4000 || s.Has(ids[0]) {
		t.Errorf("%+v", st)
	}
	// A chunk larger than what could ever be freed evicts nothing.
	big := plain(7, 4500)
	if _, err := s.Put(chunk.Sum(big), big); problem.CodeOf(err) != problem.QuotaExceeded || s.Stats().Chunks != 4 {
		t.Errorf("larger than the quota: %v, %+v", err, s.Stats())
	}
}

// The order of age is that of the files' dates when a store is opened.
func TestAgeAfterReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	ids := fill(t, s, 0, 5)
	for i, id := range ids { // the last is the oldest
		at := time.Unix(int64(1000-i), 0)
		if err := os.Chtimes(s.path(id), at, at); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = open(t, dir, Options{Quota: 5000})
	slices.Reverse(ids)
	if diff := cmp.Diff(ids, s.Held()); diff != "" {
		t.Error(diff)
	}
	fill(t, s, 10, 2)
	if diff := cmp.Diff([]int{2, 3, 4}, which(s, ids)); diff != "" {
		t.Error(diff)
	}
}

// A pin file that cannot be read must not cost a chunk that is needed.
func TestBadPinFileStopsEviction(t *testing.T) {
	ids := []chunk.ID{chunk.Sum(plain(0, 1000)), chunk.Sum(plain(1, 1000))}
	good := encodePins(ids)
	flipped := bytes.Clone(good)
	flipped[20] = 'q' // still a cid, of another chunk
	for name, content := range map[string][]byte{"flipped": flipped, "truncated": good[:len(good)-1], "empty": nil, "half": good[:70], "text": []byte("x\n")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			fill(t, s, 0, 4)
			pin(t, s, "owner", ids...)
			s.Close()
			if err := os.WriteFile(filepath.Join(dir, "pins", "owner"), content, 0o644); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, Options{Quota: 4000})
			if n, _, err := s.GC(context.Background()); n != 0 || err != nil {
				t.Errorf("GC evicted %d, %v", n, err)
			}
			b := plain(9, 1000)
			if _, err := s.Put(chunk.Sum(b), b); problem.CodeOf(err) != problem.QuotaExceeded {
				t.Errorf("Put: %v", err)
			}
			pin(t, s, "owner", ids...) // the owner comes back
			put(t, s, b)
			if !s.Has(ids[0]) || !s.Has(ids[1]) {
				t.Error("a pinned chunk was evicted")
			}
		})
	}
}

func TestPinOwnerNames(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, owner := range []string{"", ".", "..", "../x", "a/b", ".tmp-1", "-x", "a b", string(make([]byte, 200))} {
		if err := s.Pin(owner, nil); err == nil {
			t.Errorf("Pin(%q) is accepted", owner)
		}
		if err := s.Unpin(owner); err == nil {
			t.Errorf("Unpin(%q) is accepted", owner)
		}
	}
}

func FuzzDecodePins(f *testing.F) {
	f.Add(encodePins(nil))
	f.Add(encodePins([]chunk.ID{chunk.Sum(nil), chunk.Sum([]byte("a"))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ids, err := decodePins(b); err == nil && !bytes.Equal(encodePins(ids), b) {
			t.Errorf("%q is read and not written so", b)
		}
	})
}

// TestStoreModel compares a store with a model through random operations, restarts and damage.
func TestStoreModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		const quota = 10 * 100
		damaged := map[chunk.ID]int{}
		opt := Options{Quota: quota, SyncBytes: 300, OnDamage: func(id chunk.ID) { damaged[id]++ }}
		s, err := Open(dir, opt)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		held, bad := map[chunk.ID]bool{}, map[chunk.ID]bool{}
		pins := map[string][]chunk.ID{}
		isPinned := func(id chunk.ID) bool {
			for _, ids := range pins {
				if slices.Contains(ids, id) {
					return true
				}
			}
			return false
		}
		some := func(rt *rapid.T) []byte { return plain(rapid.IntRange(0, 19).Draw(rt, "chunk"), 100) }
		lose := func(id chunk.ID) { delete(held, id); delete(bad, id) }
		observe := func(rt *rapid.T) { // evictions are the store's choice: only their rules are the model's
			for id := range held {
				if !s.Has(id) {
					if isPinned(id) {
						rt.Fatalf("pinned chunk %s is gone", id)
					}
					lose(id)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				b := some(rt)
				id := chunk.Sum(b)
				added, err := s.Put(id, b)
				if problem.CodeOf(err) == problem.QuotaExceeded && err != nil {
					for h := range held {
						if !isPinned(h) {
							rt.Fatal("quota exceeded with unpinned chunks left")
						}
					}
					return
				}
				if err != nil || added == held[id] {
					rt.Fatalf("added %v, was held %v, %v", added, held[id], err)
				}
				held[id] = true
				observe(rt)
			},
			"get": func(rt *rapid.T) {
				b := some(rt)
				id := chunk.Sum(b)
				got, err := s.Get(id, nil)
				switch {
				case held[id] && !bad[id] && (err != nil || !bytes.Equal(got, b)):
					rt.Fatalf("a good chunk: %v", err)
				case !held[id] && !errors.Is(err, ErrNotFound):
					rt.Fatalf("an absent chunk: %v", err)
				case bad[id]:
					if err == nil || s.Has(id) || damaged[id] == 0 {
						rt.Fatalf("a damaged chunk: %v", err)
					}
					lose(id)
				}
			},
			"pin": func(rt *rapid.T) {
				owner := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "owner")
				pins[owner] = nil
				for range rapid.IntRange(0, 4).Draw(rt, "n") {
					pins[owner] = append(pins[owner], chunk.Sum(some(rt)))
				}
				if err := s.Pin(owner, pins[owner]); err != nil {
					rt.Fatal(err)
				}
			},
			"unpin": func(rt *rapid.T) {
				owner := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "owner")
				delete(pins, owner)
				if err := s.Unpin(owner); err != nil {
					rt.Fatal(err)
				}
			},
			"gc": func(rt *rapid.T) {
				if _, _, err := s.GC(context.Background()); err != nil {
					rt.Fatal(err)
				}
				observe(rt)
				for id := range held {
					if !isPinned(id) {
						rt.Fatal("an unpinned chunk was kept")
					}
				}
			},
			"damage": func(rt *rapid.T) {
				if id := chunk.Sum(some(rt)); held[id] {
					os.WriteFile(s.path(id), []byte("damage"), 0o644)
					bad[id] = true
				}
			},
			"restart": func(rt *rapid.T) {
				s.Close()
				if s, err = Open(dir, opt); err != nil {
					rt.Fatal(err)
				}
			},
			"fsck": func(rt *rapid.T) {
				r, err := s.Fsck(context.Background(), true, nil)
				if err != nil || r.Findings[Damaged] != len(bad) || r.Chunks != len(held)-len(bad) {
					rt.Fatalf("%d held, %d bad, fsck: %+v, %v", len(held), len(bad), r, err)
				}
				for id := range bad {
					lose(id)
				}
			},
			"": func(rt *rapid.T) {
				if st := s.Stats(); st.Chunks != len(held) || st.Bytes > quota {
					rt.Fatalf("%d held, %+v", len(held), st)
				}
				if stray := strays(dir); len(stray) > 0 {
					rt.Fatalf("left behind: %v", stray)
				}
			},
		})
	})
}

// strays are the temporary files below dir.
func strays(dir string) (names []string) {
	filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && len(e.Name()) > 4 && e.Name()[:5] == ".tmp-" {
			names = append(names, name)
		}
		return nil
	})
	return names
}
