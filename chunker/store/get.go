package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// Get returns a chunk's plain bytes, verified, in buf if it is large enough. Errors: ErrNotFound; *CorruptError for
// a damaged file, which is then already dropped and reported.
func (s *Store) Get(id chunk.ID, buf []byte) ([]byte, error) {
	s.mu.Lock()
	e := s.held[id]
	s.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("chunk %s: %w", id, ErrNotFound)
	}
	b, err := read(s.root, id, buf, s.opt.DropCache)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, ErrNotFound) {
		return nil, errors.Join(err, s.damaged(e))
	}
	return b, err
}

// Borrow returns a chunk's plain bytes, verified, to be read and not changed until release is called. What is borrowed
// stays in memory for the next one who asks, within Options.Fresh. Errors are those of Get.
func (s *Store) Borrow(id chunk.ID) (plain []byte, release func(), err error) {
	c := s.fresh.borrow(id)
	if c == nil {
		size, ok := s.Size(id)
		if !ok {
			return nil, nil, fmt.Errorf("chunk %s: %w", id, ErrNotFound)
		}
		b, err := s.Get(id, s.fresh.buffer(int(size)))
		if err != nil {
			return nil, nil, err
		}
		c = s.keep(id, b)
	}
	return c.plain, func() { s.fresh.release(c) }, nil
}

// GiveBack lets go of the chunks in memory: nobody is expected to ask soon.
func (s *Store) GiveBack() { s.fresh.clear() }

// keep makes verified bytes of a chunk fresh, if the store still holds it.
func (s *Store) keep(id chunk.ID, plain []byte) *copied {
	c := s.fresh.keep(id, plain)
	if !s.Has(id) { // dropped meanwhile: memory must not serve what was taken back
		s.fresh.forget(id)
	}
	return c
}

// damaged drops a chunk whose file is bad and tells OnDamage, unless the chunk was put again meanwhile.
func (s *Store) damaged(e *entry) error {
	s.mu.Lock()
	dropped, err := s.drop(e)
	s.mu.Unlock()
	if dropped && s.opt.OnDamage != nil {
		s.opt.OnDamage(e.id)
	}
	return err
}

// Reader reads a store that another process owns: it takes no lock, lists nothing and changes nothing. It trusts
// nothing in the directory either, which may belong to a less privileged user: it follows no link out of it, opens
// nothing but regular files and hands out nothing unverified.
type Reader struct{ root *os.Root }

// OpenReadOnly opens the store in dir for reading.
func OpenReadOnly(dir string) (*Reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Reader{root}, nil
}

// Get returns a chunk's plain bytes, verified, in buf if it is large enough. Errors: ErrNotFound, *CorruptError.
func (r *Reader) Get(id chunk.ID, buf []byte) ([]byte, error) { return read(r.root, id, buf, false) }

// Close releases the directory.
func (r *Reader) Close() error { return r.root.Close() }

// read reads and verifies one chunk. A file that is not regular, too large or unreadable by the disk counts as corrupt.
func read(root *os.Root, id chunk.ID, buf []byte, drop bool) ([]byte, error) {
	// O_NONBLOCK: a fifo in the place of a chunk must not hang the reader.
	f, err := root.OpenFile(Name(id), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("chunk %s: %w", id, ErrNotFound)
	case errors.Is(err, unix.EIO) || err != nil && irregular(root, id):
		return nil, &CorruptError{Want: id}
	case err != nil:
		return nil, fmt.Errorf("chunk %s: %w", id, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", id, err)
	}
	if !info.Mode().IsRegular() || info.Size() > chunk.MaxSize {
		return nil, &CorruptError{Want: id}
	}
	if int64(cap(buf)) < info.Size() {
		buf = make([]byte, info.Size())
	}
	n, err := io.ReadFull(f, buf[:info.Size()])
	if drop {
		durable.DropCache(f)
	}
	if errors.Is(err, unix.EIO) { // the disk cannot read it: for the store that is the same as wrong bytes
		return nil, &CorruptError{Want: id}
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("chunk %s: %w", id, err)
	}
	if got := chunk.Sum(buf[:n]); got != id {
		return nil, &CorruptError{Want: id, Got: got}
	}
	return buf[:n], nil
}

// irregular reports whether something else than a file stands in a chunk's place, such as a link out of the store.
func irregular(root *os.Root, id chunk.ID) bool {
	info, err := root.Lstat(Name(id))
	return err == nil && !info.Mode().IsRegular()
}
