package seeder

import (
	"sync"
	"time"
)

// What one node may take over its site's WAN in a day, whatever it says became of it. An uplink that fetches and shares
// nothing, or the same thing again and again, cannot be told from one that is unlucky until it has had its share; a
// site of N nodes that are all like that costs at most N times as much.
const (
	maxSends = 3        // of one chunk to one node that arrived whole: a store that lost it, twice
	maxLost  = 64 << 20 // payload bytes of chunks that were begun and did not arrive: 512 cuts of the line, or so
)

// budget counts it. What it knows is in memory: a seeder that starts anew gives every node a new share.
type budget struct {
	sends int // of a chunk: maxSends, but in tests about something else

	mu    sync.Mutex
	nodes map[string]*share // by peer ID
}

// share is what a node has had on a day.
type share struct {
	day   string
	pages map[uint32]*[sharePage / 4]byte // two bits a chunk
	lost  int64
	over  time.Time // since when it has had all of it; zero: it has not
}

const sharePage = 1024 // chunks

func newBudget() *budget { return &budget{sends: maxSends, nodes: map[string]*share{}} }

// of returns a node's share of the day. The lock is held.
func (b *budget) of(node, day string) *share {
	s := b.nodes[node]
	if s == nil || s.day != day {
		for id, old := range b.nodes { // of other days
			if old.day < day {
				delete(b.nodes, id)
			}
		}
		s = &share{day: day, pages: map[uint32]*[sharePage / 4]byte{}}
		b.nodes[node] = s
	}
	return s
}

// may says whether the node may have the chunk. first is true with the first no of the day.
func (b *budget) may(node, day string, number uint32, now time.Time) (ok, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(node, day)
	if s.over.IsZero() && s.lost <= maxLost && s.sends(number) < b.sends {
		return true, false
	}
	if first = s.over.IsZero(); first {
		s.over = now
	}
	return false, first
}

// sent counts a chunk that arrived, lost the bytes of one that did not.
func (b *budget) sent(node, day string, number uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(node, day)
	p := s.pages[number/sharePage]
	if p == nil {
		p = new([sharePage / 4]byte)
		s.pages[number/sharePage] = p
	}
	if at := number % sharePage; s.sends(number) < 3 {
		p[at/4] += 1 << (2 * (at % 4))
	}
}

func (b *budget) lost(node, day string, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of(node, day).lost += bytes
}

// over says whether the node has had its share, and since when.
func (b *budget) over(node, day string) (since time.Time, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.nodes[node]
	if s == nil || s.day != day {
		return since, false
	}
	return s.over, !s.over.IsZero()
}

func (s *share) sends(number uint32) int {
	p := s.pages[number/sharePage]
	if p == nil {
		return 0
	}
	at := number % sharePage
	return int(p[at/4] >> (2 * (at % 4)) & 3)
}
