package encoded

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
)

func TestCopies(t *testing.T) {
	c, err := Open(filepath.Join(t.TempDir(), "encoded"))
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("price 4711 = 12.95\n"), 5000)
	noise := make([]byte, 1000)
	rand.Read(noise)
	if kept, err := c.Put(chunk.Sum(text), text); !kept || err != nil {
		t.Fatalf("text: kept %v, %v", kept, err)
	}
	if kept, err := c.Put(chunk.Sum(noise), noise); kept || err != nil {
		t.Errorf("noise: kept %v, %v", kept, err)
	}
	k, enc, err := c.Get(chunk.Sum(text))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := encoding.Decode(k, int64(len(text)), enc); err != nil || !bytes.Equal(plain, text) {
		t.Errorf("decoded: %v", err)
	}
	if _, _, err := c.Get(chunk.Sum(noise)); !errors.Is(err, ErrNotFound) {
		t.Errorf("noise: %v", err)
	}
}

// A damaged copy is never sent: the chunk goes plain.
func TestDamagedCopy(t *testing.T) {
	c, _ := Open(t.TempDir())
	text := bytes.Repeat([]byte("price 4711 = 12.95\n"), 5000)
	id := chunk.Sum(text)
	for what, harm := range map[string]func(b []byte) []byte{
		"flipped bit": func(b []byte) []byte { b[len(b)-3] ^= 1; return b },
		"truncated":   func(b []byte) []byte { return b[:40] },
		"empty":       func([]byte) []byte { return nil },
		"sum only":    func(b []byte) []byte { return b[:32] },
		"huge":        func(b []byte) []byte { return append(b, make([]byte, 2*chunk.MaxSize)...) },
	} {
		c.Put(id, text)
		b, _ := os.ReadFile(c.path(id))
		os.WriteFile(c.path(id), harm(b), 0o644)
		if _, enc, err := c.Get(id); enc != nil || !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(c.path(id)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the copy is still there", what)
		}
	}
}

func TestPrune(t *testing.T) {
	c, _ := Open(t.TempDir())
	keep, drop := bytes.Repeat([]byte("keep"), 1000), bytes.Repeat([]byte("drop"), 1000)
	c.Put(chunk.Sum(keep), keep)
	c.Put(chunk.Sum(drop), drop)
	os.WriteFile(filepath.Join(filepath.Dir(c.path(chunk.Sum(drop))), ".tmp-1"), nil, 0o644)
	if err := c.Prune(func(id chunk.ID) bool { return id == chunk.Sum(keep) }); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(c.dir, "*", "*"))
	hidden, _ := filepath.Glob(filepath.Join(c.dir, "*", ".*"))
	if len(files) != 1 || len(hidden) != 0 || files[0] != c.path(chunk.Sum(keep)) {
		t.Errorf("left: %v %v", files, hidden)
	}
}
