package swarm

import (
	"math/bits"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
)

// neighbour is a connected node.
type neighbour struct {
	id       Peer
	role     roster.WAN
	hash     uint64
	inFlight int       // requests
	queued   int64     // bytes of them
	pace     pace      // how fast it serves us
	pauseTil time.Time // asked for nothing until then: busy or slow
	banned   bool      // it counts for nothing: what it says is noted for later
	conduct  *conduct  // outlives the session
	holder   Peer      // whom it sees as uplink
	split    bool
	met      bool // it has introduced itself: what it holds was said before whom it sees as uplink
	have     map[Bundle]*haveMap
}

// Bounds of what a neighbour may make us remember: how many bundles whose manifest has not reached us yet, and how
// large a map.
const (
	maxUnknown  = 8
	maxMapBytes = 128 << 10 // of one map, unless the catalog is larger: a million chunks
)

// haveMap is what a neighbour said of one bundle; bits beyond our own catalog are kept for when it grows.
type haveMap struct {
	wants bool
	total int
	bits  []byte
	count int // of bits set
}

func (h *haveMap) has(n int) bool {
	return h != nil && n/8 < len(h.bits) && h.bits[n/8]&(1<<(n%8)) != 0
}

func (h *haveMap) set(n int) {
	for len(h.bits) <= n/8 {
		h.bits = append(h.bits, 0)
	}
	h.bits[n/8] |= 1 << (n % 8)
	h.count++
}

func (h *haveMap) unset(n int) {
	h.bits[n/8] &^= 1 << (n % 8)
	h.count--
}

// lacks: it wants the bundle and does not hold chunk n.
func (h *haveMap) lacks(n int) bool { return h != nil && h.wants && !h.has(n) }

func (s *Swarm) peerUp(e PeerUp) {
	if s.peers[e.Peer] != nil {
		s.peerDown(e.Peer)
	}
	p := &neighbour{id: e.Peer, role: e.Role, hash: hashPeer(e.Peer), have: map[Bundle]*haveMap{}, conduct: s.conductOf(e.Peer)}
	p.banned = s.now.Before(p.conduct.til)
	s.peers[e.Peer] = p
	at := len(s.order)
	for at > 0 && s.order[at-1].hash > p.hash {
		at--
	}
	s.order = slices.Insert(s.order, at, p)
}

func (s *Swarm) peerDown(id Peer) {
	p := s.peers[id]
	if p == nil {
		return
	}
	if p.inFlight > 0 {
		s.unserved(p, status.StrikeStall)
	}
	for _, r := range s.byAge() {
		if r.from == p {
			s.drop(r)
			s.do(Cancel{r.id})
		}
	}
	s.discount(p)
	delete(s.peers, id)
	s.order = slices.DeleteFunc(s.order, func(o *neighbour) bool { return o == p })
}

func (s *Swarm) peerHave(e PeerHave) {
	p := s.peers[e.Peer]
	if p == nil {
		return
	}
	b, old := s.bundles[e.Bundle], p.have[e.Bundle]
	if b == nil && old == nil && len(p.have) >= len(s.bundles)+maxUnknown {
		return // of bundles we have not heard of we remember little
	}
	most := maxMapBytes
	if b != nil {
		most = max(most, (len(b.sizes)+7)/8)
		if old != nil && !p.banned {
			b.forget(old)
		}
	}
	h := &haveMap{wants: e.Wants, total: min(e.Total, 8*most), bits: slices.Clone(e.Bitmap[:min(len(e.Bitmap), most)])}
	for _, x := range h.bits {
		h.count += bits.OnesCount8(x)
	}
	for n := range p.conduct.disbelieved(e.Bundle, s.now) {
		if h.has(n) {
			h.unset(n)
		}
	}
	p.have[e.Bundle] = h
	if b != nil && !p.banned {
		b.learn(h, s.now)
	}
}

func (s *Swarm) peerHaveAdd(e PeerHaveAdd) {
	p := s.peers[e.Peer]
	if p == nil {
		return
	}
	h := p.have[e.Bundle]
	if h == nil {
		return // additions to nothing: the sender will say all of it
	}
	b := s.bundles[e.Bundle]
	for _, u := range e.Numbers {
		n := int(u)
		if n >= h.total && (b == nil || n >= len(b.sizes)) || h.has(n) || p.conduct.disbelieves(e.Bundle, n, s.now) {
			continue
		}
		h.set(n)
		if b != nil && n < len(b.sizes) && !p.banned {
			b.addHolder(n, 1, s.now)
		}
	}
}

// trusted lists the neighbours that are not banned, in the order of their hashes.
func (s *Swarm) trusted(yield func(*neighbour) bool) {
	for _, p := range s.order {
		if !p.banned && !yield(p) {
			return
		}
	}
}

// role takes over what the roster says.
func (s *Swarm) role(e Role) {
	if e.Peer == s.cfg.Self {
		s.cfg.Role = e.Role
	} else if p := s.peers[e.Peer]; p != nil {
		p.role = e.Role
	}
}

// discount takes what a neighbour holds out of the count.
func (s *Swarm) discount(p *neighbour) {
	for _, b := range s.list {
		if h := p.have[b.id]; h != nil && !p.banned {
			b.forget(h)
		}
	}
}

// recount puts it back.
func (s *Swarm) recount(p *neighbour) {
	for _, b := range s.list {
		if h := p.have[b.id]; h != nil {
			b.learn(h, s.now)
		}
	}
}
