package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// plain is a chunk's content that differs for every n.
func plain(n, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("chunk %8d.....\n", n)), size/16+1)[:size]
}

func put(t *testing.T, s *Store, b []byte) chunk.ID {
	t.Helper()
	id := chunk.Sum(b)
	added, err := s.Put(id, b)
	if err != nil || !added {
		t.Fatalf("Put: added %v, %v", added, err)
	}
	return id
}

func open(t *testing.T, dir string, opt Options) *Store {
	t.Helper()
	s, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPutGetReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	b := plain(1, 1000)
	id := put(t, s, b)
	if added, err := s.Put(id, b); added || err != nil {
		t.Errorf("second Put: added %v, %v", added, err)
	}
	c := id.String()
	if _, err := os.Stat(filepath.Join(dir, c[len(c)-1:], c)); err != nil {
		t.Errorf("the chunk is not where a person would look: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	buf := make([]byte, 0, chunk.MaxSize)
	got, err := s.Get(id, buf)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("Get after reopening: %d bytes, %v", len(got), err)
	}
	if &got[0] != &buf[:1][0] {
		t.Error("Get did not use the buffer it was given")
	}
	if n, ok := s.Size(id); !ok || n != 1000 || !s.Has(id) {
		t.Errorf("Size = %d, %v", n, ok)
	}
	if _, err := s.Get(chunk.Sum([]byte("else")), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent chunk: %v", err)
	}
	if diff := cmp.Diff(Stats{Chunks: 1, Bytes: 1000}, s.Stats()); diff != "" {
		t.Error(diff)
	}
}

func TestPutRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	b := make([]byte, chunk.MaxSize+1)
	rand.Read(b)
	var corrupt *CorruptError
	if _, err := s.Put(chunk.Sum(b[:10]), b[:11]); !errors.As(err, &corrupt) || problem.CodeOf(err) != problem.ChunkCorrupt {
		t.Errorf("wrong bytes: %v", err)
	} else if corrupt.Got != chunk.Sum(b[:11]) || corrupt.Want != chunk.Sum(b[:10]) {
		t.Errorf("the error names the wrong chunks: %v", corrupt)
	}
	for _, n := range []int{0, chunk.MaxSize + 1} {
		if _, err := s.Put(chunk.Sum(b[:n]), b[:n]); err == nil {
			t.Errorf("a chunk of %d bytes was accepted", n)
		}
	}
	if diff := cmp.Diff([]string{"lock", "pins"}, names(t, dir)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func names(t *testing.T, dir string) (out []string) {
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

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	id := put(t, s, plain(1, 10))
	if _, err := Open(dir, Options{}); problem.CodeOf(err) != problem.Locked {
		t.Errorf("second Open: %v", err)
	}
	r, err := OpenReadOnly(dir) // needs no lock
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := r.Get(id, nil); err != nil || !bytes.Equal(b, plain(1, 10)) {
		t.Errorf("read-only Get: %q, %v", b, err)
	}
	s.Close()
	open(t, dir, Options{})
}

// A damaged chunk is never served: it is dropped, reported once, and can be put again.
func TestDamage(t *testing.T) {
	damage := map[string]func(t *testing.T, name string){
		"flipped bit": func(t *testing.T, name string) {
			b, _ := os.ReadFile(name)
			b[len(b)/2] ^= 1
			os.WriteFile(name, b, 0o644)
		},
		"truncated": func(t *testing.T, name string) { os.Truncate(name, 7) },
		"empty":     func(t *testing.T, name string) { os.Truncate(name, 0) },
		"longer":    func(t *testing.T, name string) { os.Truncate(name, 5000) },
		"too large": func(t *testing.T, name string) { os.Truncate(name, 1<<40) },
		"removed":   func(t *testing.T, name string) { os.Remove(name) },
		"directory": func(t *testing.T, name string) { os.Remove(name); os.MkdirAll(name+"/x", 0o755) },
		"symlink":   func(t *testing.T, name string) { os.Remove(name); os.Symlink("/etc/passwd", name) },
		"fifo":      func(t *testing.T, name string) { os.Remove(name); mkfifo(t, name) },
	}
	for what, harm := range damage {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			var dropped []chunk.ID
			s := open(t, dir, Options{OnDamage: func(id chunk.ID) { dropped = append(dropped, id) }})
			id := put(t, s, plain(1, 1000))
			harm(t, s.path(id))
			r, err := OpenReadOnly(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for i, get := range []func(chunk.ID, []byte) ([]byte, error){r.Get, s.Get} {
				b, err := get(id, nil)
				var corrupt *CorruptError
				if b != nil || !(errors.As(err, &corrupt) || what == "removed" && errors.Is(err, ErrNotFound)) {
					t.Errorf("%s: %d bytes, %v", []string{"reader", "store"}[i], len(b), err)
				}
			}
			if s.Has(id) || len(dropped) != 1 || dropped[0] != id {
				t.Errorf("held %v, reported %v", s.Has(id), dropped)
			}
			put(t, s, plain(1, 1000))
			if _, err := s.Get(id, nil); err != nil {
				t.Errorf("after putting it again: %v", err)
			}
		})
	}
}

// What a loss of power leaves is dropped by Open, or found by the hash.
func TestOpenAfterPowerLoss(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	empty, torn, whole := put(t, s, plain(1, 1000)), put(t, s, plain(2, 1000)), put(t, s, plain(3, 1000))
	stray := filepath.Join(filepath.Dir(s.path(whole)), ".tmp-123")
	os.WriteFile(stray, []byte("half"), 0o600)
	os.Truncate(s.path(empty), 0)
	os.WriteFile(s.path(torn), make([]byte, 1000), 0o644)
	s.Close()
	s = open(t, dir, Options{})
	if s.Has(empty) || !s.Has(torn) || !s.Has(whole) {
		t.Errorf("held: empty %v, torn %v, whole %v", s.Has(empty), s.Has(torn), s.Has(whole))
	}
	if _, err := s.Get(torn, nil); problem.CodeOf(err) != problem.ChunkCorrupt {
		t.Errorf("torn: %v", err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
	if r, err := s.Fsck(context.Background(), false, nil); err != nil || !r.Clean() || r.Chunks != 1 {
		t.Errorf("fsck: %+v, %v", r, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := open(t, t.TempDir(), Options{Quota: 40 * 1000, SyncBytes: 5000})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 60 {
				b := plain((n*7+w)%50, 1000)
				id := chunk.Sum(b)
				if _, err := s.Put(id, b); err != nil {
					t.Errorf("Put: %v", err)
				}
				if got, err := s.Get(id, nil); err == nil && !bytes.Equal(got, b) {
					t.Error("wrong bytes served")
				} else if err != nil && !errors.Is(err, ErrNotFound) { // evicted meanwhile
					t.Errorf("Get: %v", err)
				}
				if n%20 == 0 {
					s.GC(context.Background())
				}
			}
		})
	}
	wg.Wait()
	r, err := s.Fsck(context.Background(), false, nil)
	if st := s.Stats(); err != nil || !r.Clean() || r.Bytes != st.Bytes || r.Chunks != st.Chunks || st.Bytes > 40*1000 {
		t.Errorf("fsck %+v, stats %+v, %v", r, st, err)
	}
}

// What was put is served from memory, within the bound; what is not there any more is read again and verified.
func TestFresh(t *testing.T) {
	const size = 1000
	for _, c := range []struct {
		name   string
		fresh  int64
		served int // of eight chunks whose files were spoilt
	}{{"none", 0, 0}, {"five", 5*size + size/2, 5}, {"all", 8 * size, 8}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{Fresh: c.fresh})
			defer s.Close()
			var ids []chunk.ID
			for n := range 8 {
				ids = append(ids, put(t, s, plain(n, size)))
				if err := os.WriteFile(filepath.Join(dir, Name(ids[n])), []byte("spoilt"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			served := 0
			for n := range ids {
				b, release, err := s.Borrow(ids[7-n])
				if err != nil {
					continue
				}
				if !bytes.Equal(b, plain(7-n, size)) {
					t.Errorf("chunk %d: other bytes", 7-n)
				}
				release()
				served++
			}
			if served != c.served || len(s.fresh.by) != c.served || len(s.Held()) != c.served {
				t.Errorf("served %d, %d in memory, %d held; want %d", served, len(s.fresh.by), len(s.Held()), c.served)
			}
		})
	}
}

// A buffer that is borrowed is not used for another chunk, and a chunk that was evicted is not served from memory.
func TestFreshIsLent(t *testing.T) {
	s := open(t, t.TempDir(), Options{Fresh: 2 * chunk.DefaultSize})
	defer s.Close()
	first := put(t, s, plain(0, chunk.DefaultSize))
	b, release, err := s.Borrow(first)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		put(t, s, plain(n+1, chunk.DefaultSize))
	}
	if chunk.Sum(b) != first {
		t.Error("a borrowed buffer was written to")
	}
	release()
	if k := len(s.fresh.spare); k == 0 || k > maxSpare {
		t.Errorf("%d spare buffers", k)
	}
	if s.GiveBack(); len(s.fresh.by) != 0 || s.fresh.bytes != 0 || s.fresh.age.Len() != 0 || len(s.fresh.spare) != 0 {
		t.Errorf("%d chunks in memory, %d bytes, %d spare buffers after they were given back", len(s.fresh.by), s.fresh.bytes, len(s.fresh.spare))
	}
	if _, _, err := s.GC(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Borrow(first); !errors.Is(err, ErrNotFound) || s.fresh.bytes != 0 {
		t.Errorf("after GC: %v, %d bytes in memory", err, s.fresh.bytes)
	}
}
