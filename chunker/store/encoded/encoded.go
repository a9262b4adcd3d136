// Package encoded keeps the encoded copies of chunks that a seeder sends over thin links, beside the plain chunks
// of chunker/store: DIR/ab/<cid>.zst. It is a cache: every copy can be made again from the plain chunk, nothing here
// is fsynced, and a copy that is damaged is deleted and the chunk sent plain. It is a package of its own so that who only
// reads plain chunks does not link a decompressor. All methods are safe for concurrent use.
package encoded

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/encoding"
)

const suffix = ".zst"

// ErrNotFound says that there is no encoded copy: send the chunk plain.
var ErrNotFound = errors.New("chunk has no encoded copy")

// Cache is a directory of encoded copies.
type Cache struct{ dir string }

// Open opens or creates the cache in dir. The store's lock guards it too: keep it beside the store.
func Open(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("encoded copies: %w", err)
	}
	return &Cache{dir}, nil
}

func (c *Cache) path(id chunk.ID) string {
	s := id.String()
	return filepath.Join(c.dir, s[len(s)-2:], s+suffix)
}

// Put encodes a chunk's verified plain bytes and keeps the copy where it saves at least a tenth; kept says so.
func (c *Cache) Put(id chunk.ID, plain []byte) (kept bool, err error) {
	kind, enc := encoding.Encode(plain)
	if kind != encoding.Zstd {
		return false, nil
	}
	name := c.path(id)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return false, fmt.Errorf("encoded copy of %s: %w", id, err)
	}
	// A file is the sha256 of the encoded bytes and then these: they are checked without decoding them.
	sum := sha256.Sum256(enc)
	tmp, err := durable.Temp(filepath.Dir(name), append(sum[:], enc...), 0o644)
	if err != nil {
		return false, fmt.Errorf("encoded copy of %s: %w", id, err)
	}
	var b durable.Batch // never synced: a loss of power costs the copy
	if err := b.Place(tmp, name, int64(len(enc))); err != nil {
		os.Remove(tmp)
		return false, fmt.Errorf("encoded copy of %s: %w", id, err)
	}
	return true, nil
}

// Get returns the encoded copy of a chunk, verified, or ErrNotFound. A damaged copy is deleted and not found.
func (c *Cache) Get(id chunk.ID) (encoding.Kind, []byte, error) {
	f, err := os.Open(c.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return encoding.Plain, nil, fmt.Errorf("chunk %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return encoding.Plain, nil, fmt.Errorf("encoded copy of %s: %w", id, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, chunk.MaxSize+sha256.Size))
	if err == nil && len(b) > sha256.Size {
		if sum := sha256.Sum256(b[sha256.Size:]); bytes.Equal(sum[:], b[:sha256.Size]) {
			return encoding.Zstd, b[sha256.Size:], nil
		}
	}
	os.Remove(c.path(id))
	return encoding.Plain, nil, fmt.Errorf("chunk %s: damaged copy deleted: %w", id, ErrNotFound)
}

// Prune deletes the copies of chunks that are no longer wanted, and what interrupted writes left.
func (c *Cache) Prune(wanted func(chunk.ID) bool) error {
	return filepath.WalkDir(c.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		cid, ok := strings.CutSuffix(e.Name(), suffix)
		id, perr := chunk.Parse(cid)
		if strings.HasPrefix(e.Name(), durable.TempPrefix) || ok && perr == nil && !wanted(id) {
			return os.Remove(name)
		}
		return nil
	})
}
