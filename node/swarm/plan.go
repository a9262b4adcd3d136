package swarm

import "time"

// scanLimit bounds how many chunks one Step looks at for a free place: with more missing chunks than that, some
// other chunk has a turn for us.
const scanLimit = 512

// flow is the traffic over the WAN as this node, being uplink, sees it.
type flow struct {
	inFlight int64 // bytes asked for
	pauseTil time.Time
	rtt      time.Duration
	rate     int64 // bytes a second, the best of recent seconds
	bytes    int64 // since mark
	mark     time.Time
	last     time.Time // when a chunk last arrived, or the first of a row was asked for
}

// disk is our own: while it refuses chunks nothing is asked for, or the same bytes would come again and again.
type disk struct {
	til  time.Time // not before
	wait time.Duration
}

// Waits after a chunk that could not be stored.
const (
	diskLeast = 5 * time.Second
	diskMost  = time.Minute
)

func (d *disk) failed(now time.Time) {
	if now.Before(d.til) {
		return // asked for before the last failure
	}
	d.wait = min(max(2*d.wait, diskLeast), diskMost)
	d.til = now.Add(d.wait)
}

func (d *disk) bad(now time.Time) bool { return now.Before(d.til) }

func (f *flow) stored(now time.Time, n int64) {
	f.last = now
	if f.mark.IsZero() || now.Sub(f.mark) > 5*time.Second {
		f.mark, f.bytes = now, 0
	}
	f.bytes += n
	if d := now.Sub(f.mark); d >= time.Second {
		r := f.bytes * int64(time.Second) / int64(d)
		f.rate = max(r, f.rate*7/8)
		f.mark, f.bytes = now, 0
	}
}

// windowBytes is how much may be asked of the WAN or held by the uplink alone: 4 chunks of the default size, or
// twice the bandwidth-delay product, whichever is larger. It bounds what the uplink's death costs.
func (s *Swarm) windowBytes() int64 {
	return max(s.cfg.Window, 2*s.wan.rate*int64(s.wan.rtt)/int64(time.Second))
}

// plan fills the free places with requests.
func (s *Swarm) plan() {
	if s.disk.bad(s.now) {
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
}

// planWAN asks the seeder for chunks that nobody here has.
func (s *Swarm) planWAN() {
	if s.now.Before(s.wan.pauseTil) {
		return
	}
	window := s.windowBytes()
	if s.wan.inFlight+s.unshared() >= window {
		return
	}
	for _, b := range s.list {
		if len(b.buckets) == 0 || len(b.buckets[0]) == 0 || !s.siteWants(b) || !s.heardOf(b) {
			continue
		}
		// In catalog order: among chunks that nobody has none is rarer, and disks like order.
		for _, n := range s.firstMissing(b) {
			used := s.wan.inFlight + s.unshared()
			if used > 0 && used+b.sizes[n] > window {
				return
			}
			if s.wan.inFlight == 0 {
				s.wan.last = s.now
			}
			s.wan.inFlight += b.sizes[n]
			s.fetch(nil, b, n)
		}
	}
}

// firstMissing returns chunks that nobody has, enough to fill the window: the index first, alone, since it says what
// the rest is. The holder of a split lease begins at the other end, so that two halves of a site that find each
// other again have fetched different things.
func (s *Swarm) firstMissing(b *bundle) []int {
	const most = 64
	var out []int
	pick := func(n int) {
		if b.place[n] >= 0 && b.holders[n] == 0 && len(out) < most {
			out = append(out, n)
		}
	}
	for n := range b.index {
		pick(n)
	}
	if len(out) > 0 {
		return out
	}
	for i := b.index; i < len(b.sizes); i++ {
		if s.uplink.split {
			pick(len(b.sizes) - 1 - (i - b.index))
		} else {
			pick(i)
		}
	}
	return out
}

// heardOf: every neighbour has said what it holds of the bundle, also of chunks that it has from other bundles; or
// they had time enough.
func (s *Swarm) heardOf(b *bundle) bool {
	if s.now.Sub(b.grew) >= s.cfg.Settle/2 {
		return true
	}
	for p := range s.trusted {
		if h := p.have[b.id]; h == nil || h.total < len(b.sizes) {
			return false
		}
	}
	return true
}

// siteWants: this node or a neighbour is to hold the bundle.
func (s *Swarm) siteWants(b *bundle) bool {
	if b.wants {
		return true
	}
	for _, p := range s.order {
		if h := p.have[b.id]; h != nil && h.wants {
			return true
		}
	}
	return false
}

// unshared is the number of bytes that came over the WAN and that no neighbour holds yet although one wants them. A
// neighbour that takes nothing for 5 s does not hold up the site.
func (s *Swarm) unshared() (n int64) {
	for _, b := range s.list {
		if len(b.alone) == 0 {
			continue
		}
		wanted := false
		for _, p := range s.order {
			h := p.have[b.id]
			wanted = wanted || h != nil && h.wants && !s.now.Before(p.pauseTil)
		}
		for i, at := range b.alone {
			if !wanted || s.now.Sub(at) > 5*time.Second {
				delete(b.alone, i)
				continue
			}
			n += b.sizes[i]
		}
	}
	return n
}

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
		if p.inFlight < s.cfg.Depth && !s.now.Before(p.pauseTil) {
			return p
		}
	}
	return nil
}

func (s *Swarm) fetch(p *neighbour, b *bundle, n int) {
	s.lastReq++
	r := &request{id: s.lastReq, from: p, b: b, n: n, at: s.now}
	from := WAN
	if p != nil {
		p.inFlight++
		from = p.id
		r.deadline = s.now.Add(s.cfg.Deadline)
	}
	s.reqs[r.id] = r
	b.asked(n, 1)
	s.do(Fetch{r.id, from, b.id, n})
}
