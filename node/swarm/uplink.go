package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
)

// link is the state of the session with the seeder.
type link int

const (
	linkDown link = iota
	linkDialling
	linkUp
)

// uplink is this node's part in the question who talks to the data centre.
type uplink struct {
	link    link
	dialled time.Time // when the dial under way began
	redial  time.Time // not before
	backoff time.Duration
	asked   time.Time // an AskLease is out since then, zero: none
	askNext time.Time // not before

	lease   uint64
	held    bool
	until   time.Time
	renewAt time.Time
	split   bool
	active  bool // what the seeder was last told

	refusedBy   Peer      // the holder a refusal named
	outOfReach  time.Time // since when that holder is not among us
	lonelySince time.Time // since when no uplink is known, zero: one is
	told        Peer      // what neighbours were last told
	toldSplit   bool
	toldTo      int // how many neighbours there were
}

// Bounds of the election.
const (
	redialLeast = 500 * time.Millisecond
	redialMost  = 15 * time.Second
	askTimeout  = 5 * time.Second
	dialTimeout = 20 * time.Second // whoever dials gives up earlier; this is for an answer that never comes
	idleLinkTTL = 5 * time.Second  // a session without a lease is closed after that
	wanStall    = 30 * time.Second
)

// leads: this node may take chunks over the WAN now.
func (s *Swarm) leads() bool {
	u := &s.uplink
	return u.held && u.link == linkUp && s.now.Before(u.until) && s.settled
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
	for p := range s.trusted { // neighbours that speak for themselves
		if p.holder == p.id && !p.split {
			return p.id, false
		}
	}
	if far {
		for p := range s.trusted {
			if p.holder != "" && !p.split && p.holder != s.cfg.Self && p.holder != p.id && !s.reach(p.holder) {
				return p.holder, false
			}
		}
	}
	if s.Leads() {
		return s.cfg.Self, true
	}
	for p := range s.trusted {
		if p.holder == p.id {
			return p.id, true
		}
	}
	return "", false
}

// reach: the peer is a neighbour that counts.
func (s *Swarm) reach(id Peer) bool {
	p := s.peers[id]
	return p != nil && !p.banned
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

// role takes over what the roster says.
func (s *Swarm) role(e Role) {
	if e.Peer == s.cfg.Self {
		s.cfg.Role = e.Role
	} else if p := s.peers[e.Peer]; p != nil {
		p.role = e.Role
	}
}

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
	if u.held && (s.cfg.Role == roster.WANNever || s.disk.bad(s.now) && len(s.order) > 0) {
		// Another node may, or can.
		s.do(ReleaseLease{u.lease})
		s.loseLease()
		return
	}
	if u.held {
		if u.split && !split && seen != "" {
			// The LAN has healed: the first lease is enough.
			s.do(ReleaseLease{u.lease})
			s.loseLease()
			return
		}
		// When work begins the short lease is asked for at once: it is how a silent death is noticed soon.
		active := s.Active()
		if (!s.now.Before(u.renewAt) || active && !u.active) && u.link == linkUp {
			u.renewAt, u.active = s.now.Add(askTimeout), active
			s.do(RenewLease{u.lease, active, u.split && !split && seen != ""})
		}
		return
	}
	if seen != "" {
		u.lonelySince, u.refusedBy = time.Time{}, ""
		if u.link == linkUp && s.now.Sub(u.askNext) > idleLinkTTL {
			s.do(HangUpWAN{})
			u.link = linkDown
		}
		return
	}
	if u.lonelySince.IsZero() {
		u.lonelySince = s.now
	}
	if s.cfg.Role == roster.WANNever || s.disk.bad(s.now) || !s.settled || s.now.Sub(u.lonelySince) < time.Duration(s.rank())*s.cfg.Stagger {
		return
	}
	switch u.link {
	case linkDown:
		if !s.now.Before(u.redial) {
			u.link, u.dialled = linkDialling, s.now
			s.do(DialWAN{})
		}
	case linkUp:
		if !u.asked.IsZero() && s.now.Sub(u.asked) < askTimeout || s.now.Before(u.askNext) {
			return
		}
		u.active = s.Active()
		ask := AskLease{Active: u.active}
		if u.refusedBy != "" && !s.reach(u.refusedBy) && s.now.Sub(u.outOfReach) >= s.cfg.SplitAfter {
			ask.Unreachable = u.refusedBy
		}
		u.asked = s.now
		s.do(ask)
	}
}

// watchWAN hangs up when the seeder takes our requests and sends nothing, and gives up a dial that has no end.
func (s *Swarm) watchWAN() {
	if s.uplink.link == linkDialling && s.now.Sub(s.uplink.dialled) > dialTimeout {
		s.wanDown()
	}
	if s.wan.inFlight == 0 || s.uplink.link != linkUp {
		return
	}
	limit := wanStall
	if s.wan.rate > 0 {
		limit = max(limit, time.Duration(8*s.wan.inFlight*int64(time.Second)/s.wan.rate))
	}
	if s.now.Sub(s.wan.last) > limit {
		s.do(HangUpWAN{})
		s.wanDown()
	}
}

func (s *Swarm) wanUp() {
	u := &s.uplink
	u.link, u.backoff, u.asked, u.askNext = linkUp, 0, time.Time{}, s.now
}

func (s *Swarm) wanDown() {
	u := &s.uplink
	u.link, u.asked = linkDown, time.Time{}
	u.backoff = min(max(2*u.backoff, redialLeast), redialMost)
	u.redial = s.now.Add(u.backoff)
	s.loseLease()
}

func (s *Swarm) leaseGranted(e LeaseGranted) {
	u := &s.uplink
	u.asked, u.refusedBy = time.Time{}, ""
	if u.link != linkUp {
		return
	}
	// The time to live counts from when we asked, at the latest from now minus a round trip: never longer than the
	// seeder thinks.
	u.lease, u.held, u.split = e.Lease, true, e.Split
	u.until, u.renewAt = s.now.Add(e.TTL-e.RTT), s.now.Add(e.Renew)
	u.lonelySince = time.Time{}
	if e.RTT > 0 {
		s.wan.rtt = e.RTT
	}
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
	if e.Holder == "" || s.reach(e.Holder) {
		u.outOfReach = s.now
	} else if claim := u.outOfReach.Add(s.cfg.SplitAfter).Sub(s.now); claim > 0 {
		// That we cannot reach the holder will be news to the seeder: it asked for patience without knowing.
		wait = min(wait, claim)
	}
	u.asked, u.askNext = time.Time{}, s.now.Add(wait)
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
