package seeder

import (
	"container/list"
	"sync"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
)

// shelfBytes is how much of what nobody is reading any more stays at hand. Sites fetch the same bundle at about the same
// time: most of what one wants another has just had.
const shelfBytes = 32 << 20

// shelf shares the chunks on their way out among sessions: each is read and verified once, and is in memory once, however
// many sites it is sent to.
type shelf struct {
	load func(chunk.ID) (encoding.Kind, []byte, error)

	mu    sync.Mutex
	items map[chunk.ID]*item
	idle  *list.List // of *item that nobody reads, oldest first
	bytes int        // of idle
}

type item struct {
	id      chunk.ID
	ready   chan struct{} // closed when the fields below are set; they do not change then
	kind    encoding.Kind
	payload []byte
	err     error

	readers int           // guarded by shelf.mu
	at      *list.Element // in idle, nil while there are readers
}

func newShelf(load func(chunk.ID) (encoding.Kind, []byte, error)) *shelf {
	return &shelf{load: load, items: map[chunk.ID]*item{}, idle: list.New()}
}

// take returns a chunk that is not to be changed; give it back.
func (s *shelf) take(id chunk.ID) (*item, error) {
	s.mu.Lock()
	x, found := s.items[id]
	if !found {
		x = &item{id: id, ready: make(chan struct{})}
		s.items[id] = x
	}
	if x.readers++; x.at != nil {
		s.idle.Remove(x.at)
		s.bytes -= len(x.payload)
		x.at = nil
	}
	s.mu.Unlock()
	if !found {
		x.kind, x.payload, x.err = s.load(id)
		close(x.ready)
	}
	<-x.ready // a disk's time
	if x.err != nil {
		s.give(x)
		return nil, x.err
	}
	return x, nil
}

// give ends one reading.
func (s *shelf) give(x *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.readers--; x.readers > 0 {
		return
	}
	if x.err != nil { // the next one tries again
		delete(s.items, x.id)
		return
	}
	x.at = s.idle.PushBack(x)
	for s.bytes += len(x.payload); s.bytes > shelfBytes; {
		old := s.idle.Remove(s.idle.Front()).(*item)
		delete(s.items, old.id)
		s.bytes -= len(old.payload)
	}
}
