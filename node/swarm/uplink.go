package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
)

// leads: this node may take chunks over the WAN now.
func (s *Swarm) leads() bool {
	u := &s.uplink
	return u.held && u.link == linkUp && s.now.Before(u.until) && s.settled && !u.yields
}

// Leads reports whether this node holds the uplink lease.
func (s *Swarm) Leads() bool { return s.uplink.held && s.now.Before(s.uplink.until) }

// Uplink is the peer this node sees as uplink: itself, a neighbour, or a neighbour's neighbour; empty: none.
func (s *Swarm) Uplink() Peer {
	h, _ := s.seenUplink(true)
	return h
}

// Near is the uplink as far as this node itself knows: itself or a neighbour that says so. It is what neighbours are
// told, so that hearsay goes one step and no further.
func (s *Swarm) Near() (holder Peer, split bool) { return s.seenUplink(false) }

// seenUplink finds the uplink; far includes what neighbours say of others. A first lease counts before a split one.
func (s *Swarm) seenUplink(far bool) (Peer, bool) {
	if s.Leads() && !s.uplink.split {
		return s.cfg.Self, false
	}
	for p := range s.heeded { // neighbours that speak for themselves
		if p.holder == p.id && !p.split {
			return p.id, false
		}
	}
	if far {
		for p := range s.heeded {
			if p.holder != "" && !p.split && p.holder != s.cfg.Self && p.holder != p.id && !s.reach(p.holder) {
				return p.holder, false
			}
		}
	}
	if s.Leads() {
		return s.cfg.Self, true
	}
	for p := range s.heeded {
		if p.holder == p.id {
			return p.id, true
		}
	}
	return "", false
}

// heeded lists the neighbours whose word about the uplink counts.
func (s *Swarm) heeded(yield func(*neighbour) bool) {
	for p := range s.trusted {
		if !s.now.Before(p.conduct.mute) && !yield(p) {
			return
		}
	}
}

// reach: the peer is a neighbour that counts.
func (s *Swarm) reach(id Peer) bool {
	p := s.peers[id]
	return p != nil && !p.banned
}

// usable: the peer is a neighbour that may well be the uplink.
func (s *Swarm) usable(id Peer) bool { return s.reach(id) && !s.now.Before(s.peers[id].conduct.mute) }

// watchUplink stops believing in an uplink that brings nothing: when for long nothing has come and nobody holds what
// we lack, whoever named it is not heeded any more, and the election goes on without it. The seeder grants a second
// lease then, and accounts for it; and if it was the seeder that wanted a pause, its answer says so and nobody is to blame.
func (s *Swarm) watchUplink() {
	seen, _ := s.seenUplink(true)
	if seen == "" || seen == s.cfg.Self || !s.lacking() {
		s.got = later(s.got, s.now)
		return
	}
	if s.now.Sub(s.got) < s.cfg.Barren>>min(s.barren, 3) { // the second in a row has less time
		return
	}
	s.got = s.now
	s.barren++
	for p := range s.heeded {
		if p.holder == seen {
			p.conduct.mute = s.now.Add(s.cfg.Ban)
			if p.conduct.charge = "names an uplink that brings nothing"; p.id == seen {
				p.conduct.charge = "is the uplink and brings nothing"
			}
		}
	}
}

// lacking: there is something that this node wants and nobody within reach holds.
func (s *Swarm) lacking() bool {
	for _, b := range s.list {
		if b.wants && len(b.buckets) > 0 && len(b.buckets[0]) > 0 {
			return true
		}
	}
	return false
}

// rank is this node's place among the candidates it is connected with: those that prefer the WAN first, then by
// rendezvous hash, so that all agree without talking.
func (s *Swarm) rank() int {
	weight := func(h uint64, r roster.WAN) uint64 {
		w := mix(h, 0x5eed) >> 1
		if r != roster.WANPrefer {
			w |= 1 << 63
		}
		return w
	}
	self, k := weight(s.hash, s.cfg.Role), 0
	for _, p := range s.order {
		if p.role != roster.WANNever && weight(p.hash, p.role) < self {
			k++
		}
	}
	return k
}

// Active: there is something to fetch, here or at a neighbour.
func (s *Swarm) Active() bool {
	for _, b := range s.list {
		if b.wants && b.left > 0 {
			return true
		}
		for _, p := range s.order {
			if h := p.have[b.id]; h != nil && h.wants && h.count < len(b.sizes) {
				return true
			}
		}
	}
	return false
}

// worthIt: there is something to fetch, and the seeder does not want it to wait for long.
func (s *Swarm) worthIt() bool { return s.Active() && s.wan.paused.Sub(s.now) < pauseShort }

// elect moves this node towards or away from the seeder.
func (s *Swarm) elect() {
	u := &s.uplink
	if u.held && !s.now.Before(u.until) {
		s.loseLease()
	}
	s.watchWAN()
	near, nearSplit := s.seenUplink(false)
	if near != u.told || nearSplit != u.toldSplit || len(s.order) != u.toldTo {
		u.told, u.toldSplit, u.toldTo = near, nearSplit, len(s.order)
		s.do(TellUplink{near, nearSplit})
	}
	seen, split := s.seenUplink(true)
	// The LAN has healed and the first lease is enough; or this node leaves: what is on its way still comes, and is shared.
	u.yields = u.held && (s.leave.asked || u.split && !split && seen != "")
	switch {
	case u.held && (s.cfg.Role == roster.WANNever || s.disk.bad(s.now) && len(s.order) > 0):
		// Another node may, or can.
		s.release()
	case u.yields:
		if s.wan.inFlight == 0 && s.unshared() == 0 {
			s.release()
		}
	case u.held:
		// When work begins the short lease is asked for at once: it is how a silent death is noticed soon.
		active := s.worthIt()
		if (!s.now.Before(u.renewAt) || active && !u.active) && u.link == linkUp {
			u.renewAt, u.active, u.sent = s.now.Add(askTimeout), active, s.now
			s.do(RenewLease{u.lease, active})
		}
	case seen != "" || s.leave.asked:
		u.lonelySince, u.refusedBy = time.Time{}, ""
		if u.link == linkUp && s.now.Sub(u.askNext) > idleLinkTTL {
			s.do(HangUpWAN{})
			u.link = linkDown
		}
	default:
		if u.lonelySince.IsZero() {
			u.lonelySince = s.now
		}
		if s.cfg.Role != roster.WANNever && !s.disk.bad(s.now) && s.settled && s.now.Sub(u.lonelySince) >= time.Duration(s.rank())*s.cfg.Stagger {
			s.seek()
		}
	}
}

func (s *Swarm) release() {
	s.do(ReleaseLease{s.uplink.lease})
	s.loseLease()
	s.uplink.askNext = s.now
}

// seek takes the next step towards a lease.
func (s *Swarm) seek() {
	u := &s.uplink
	switch u.link {
	case linkDown:
		s.dial()
	case linkUp:
		if !u.asked.IsZero() && s.now.Sub(u.asked) < askTimeout || s.now.Before(u.askNext) {
			return
		}
		u.active = s.worthIt()
		ask := AskLease{Active: u.active}
		if u.refusedBy != "" && !s.usable(u.refusedBy) && s.now.Sub(u.outOfReach) >= s.cfg.SplitAfter {
			ask.Unreachable = u.refusedBy
		}
		u.asked, u.sent = s.now, s.now
		s.do(ask)
	}
}

func (s *Swarm) leaseGranted(e LeaseGranted) {
	u := &s.uplink
	u.asked, u.refusedBy = time.Time{}, ""
	if u.link != linkUp {
		return
	}
	// The time to live counts from when we asked, and from a round trip ago at the latest: an answer that lay about
	// while this process stood still makes no lease, and never does it last longer than the seeder thinks.
	u.lease, u.held, u.split = e.Lease, true, e.Split
	u.until, u.renewAt = s.now.Add(e.TTL-e.RTT), s.now.Add(e.Renew)
	if sent := u.sent.Add(e.TTL); sent.Before(u.until) {
		u.until = sent
	}
	u.lonelySince = time.Time{}
	if e.RTT > 0 {
		s.wan.rtt = e.RTT
	}
	s.pause(e.Pause)
}

func (s *Swarm) leaseRefused(e LeaseRefused) {
	u := &s.uplink
	if u.held {
		s.loseLease()
	}
	wait := max(e.Retry, 100*time.Millisecond)
	if e.Holder != u.refusedBy {
		u.refusedBy, u.outOfReach = e.Holder, s.now
	}
	if e.Holder == "" || s.usable(e.Holder) {
		u.outOfReach = s.now
	} else if claim := u.outOfReach.Add(s.cfg.SplitAfter).Sub(s.now); claim > 0 {
		// That we cannot reach the holder will be news to the seeder: it asked for patience without knowing.
		wait = min(wait, claim)
	}
	u.asked, u.askNext = time.Time{}, s.now.Add(wait)
	s.pause(e.Pause)
}

// loseLease stops all traffic over the WAN: what was asked for is given up, and not asked again without a lease.
func (s *Swarm) loseLease() {
	u := &s.uplink
	u.held, u.split = false, false
	for _, r := range s.byAge() {
		if r.from == nil {
			s.drop(r)
			s.do(Cancel{r.id})
		}
	}
}
