package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// conduct is what this node remembers of how a neighbour behaved. It outlives a session; there is one for each node
// of the roster that was ever connected.
type conduct struct {
	bans    int       // so far
	til     time.Time // banned until then
	fails   int       // requests in a row that it did not serve
	failing time.Time // since when
	rate    float64   // bytes a second at which it has sent chunks of late; 0: not known
	mute    time.Time // until then what it says about the uplink counts for nothing
	charge  string    // why, until the seeder has said that it is not the one that wants nothing sent
	doubts  map[Bundle]map[int]doubt
}

// doubt is what speaks against one claim to hold a chunk.
type doubt struct {
	fails int
	last  time.Time
}

// Bounds of patience with a neighbour that says it holds chunks and delivers none: as long as it counts as a holder,
// nobody takes them over the WAN.
const (
	maxFails    = 2 * DefaultDepth // in a row, of whatever chunk
	maxFailing  = 10 * time.Second
	maxRefusals = 64
	maxDoubt    = 3               // of one chunk: the claim counts for nothing from then on
	doubtEvery  = 2 * time.Second // several refusals at once are one
	banMost     = 24 * time.Hour
	banMemory   = 24 * time.Hour // without a ban, after which the next one is as short as the first
)

func (s *Swarm) conductOf(id Peer) *conduct {
	c := s.conducts[id]
	if c == nil {
		c = &conduct{doubts: map[Bundle]map[int]doubt{}}
		s.conducts[id] = c
	}
	return c
}

// disbelieves: the neighbour is not believed to hold the chunk. For a while: it may have come back in order, and be the
// only one that has it.
func (c *conduct) disbelieves(b Bundle, n int, now time.Time) bool { return c.doubts[b][n].counts(now) }

func (d doubt) counts(now time.Time) bool { return d.fails >= maxDoubt && now.Sub(d.last) < DefaultBan }

// disbelieved lists the chunks of a bundle that the neighbour is not believed to hold.
func (c *conduct) disbelieved(b Bundle, now time.Time) func(func(int) bool) {
	return func(yield func(int) bool) {
		for n, d := range c.doubts[b] {
			if d.counts(now) && !yield(n) {
				return
			}
		}
	}
}

// served notes that a neighbour kept its word.
func (s *Swarm) served(p *neighbour, b *bundle, n int) {
	p.conduct.fails = 0
	delete(p.conduct.doubts[b.id], n)
}

// unkept notes that it did not: it said that it holds chunk n and did not send it when asked.
func (s *Swarm) unkept(p *neighbour, b *bundle, n int, kind status.StrikeKind) {
	c := p.conduct
	of := c.doubts[b.id]
	if of == nil {
		of = map[int]doubt{}
		c.doubts[b.id] = of
	}
	if d := of[n]; s.now.Sub(d.last) >= doubtEvery {
		of[n] = doubt{d.fails + 1, s.now}
	}
	if c.disbelieves(b.id, n, s.now) {
		s.disbelieve(p, b, n)
	}
	s.unserved(p, kind)
}

// disbelieve takes a neighbour's claim to hold a chunk out of the count.
func (s *Swarm) disbelieve(p *neighbour, b *bundle, n int) {
	if h := p.have[b.id]; h.has(n) {
		h.unset(n)
		if !p.banned {
			b.addHolder(n, -1, s.now)
		}
	}
}

// unserved notes a request that a neighbour did not serve, and bans one that serves none.
func (s *Swarm) unserved(p *neighbour, kind status.StrikeKind) {
	c := p.conduct
	if c.fails++; c.fails == 1 {
		c.failing = s.now
	}
	// A round of refusals ends when its store's owner says what it holds; a liar says that it holds it all the same.
	if c.fails >= maxFails && s.now.Sub(c.failing) >= maxFailing || kind == status.StrikeLie && c.fails >= maxRefusals {
		c.fails = 0
		s.ban(p.id, kind, "says that it holds chunks and delivers none")
	}
}

// rest leaves a neighbour that refused in peace, the longer the more often it did.
func (p *neighbour) rest(now time.Time) {
	p.pauseTil = later(p.pauseTil, now.Add(50*time.Millisecond<<min(p.conduct.fails, 5)))
}

// ban makes a neighbour count for nothing for a while: not as a holder, not as one that takes its turn, not as
// uplink.
func (s *Swarm) ban(id Peer, kind status.StrikeKind, why string) {
	c := s.conductOf(id)
	if s.now.Before(c.til) {
		return // it was under way
	}
	if s.now.Sub(c.til) > banMemory {
		c.bans = 0
	}
	length := min(s.cfg.Ban<<min(c.bans, 8), banMost)
	c.bans++
	c.til = s.now.Add(length)
	s.do(Strike{id, kind, why, length})
	s.avoid(id)
}

func (s *Swarm) avoid(id Peer) {
	if p := s.peers[id]; p != nil && !p.banned {
		s.discount(p)
		p.banned = true
	}
}

// banned makes a ban at least so long.
func (s *Swarm) banned(e Banned) {
	c := s.conductOf(e.Peer)
	if c.til = later(c.til, s.now.Add(e.For)); s.now.Before(c.til) {
		s.avoid(e.Peer)
	}
}

// pardon ends the bans whose time has come.
func (s *Swarm) pardon() {
	for _, p := range s.order {
		if p.banned && !s.now.Before(p.conduct.til) {
			p.banned = false
			s.recount(p)
		}
	}
}
