package seeder

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
)

func TestShelf(t *testing.T) {
	var loads atomic.Int64
	broken := errors.New("broken")
	var fail atomic.Bool
	s := newShelf(func(chunk.ID) (encoding.Kind, []byte, error) {
		loads.Add(1)
		if fail.Load() {
			return 0, nil, broken
		}
		return encoding.Plain, make([]byte, chunk.DefaultSize), nil
	})
	id := func(i int) chunk.ID { return chunk.Sum([]byte{byte(i), byte(i >> 8)}) }

	// A thousand sites want one chunk: it is read once.
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			x, err := s.take(id(0))
			if err != nil || len(x.payload) != chunk.DefaultSize {
				t.Error(err)
				return
			}
			s.give(x)
		})
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("one chunk was read %d times", n)
	}
	// What is read at the moment is never dropped; what is not is bounded.
	held, err := s.take(id(0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * shelfBytes / chunk.DefaultSize {
		x, err := s.take(id(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		s.give(x)
	}
	if s.bytes > shelfBytes || s.items[id(0)] != held || len(s.items) != shelfBytes/chunk.DefaultSize+1 {
		t.Errorf("%d bytes idle in %d items", s.bytes, len(s.items))
	}
	s.give(held)
	// A failure is not remembered.
	fail.Store(true)
	if _, err := s.take(id(60000)); !errors.Is(err, broken) {
		t.Error(err)
	}
	fail.Store(false)
	if x, err := s.take(id(60000)); err != nil {
		t.Error(err)
	} else {
		s.give(x)
	}
}
