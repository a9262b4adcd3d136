package swarm

import "time"

// scanLimit bounds how many chunks one Step looks at for a free place: with more missing chunks than that, some
// other chunk has a turn for us.
const scanLimit = 512

// plan fills the free places with requests.
func (s *Swarm) plan() {
	if s.disk.bad(s.now) || s.leave.asked {
		return
	}
	if s.leads() {
		s.planWAN()
	}
	lan := 0
	for _, p := range s.order {
		lan += p.inFlight
	}
	for _, b := range s.list {
		if lan >= s.cfg.InFlight {
			return
		}
		lan += s.planLAN(b, s.cfg.InFlight-lan)
	}
	if lan < s.cfg.InFlight {
		s.hedge(s.cfg.InFlight - lan)
	}
}

// Bounds of asking for a chunk once more, of another holder: how long the first one sent nothing at all, and how many
// requests there are for one chunk.
const (
	hedgeAfter = 2 * time.Second
	maxTwins   = 4
)

// hedge asks other holders for what is late, when there is room that nothing else needs: it is the only reason why
// bytes may come twice over the LAN.
func (s *Swarm) hedge(room int) {
	for _, r := range s.byAge() {
		if room == 0 {
			return
		}
		if r.from == nil || r.b.req[r.n] >= maxTwins || s.now.Sub(later(r.at, r.from.pace.last)) < hedgeAfter*time.Duration(r.b.req[r.n]) {
			continue
		}
		asked := map[*neighbour]bool{}
		for _, o := range s.reqs {
			if o.b == r.b && o.n == r.n {
				asked[o.from] = true
			}
		}
		for p := range s.trusted {
			if p.have[r.b.id].has(r.n) && !asked[p] && s.free(p, r.b.sizes[r.n]) {
				s.fetch(p, r.b, r.n)
				room--
				break
			}
		}
	}
}

// free: the neighbour can be asked for one more chunk.
func (s *Swarm) free(p *neighbour, size int64) bool {
	return p.inFlight < s.depth() && !s.now.Before(p.pauseTil) && p.keepsUp(size)
}

// planLAN asks neighbours for up to room chunks of a bundle and says how many it asked for.
func (s *Swarm) planLAN(b *bundle, room int) (asked int) {
	ahead, scanned := s.ahead(b), 0
	for h := 1; h < len(b.buckets); h++ {
		for i := 0; i < len(b.buckets[h]); i++ {
			if asked == room {
				return asked
			}
			if scanned++; scanned > scanLimit {
				return asked
			}
			n := int(b.buckets[h][i])
			if !b.wants && n >= b.index {
				continue // not for us; but with the index we know what we hold of it
			}
			p := s.source(b, n, ahead)
			if p == nil {
				continue
			}
			s.fetch(p, b, n) // takes n out of the bucket; another one has its place now
			i--
			asked++
		}
	}
	return asked
}

// ahead is the neighbour that holds more of the bundle than any other node, if there is one: what it alone holds is
// what the others wait for.
func (s *Swarm) ahead(b *bundle) (best *neighbour) {
	most := len(b.sizes) - b.left
	for p := range s.trusted {
		switch h := p.have[b.id]; {
		case h == nil:
		case h.count > most:
			best, most = p, h.count
		case h.count == most:
			best = nil
		}
	}
	return best
}

// turnsPerHolder is how many nodes may ask each holder of a chunk at a time: one is served, and one waits.
const turnsPerHolder = 2

// fewRare chunks that one node holds are spread at once; one that is not has met a node that does not take its turn.
const fewRare = 2 * DefaultInFlight

// source picks the neighbour to ask for chunk n, or nil when it is not our turn or nobody is free. The nodes that
// lack the chunk take turns in the order of a hash of chunk and node, a few for each holder; among the holders the one
// counts that will have sent it first, as far as can be told from what it sent before. The uplink, and who is ahead of
// all others, gives each chunk out once and leaves the rest to those it gave it to: its own line is what the next chunk
// needs. When nothing has moved for a while a turn more is open for each Patience that passes.
func (s *Swarm) source(b *bundle, n int, ahead *neighbour) *neighbour {
	self := mix(s.hash, uint64(n))
	var best, spared *neighbour
	turn, holders := 0, 0
	for p := range s.trusted {
		h := p.have[b.id]
		switch {
		case h.has(n) && (p == ahead || p.holder == p.id):
			spared = p
		case h.has(n):
			holders++
			if s.free(p, b.sizes[n]) && (best == nil || p.load() < best.load() || p.load() == best.load() && mix(p.hash, self) < mix(best.hash, self)) {
				best = p
			}
		case h.lacks(n) && mix(p.hash, uint64(n)) < self:
			turn++
		}
	}
	still, patience := b.since[n], s.cfg.Patience
	if len(b.buckets[1]) > fewRare { // its turn comes: what is held once goes one after the other
		still = later(still, s.moved)
	}
	if spared != nil { // a slow one is still at it
		patience = max(patience, 4*spared.pace.wait)
	}
	waited := int(s.now.Sub(still) / patience)
	// The index is small, and all wait for it.
	if spared != nil && s.free(spared, b.sizes[n]) && (n < b.index || (holders == 0 || waited > 1) && turn <= waited) {
		return spared
	}
	if turn < turnsPerHolder*holders+waited {
		return best
	}
	return nil
}

// load tells neighbours apart by when they will have sent one more chunk.
func (p *neighbour) load() time.Duration { return time.Duration(p.inFlight+1) * p.pace.wait }

// depth is how many chunks are asked of one neighbour at a time. With many of them one is enough to keep our line busy,
// and what waits at one of them could have come from another.
func (s *Swarm) depth() int {
	return min(s.cfg.Depth, max(1, (s.cfg.InFlight-2)/max(1, len(s.order))))
}
