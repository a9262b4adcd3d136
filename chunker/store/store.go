// Package store keeps verified chunks as plain files: DIR/a/<cid>, where a is the last character of the cid, one of
// eight. It knows chunks and who pins them; it knows nothing of bundles, networks or encodings (a seeder keeps
// encoded copies in chunker/store/encoded).
//
// # What is promised
//
// A chunk is hashed before it is written and again every time it is read from the disk, so nothing that does not match
// its identity is ever handed out. With Options.Fresh the chunks put or read last stay in memory, and are served from
// there. A chunk whose file went bad is dropped from the set, its file deleted, and
// Options.OnDamage told, so that a good copy can be fetched.
//
// A chunk that Put accepted survives the death of the process at any instant: it was written under a temporary
// name and renamed. It survives a loss of power after the next Sync. An fsync for every chunk would cost more than
// everything else together, so Put itself calls Sync each time Options.SyncBytes have come together: that bounds
// what a loss of power can take. An owner that does not want Put to wait for a disk calls Sync beside it, earlier:
// Unsynced says when. Such a loss may leave a name with torn or no content; Open drops files of an
// impossible size, and a reader's hash finds the rest. Whoever is about to persist a claim that depends on chunks
// ("staged") calls Sync first.
//
// # Files and locks
//
//	DIR/lock         held with flock for as long as the store is open
//	DIR/a/<cid>      a chunk, mode 0644
//	DIR/a/.tmp-*     a write that did not finish; removed by Open
//	DIR/pins/<owner> the chunks an owner needs, one cid a line, and a checksum line
//
// All methods are safe for concurrent use. OnDamage is called without any lock held.
package store

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// DefaultSyncBytes bounds what a loss of power takes: 64 chunks of the usual size. Larger gains little, see the
// benchmark BenchmarkPut.
const DefaultSyncBytes = 16 << 20

const (
	lockName = "lock"
	pinsName = "pins"
)

// ErrNotFound says that the store does not hold a chunk.
var ErrNotFound = errors.New("chunk is not in the store")

// Options configure a store. The zero value works.
type Options struct {
	// Quota bounds the plain bytes of the chunks held; 0 is no bound.
	Quota int64
	// SyncBytes is how many bytes Put lets come together before it calls Sync; 0 is DefaultSyncBytes.
	SyncBytes int64
	// Fresh bounds the bytes of chunks kept in memory to be served from there; 0: none are kept.
	Fresh int64
	// DropCache keeps the chunks out of the kernel's cache once they are on the disk, and after they were read: on a
	// machine that has other work, whose files should be in it.
	DropCache bool
	// OnDamage is told each chunk that was dropped because its file was bad or missing.
	OnDamage func(chunk.ID)
}

// Store is an open store. Close it.
type Store struct {
	dir   string
	opt   Options
	lock  *os.File
	root  *os.Root
	batch durable.Batch
	fresh *fresh

	syncing sync.Mutex   // one Sync at a time
	pinning sync.Mutex   // one change of pins at a time
	writing sync.RWMutex // held for reading while temporary files exist, for writing to remove strays

	mu       sync.Mutex // owns everything below, and every rename to and removal of a chunk's name
	held     map[chunk.ID]*entry
	age      *list.List // of *entry, oldest first
	bytes    int64      // of held, and of puts under way
	pins     map[string][]chunk.ID
	pinned   map[chunk.ID]int // by how many owners
	unusable map[string]bool  // owners whose pin file cannot be read: nothing is evicted while there is one
}

// entry is one held chunk. Its address tells a chunk from the same chunk put again later.
type entry struct {
	id   chunk.ID
	size int64
	at   *list.Element
}

// Open opens or creates the store in dir and takes its lock; the error is a *problem.Error with code Locked if
// another process has it. The set of held chunks comes from file names and sizes; no content is read.
func Open(dir string, opt Options) (*Store, error) {
	if opt.SyncBytes == 0 {
		opt.SyncBytes = DefaultSyncBytes
	}
	if err := os.MkdirAll(filepath.Join(dir, pinsName), 0o755); err != nil {
		return nil, mapError(fmt.Errorf("store %s: %w", dir, err))
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{dir: dir, opt: opt, lock: lock, root: root, fresh: newFresh(opt.Fresh),
		held: make(map[chunk.ID]*entry), age: list.New(),
		pins: make(map[string][]chunk.ID), pinned: make(map[chunk.ID]int), unusable: make(map[string]bool)}
	s.batch.DropCache = opt.DropCache
	if err := errors.Join(s.adopt(), s.load(), s.loadPins()); err != nil {
		s.Close()
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return s, nil
}

// Close makes every chunk durable and releases the lock.
func (s *Store) Close() error {
	return errors.Join(s.Sync(), s.root.Close(), s.lock.Close())
}

// load fills the set of held chunks, oldest first, and removes what an interrupted write left.
func (s *Store) load() error {
	type found struct {
		id   chunk.ID
		size int64
		at   time.Time
	}
	var all []found
	err := s.eachFile(func(shard string, e fs.DirEntry) error {
		name := filepath.Join(s.dir, shard, e.Name())
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			return os.Remove(name)
		}
		id, ok := idOf(shard, e)
		if !ok {
			return nil // not ours: Fsck names it
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() < 1 || info.Size() > chunk.MaxSize {
			return os.Remove(name) // torn by a loss of power
		}
		all = append(all, found{id, info.Size(), info.ModTime()})
		return nil
	})
	slices.SortFunc(all, func(a, b found) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	for _, f := range all {
		s.bytes += f.size
		s.insert(f.id, f.size)
	}
	return err
}

// eachFile calls fn for every entry of every shard directory.
func (s *Store) eachFile(fn func(shard string, e fs.DirEntry) error) error {
	shards, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, sh := range shards {
		if !sh.IsDir() || len(sh.Name()) != shardLetters {
			continue
		}
		es, err := os.ReadDir(filepath.Join(s.dir, sh.Name()))
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := fn(sh.Name(), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// idOf reads the identity from a file's name, if it is a regular file in the right place.
func idOf(shard string, e fs.DirEntry) (chunk.ID, bool) {
	id, err := chunk.Parse(e.Name())
	return id, err == nil && e.Type().IsRegular() && strings.HasSuffix(e.Name(), shard)
}

// shardLetters of a cid name its directory. The last one is one of eight: few directories to make, and to flush, and
// a million chunks are not too many for each.
const shardLetters = 1

// Name is a chunk's file name below DIR.
func Name(id chunk.ID) string {
	c := id.String()
	return filepath.Join(c[len(c)-shardLetters:], c)
}

func (s *Store) path(id chunk.ID) string { return filepath.Join(s.dir, Name(id)) }

// insert adds a chunk as the newest. Its bytes are already counted.
func (s *Store) insert(id chunk.ID, size int64) {
	e := &entry{id: id, size: size}
	e.at = s.age.PushBack(e)
	s.held[id] = e
}

// drop removes e and its file if e is still what the set holds.
func (s *Store) drop(e *entry) (dropped bool, err error) {
	if s.held[e.id] != e {
		return false, nil
	}
	if err := os.RemoveAll(s.path(e.id)); err != nil {
		return false, err
	}
	delete(s.held, e.id)
	s.fresh.forget(e.id)
	s.age.Remove(e.at)
	s.bytes -= e.size
	return true, nil
}

// Has reports whether the store holds a chunk. It costs a map look-up.
func (s *Store) Has(id chunk.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id] != nil
}

// Size is the plain size of a held chunk in bytes.
func (s *Store) Size(id chunk.ID) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.held[id]; e != nil {
		return e.size, true
	}
	return 0, false
}

// Held lists the chunks, oldest first.
func (s *Store) Held() []chunk.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]chunk.ID, 0, len(s.held))
	for el := s.age.Front(); el != nil; el = el.Next() {
		ids = append(ids, el.Value.(*entry).id)
	}
	return ids
}

// Stats says how much the store holds.
type Stats struct {
	Chunks      int   `json:"chunks"`
	Bytes       int64 `json:"bytes"`
	PinnedBytes int64 `json:"pinnedBytes"`
	Quota       int64 `json:"quota"` // 0 is no bound
}

// Stats counts the chunks and bytes held.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Chunks: len(s.held), Bytes: s.bytes, Quota: s.opt.Quota}
	for id := range s.pinned {
		if e := s.held[id]; e != nil {
			st.PinnedBytes += e.size
		}
	}
	return st
}
