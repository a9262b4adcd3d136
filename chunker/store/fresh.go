package store

import (
	"container/list"
	"slices"
	"sync"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// fresh keeps the chunks that were put or read last in memory, within max bytes: neighbours ask for a chunk moments
// after it came, and to open, read and hash a file again for each of them would cost more than all the rest of serving
// it. What is in it was hashed by this process and is never written to. Its methods are safe for concurrent use.
type fresh struct {
	max int64

	mu    sync.Mutex // guards all below
	by    map[chunk.ID]*copied
	age   *list.List // of *copied, the one used longest ago first
	bytes int64      // of by
	spare [][]byte   // buffers that nobody uses, each of one to four times the usual size
}

// copied is a chunk in memory. Its buffer is used again when nobody reads it any more.
type copied struct {
	id    chunk.ID
	plain []byte
	refs  int // readers, and one for being in by
	at    *list.Element
}

// maxSpare bounds the buffers kept for use.
const maxSpare = 4

func newFresh(most int64) *fresh {
	return &fresh{max: most, by: map[chunk.ID]*copied{}, age: list.New()}
}

// buffer returns one of n bytes, to be given to keep: a spare one that is large enough and not much larger, or a new one.
func (f *fresh) buffer(n int) []byte {
	size := (n + chunk.DefaultSize - 1) / chunk.DefaultSize * chunk.DefaultSize
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, b := range f.spare {
		if cap(b) == size {
			f.spare = slices.Delete(f.spare, i, i+1)
			return b[:n]
		}
	}
	return make([]byte, n, size)
}

// keep takes over a buffer with a chunk's verified bytes and returns it for reading until it is released.
func (f *fresh) keep(id chunk.ID, plain []byte) *copied {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &copied{id: id, plain: plain, refs: 1}
	if f.by[id] != nil || int64(len(plain)) > f.max {
		return c
	}
	for f.bytes+int64(len(plain)) > f.max {
		f.evict(f.age.Front().Value.(*copied))
	}
	c.refs++
	c.at = f.age.PushBack(c)
	f.by[id] = c
	f.bytes += int64(len(plain))
	return c
}

// borrow returns a chunk for reading until it is released, nil if it is not here.
func (f *fresh) borrow(id chunk.ID) *copied {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.by[id]
	if c != nil {
		c.refs++
		f.age.MoveToBack(c.at)
	}
	return c
}

func (f *fresh) release(c *copied) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unref(c)
}

// forget drops a chunk that the store does not hold any more.
func (f *fresh) forget(id chunk.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.by[id]; c != nil {
		f.evict(c)
	}
}

// clear drops all that is here, and the buffers kept for use.
func (f *fresh) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.age.Len() > 0 {
		f.evict(f.age.Front().Value.(*copied))
	}
	f.spare = nil
}

func (f *fresh) evict(c *copied) {
	delete(f.by, c.id)
	f.age.Remove(c.at)
	f.bytes -= int64(len(c.plain))
	f.unref(c)
}

func (f *fresh) unref(c *copied) {
	if c.refs--; c.refs > 0 || cap(c.plain)%chunk.DefaultSize != 0 {
		return
	}
	if len(f.spare) == maxSpare { // the oldest is of a size that nobody asked for
		f.spare = slices.Delete(f.spare, 0, 1)
	}
	f.spare = append(f.spare, c.plain)
}
