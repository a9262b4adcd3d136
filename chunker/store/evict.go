package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// GC removes every chunk that nobody pins, oldest first, and says what it freed.
func (s *Store) GC(ctx context.Context) (chunks int, bytes int64, err error) {
	s.mu.Lock()
	var candidates []*entry
	for el := s.age.Front(); el != nil; el = el.Next() {
		candidates = append(candidates, el.Value.(*entry))
	}
	s.mu.Unlock()
	for _, e := range candidates {
		if err := ctx.Err(); err != nil {
			return chunks, bytes, err
		}
		s.mu.Lock()
		evicted, err := s.evict(e)
		s.mu.Unlock()
		if err != nil {
			return chunks, bytes, err
		}
		if evicted {
			chunks++
			bytes += e.size
		}
	}
	return chunks, bytes, nil
}

// evict drops one chunk if nobody pins it. While a pin file cannot be read everything counts as pinned.
func (s *Store) evict(e *entry) (bool, error) {
	if s.pinned[e.id] > 0 || len(s.unusable) > 0 {
		return false, nil
	}
	evicted, err := s.drop(e)
	if err != nil {
		return false, fmt.Errorf("evict chunk %s: %w", e.id, err)
	}
	return evicted, nil
}

// makeRoom evicts the oldest unpinned chunks until size more bytes fit under the quota. It evicts nothing if that
// would not be enough.
func (s *Store) makeRoom(size int64) error {
	over := s.bytes + size - s.opt.Quota
	if s.opt.Quota == 0 || over <= 0 {
		return nil
	}
	var victims []*entry
	for el := s.age.Front(); el != nil && over > 0 && len(s.unusable) == 0; el = el.Next() {
		if e := el.Value.(*entry); s.pinned[e.id] == 0 {
			victims = append(victims, e)
			over -= e.size
		}
	}
	if over > 0 {
		p := problem.New(problem.QuotaExceeded, "store %s: %d bytes more do not fit under the quota of %d", s.dir, size, s.opt.Quota).
			WithDone("nothing was removed: everything held is needed by a bundle").WithNext("raise the quota")
		if len(s.unusable) > 0 {
			owners := make([]string, 0, len(s.unusable))
			for o := range s.unusable {
				owners = append(owners, o)
			}
			slices.Sort(owners)
			p.WithDone("nothing was removed: the pin files %q cannot be read", owners).WithNext("run fsck")
		}
		return p
	}
	for _, e := range victims {
		if _, err := s.evict(e); err != nil {
			return err
		}
	}
	return nil
}
