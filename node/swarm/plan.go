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
			if p.have[r.b.id].has(r.n) && !asked[p] && s.free(p) {
				s.fetch(p, r.b, r.n)
				room--
				break
			}
		}
	}
}

// free: the neighbour can be asked for one more chunk.
func (s *Swarm) free(p *neighbour) bool { return p.inFlight < s.cfg.Depth && !s.now.Before(p.pauseTil) }

// planLAN asks neighbours for up to room chunks of a bundle and says how many it asked for.
func (s *Swarm) planLAN(b *bundle, room int) (asked int) {
	scanned := 0
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
			p := s.source(b, n)
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

// source picks the neighbour to ask for chunk n, or nil when it is not our turn or nobody is free. The nodes that
// lack the chunk take turns in the order of a hash of chunk and node; as many may ask as there are holders, the k-th
// asks the k-th holder. The uplink gives each chunk out once and leaves the rest to those it gave it to: its own
// line is what the next chunk needs. A chunk that does not spread opens a turn more for each Patience that passes.
func (s *Swarm) source(b *bundle, n int) *neighbour {
	self := mix(s.hash, uint64(n))
	waited := int(s.now.Sub(b.since[n]) / s.cfg.Patience)
	var from [8]*neighbour // the first holders are enough to choose from
	turn, holders := 0, 0
	var up *neighbour
	for p := range s.trusted {
		h := p.have[b.id]
		switch {
		case h.has(n) && p.holder == p.id:
			up = p
		case h.has(n):
			from[holders%len(from)] = p
			holders++
		case h != nil && h.wants && mix(p.hash, uint64(n)) < self:
			turn++
		}
	}
	if up != nil && (holders == 0 || waited > 1) {
		from[holders%len(from)] = up
		holders++
	}
	if turn >= holders+waited {
		return nil
	}
	known := min(holders, len(from))
	for i := range known {
		p := from[(turn+i)%known]
		if s.free(p) {
			return p
		}
	}
	return nil
}
