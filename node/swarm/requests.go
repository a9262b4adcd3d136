package swarm

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// request is a Fetch under way.
type request struct {
	id   uint32
	from *neighbour // nil: the WAN
	b    *bundle
	n    int
	at   time.Time
}

func (s *Swarm) fetch(p *neighbour, b *bundle, n int) {
	s.lastReq++
	r := &request{id: s.lastReq, from: p, b: b, n: n, at: s.now}
	from := WAN
	if p != nil {
		from = p.id
		s.moved = s.now
		p.ask(s.now, b.sizes[n])
	} else {
		s.wan.ask(s.now, b.sizes[n])
	}
	s.reqs[r.id] = r
	b.asked(n, 1)
	s.do(Fetch{r.id, from, b.id, n})
}

// drop forgets a request.
func (s *Swarm) drop(r *request) {
	delete(s.reqs, r.id)
	r.b.asked(r.n, -1)
	if r.from != nil {
		r.from.inFlight--
		r.from.queued -= r.b.sizes[r.n]
	} else {
		s.wan.inFlight -= r.b.sizes[r.n]
	}
}

// byAge lists the requests in the order they were made, so that actions come in a fixed order.
func (s *Swarm) byAge() []*request {
	return slices.SortedFunc(maps.Values(s.reqs), func(a, b *request) int { return cmp.Compare(a.id, b.id) })
}

func (s *Swarm) stored(id uint32) {
	r := s.reqs[id]
	if r == nil {
		return
	}
	s.drop(r)
	s.disk, s.got, s.barren = disk{}, s.now, 0
	if p := r.from; p != nil {
		s.moved = s.now
		s.served(p, r.b, r.n)
		p.conduct.measure(s.now.Sub(later(r.at, p.pace.last)), r.b.sizes[r.n])
		p.pace.waited(s.now.Sub(r.at))
		p.pace.served(s.now, r.b.sizes[r.n], p.inFlight > 0)
	} else {
		s.wan.stored(s.now, r.b.sizes[r.n])
		if r.b.holders[r.n] == 0 {
			r.b.alone[r.n] = s.now
		}
	}
	if !r.b.mine[r.n] {
		s.gain(r.b, r.n)
	}
}

func (s *Swarm) gain(b *bundle, n int) {
	b.gain(n)
	if b.req[n] > 0 { // a twin of the request that brought it
		for _, r := range s.byAge() {
			if r.b == b && r.n == n && r.from != nil {
				s.drop(r)
				s.do(Cancel{r.id})
			}
		}
	}
	s.do(Announce{b.id, []uint32{uint32(n)}})
	if b.left == 0 {
		s.do(Complete{b.id})
	}
}

func (s *Swarm) failed(id uint32, why Why) {
	r := s.reqs[id]
	if r == nil {
		return
	}
	s.drop(r)
	p := r.from
	switch {
	case why == WhyLocal:
		s.disk.failed(s.now)
	case p == nil && why == WhyNoLease:
		s.loseLease()
	case p == nil && why == WhyCorrupt:
		// The seeder cannot forge, only spoil; ask again, slowly.
		s.wan.pauseTil = s.now.Add(2 * time.Second)
	case p == nil:
		s.wan.pauseTil = s.now.Add(500 * time.Millisecond)
	case why == WhyCorrupt:
		s.ban(p.id, status.StrikeWrongBytes, "sent wrong bytes")
	case why == WhyNotHeld:
		s.disbelieve(p, r.b, r.n)
		s.unkept(p, r.b, r.n, status.StrikeLie)
		p.rest(s.now)
	case why == WhyBusy:
		s.unkept(p, r.b, r.n, status.StrikeStall)
		p.rest(s.now)
	}
}

// expire gives up requests to neighbours that take too long, and neighbours that send too slowly for too long.
func (s *Swarm) expire() {
	for _, r := range s.byAge() {
		if r.from == nil || s.reqs[r.id] == nil || s.now.Before(s.deadline(r)) || r.from.pace.crawls(s.now) {
			continue
		}
		s.drop(r)
		s.do(Cancel{r.id})
		s.do(Strike{r.from.id, status.StrikeStall, "is too slow", 0})
		r.from.pauseTil = later(r.from.pauseTil, s.now.Add(5*time.Second))
		s.unkept(r.from, r.b, r.n, status.StrikeStall)
	}
	for p := range s.trusted {
		if p.pace.drips(s.now, p.inFlight > 0) {
			s.ban(p.id, status.StrikeDrip, "sends drop by drop")
		}
	}
}

// deadline of a chunk from a neighbour. It sends one after the other: the time counts from the last one.
func (s *Swarm) deadline(r *request) time.Time {
	size := time.Duration(r.b.sizes[r.n]) * time.Second / minRate
	return later(r.at, r.from.pace.last).Add(max(s.cfg.Deadline, size, r.from.conduct.allowance(r.b.sizes[r.n])))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
