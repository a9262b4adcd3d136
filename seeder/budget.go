package seeder

import (
	"sync"
	"time"
)

// What one node may take over its site's WAN in a day, whatever it says became of it. An uplink that fetches and shares
// nothing, or the same thing again and again, cannot be told from one that is unlucky until it has had its share; a
// site of N nodes that are all like that costs at most N times as much.
const (
	maxSends = 3        // of one chunk to one node, whole: a store that lost it, twice
	maxLost  = 64 << 20 // payload bytes of chunks that were begun and not sent whole, and of those sent more often: 64 cuts of the line, or more
)

// budget counts it. What it knows is in memory: a seeder that starts anew gives every node a new share.
type budget struct {
	sends int   // of a chunk: maxSends, but in tests about something else
	most  int64 // maxLost, but in tests that have less to lose

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

func newBudget() *budget { return &budget{sends: maxSends, most: maxLost, nodes: map[string]*share{}} }

// of returns a node's share of the day. The lock is held.
func (b *budget) of(node, day string) *share {
	s := b.nodes[node]
	if s == nil || s.day != day {
		for id, old := range b.nodes { // of days that have ended in every time zone
			if old.day < before(day) {
				delete(b.nodes, id)
			}
		}
		s = &share{day: day, pages: map[uint32]*[sharePage / 4]byte{}}
		b.nodes[node] = s
	}
	return s
}

// before is two days earlier: local days differ by one.
func before(day string) string {
	d, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return ""
	}
	return d.AddDate(0, 0, -2).Format(time.DateOnly)
}

// may says whether the node may have the chunk. first is true with the first no of the day.
func (b *budget) may(node, day string, now time.Time) (ok, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(node, day)
	if s.over.IsZero() && s.lost <= b.most {
		return true, false
	}
	if first = s.over.IsZero(); first {
		s.over = now
	}
	return false, first
}

// sent counts a chunk of so many payload bytes that was sent whole, lost the bytes of one that was not.
func (b *budget) sent(node, day string, number uint32, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of(node, day)
	p := s.pages[number/sharePage]
	if p == nil {
		p = new([sharePage / 4]byte)
		s.pages[number/sharePage] = p
	}
	n, at := s.sends(number), number%sharePage
	if n < maxSends {
		p[at/4] += 1 << (2 * (at % 4))
	}
	if n >= b.sends { // perhaps it never arrived: the line is bad, and the node not to blame
		s.lost += bytes
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
