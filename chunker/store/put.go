package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// Put stores plain bytes of 1 to chunk.MaxSize under their identity; added is false if the chunk was already held.
// Errors: *CorruptError if the bytes have another identity; *problem.Error with code QuotaExceeded if nothing
// unpinned is left to evict, or DiskFull. A Put that fails leaves nothing behind; if only the Sync that it called
// fails, added is true beside the error.
func (s *Store) Put(id chunk.ID, plain []byte) (added bool, err error) {
	if got := chunk.Sum(plain); got != id {
		return false, &CorruptError{Want: id, Got: got}
	}
	if len(plain) < 1 || len(plain) > chunk.MaxSize {
		return false, fmt.Errorf("chunk %s has %d bytes: want 1 to %d", id, len(plain), chunk.MaxSize)
	}
	size := int64(len(plain))
	if held, err := s.reserve(id, size); held || err != nil {
		return false, err
	}
	added, err = s.write(id, plain)
	if !added {
		s.release(size)
	}
	if err != nil {
		return false, mapError(fmt.Errorf("store chunk %s: %w", id, err))
	}
	if added && size <= s.opt.Fresh {
		b := s.fresh.buffer(len(plain))
		copy(b, plain)
		s.fresh.release(s.keep(id, b))
	}
	if s.batch.Pending() >= s.opt.SyncBytes {
		if err := s.Sync(); err != nil {
			return added, err
		}
	}
	return added, nil
}

// write makes the file and adds the chunk to the set.
func (s *Store) write(id chunk.ID, plain []byte) (added bool, err error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	name := s.path(id)
	dir := filepath.Dir(name)
	tmp, err := durable.Temp(dir, plain, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, err
		}
		s.batch.Touch(s.dir)
		tmp, err = durable.Temp(dir, plain, 0o644)
	}
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[id] != nil { // another Put of the same chunk was faster
		return false, os.Remove(tmp)
	}
	if err := s.batch.Place(tmp, name, int64(len(plain))); err != nil {
		os.Remove(tmp)
		return false, err
	}
	s.insert(id, int64(len(plain)))
	return true, nil
}

// reserve counts the bytes of a chunk about to be written, making room under the quota first.
func (s *Store) reserve(id chunk.ID, size int64) (held bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[id] != nil {
		return true, nil
	}
	if err := s.makeRoom(size); err != nil {
		return false, err
	}
	s.bytes += size
	return false, nil
}

func (s *Store) release(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= size
}

// Unsynced is how many bytes were put since the last Sync began.
func (s *Store) Unsynced() int64 { return s.batch.Pending() }

// Sync makes every chunk put so far survive a loss of power. A chunk that the disk refuses is dropped and reported
// like a damaged one.
func (s *Store) Sync() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	lost, err := s.batch.Sync()
	for _, name := range lost {
		id, perr := chunk.Parse(filepath.Base(name))
		if perr != nil {
			continue
		}
		s.mu.Lock()
		e := s.held[id]
		s.mu.Unlock()
		if e != nil {
			err = errors.Join(err, s.damaged(e))
		}
	}
	if err != nil {
		return mapError(fmt.Errorf("store sync: %w", err))
	}
	return nil
}
