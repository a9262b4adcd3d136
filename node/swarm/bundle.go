package swarm

import (
	"math"
	"slices"
	"time"
)

// bundle is what this node knows of one bundle: what it holds, what it asked for, and how many neighbours hold each
// chunk. Missing chunks stand in buckets by the number of their holders, so that the rarest is found at once.
type bundle struct {
	id      Bundle
	sizes   []int64
	index   int // the first chunks belong to the index
	wants   bool
	mine    []bool
	req     []int8            // requests under way for a chunk
	holders []int16           // neighbours that hold it
	since   []time.Time       // when holders last grew
	grew    time.Time         // when the catalog last grew
	left    int               // chunks not on disk
	alone   map[int]time.Time // chunks that came over the WAN and that no neighbour holds, since when
	passed  int               // chunks asked of the WAN before the first one, which did not fit the window
	untaken int               // of them, in a row, that nobody took in time

	buckets [][]int32 // missing chunks not asked for, by holders
	place   []int32   // position of a chunk in its bucket, -1: in none
}

func (s *Swarm) bundleAdd(e BundleAdd) {
	b := s.bundles[e.Bundle]
	if b == nil {
		b = &bundle{id: e.Bundle, alone: map[int]time.Time{}}
		s.bundles[e.Bundle] = b
		s.list = append(s.list, b)
	}
	b.wants, b.index = e.Wants, e.Index
	old := len(b.sizes)
	if len(e.Sizes) > old {
		b.sizes, b.grew = slices.Clone(e.Sizes), s.now
		n := len(b.sizes) - old
		b.mine = append(b.mine, make([]bool, n)...)
		b.req = append(b.req, make([]int8, n)...)
		b.holders = append(b.holders, make([]int16, n)...)
		b.since = append(b.since, make([]time.Time, n)...)
		b.place = append(b.place, make([]int32, n)...)
		b.left += n
		for i := old; i < len(b.sizes); i++ {
			b.place[i], b.since[i] = -1, s.now
		}
		for p := range s.trusted {
			for i := old; i < len(b.sizes); i++ {
				if p.have[b.id].has(i) {
					b.holders[i]++
				}
			}
		}
		// Each node begins at another end: a shuffle that follows from who it is.
		numbers := make([]int32, n)
		for i := range numbers {
			numbers[i] = int32(old + i)
		}
		slices.SortFunc(numbers, func(a, c int32) int {
			if mix(s.hash, uint64(a)) < mix(s.hash, uint64(c)) {
				return -1
			}
			return 1
		})
		for _, i := range numbers {
			b.enter(int(i))
		}
	}
	for i, h := range e.Have {
		switch {
		case i >= len(b.sizes):
		case h && !b.mine[i]:
			b.gain(i)
		case !h && b.mine[i]: // the store gave it up
			b.lose(i)
		}
	}
	if b.left == 0 {
		s.do(Complete{b.id})
	}
}

func (s *Swarm) bundleDrop(id Bundle) {
	b := s.bundles[id]
	if b == nil {
		return
	}
	for _, r := range s.byAge() {
		if r.b == b {
			s.drop(r)
			s.do(Cancel{r.id})
		}
	}
	for _, c := range s.conducts {
		delete(c.doubts, id)
	}
	delete(s.bundles, id)
	s.list = slices.DeleteFunc(s.list, func(x *bundle) bool { return x == b })
}

// Holds reports whether this node holds a chunk of a bundle, as far as the swarm has heard.
func (s *Swarm) Holds(id Bundle, n int) bool {
	b := s.bundles[id]
	return b != nil && n < len(b.mine) && b.mine[n]
}

// Rarest is how many nodes of the site, ourselves among them, hold the chunk of a bundle that fewest hold, as far as
// they have told us; 0 also if the bundle is not known.
func (s *Swarm) Rarest(id Bundle) int {
	b := s.bundles[id]
	if b == nil || len(b.holders) == 0 {
		return 0
	}
	least := math.MaxInt
	for i, h := range b.holders {
		if b.mine[i] {
			h++
		}
		least = min(least, int(h))
	}
	return least
}

// enter puts a missing, unasked chunk into its bucket.
func (b *bundle) enter(n int) {
	if b.mine[n] || b.req[n] > 0 || b.place[n] >= 0 {
		return
	}
	h := int(b.holders[n])
	for len(b.buckets) <= h {
		b.buckets = append(b.buckets, nil)
	}
	b.place[n] = int32(len(b.buckets[h]))
	b.buckets[h] = append(b.buckets[h], int32(n))
}

// leave takes it out again.
func (b *bundle) leave(n int) {
	at := b.place[n]
	if at < 0 {
		return
	}
	k := b.buckets[b.holders[n]]
	last := k[len(k)-1]
	k[at], b.place[last] = last, at
	b.buckets[b.holders[n]] = k[:len(k)-1]
	b.place[n] = -1
}

func (b *bundle) addHolder(n, d int, now time.Time) {
	in := b.place[n] >= 0
	b.leave(n)
	b.holders[n] += int16(d)
	if d > 0 {
		b.since[n] = now
		if _, ok := b.alone[n]; ok {
			delete(b.alone, n)
			b.untaken = 0
		}
	}
	if in {
		b.enter(n)
	}
}

func (b *bundle) asked(n, d int) {
	b.leave(n)
	b.req[n] += int8(d)
	b.enter(n)
}

func (b *bundle) gain(n int) {
	b.leave(n)
	b.mine[n] = true
	b.left--
}

func (b *bundle) lose(n int) {
	b.mine[n] = false
	b.left++
	delete(b.alone, n)
	b.enter(n)
}

func (b *bundle) learn(h *haveMap, now time.Time) {
	for n := range b.sizes {
		if h.has(n) {
			b.addHolder(n, 1, now)
		}
	}
}

func (b *bundle) forget(h *haveMap) {
	for n := range b.sizes {
		if h.has(n) {
			b.addHolder(n, -1, time.Time{})
		}
	}
}
