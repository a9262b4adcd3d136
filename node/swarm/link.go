package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
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
	within  time.Duration
	redial  time.Time // not before
	backoff time.Duration
	dials   uint64    // without success
	sent    time.Time // the last AskLease or RenewLease
	asked   time.Time // an AskLease is out since then, zero: none
	askNext time.Time // not before

	lease   uint64
	held    bool
	until   time.Time
	renewAt time.Time
	split   bool
	yields  bool // nothing more is asked of the WAN, and the lease given back as soon as nothing is lost with it
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
	redialLeast  = 500 * time.Millisecond
	redialActive = time.Second // at most, while there is something to fetch
	redialMost   = 15 * time.Second
	dialQuick    = 2 * time.Second // a SYN that was lost is sent again after 1 s, 3 s, 7 s: a new dial is sooner
	dialPatient  = 8 * time.Second
	dialGrace    = 3 * time.Second // for the session on top, or an answer to a dial that never comes
	askTimeout   = 5 * time.Second
	idleLinkTTL  = 5 * time.Second // a session without a lease is closed after that
	wanStall     = 30 * time.Second
	pauseShort   = 10 * time.Second // a longer pause is spent on the terms of an idle lease
)

// dial opens the session with the seeder when it is time to. While there is something to fetch a dial is given up
// and begun anew often, so that a WAN that is back is noticed at once: TCP's own timer would wait ever longer. A
// seeder that never answered so far may be far away: every fourth dial is patient.
func (s *Swarm) dial() {
	u := &s.uplink
	active := s.Active()
	if s.now.Before(u.redial) && !(active && u.redial.Sub(s.now) > redialActive) {
		return
	}
	u.link, u.dialled, u.within = linkDialling, s.now, dialPatient
	if active && (s.wan.rtt > 0 || u.dials%4 != 3) {
		u.within = min(dialPatient, max(dialQuick, 20*s.wan.rtt))
	}
	u.dials++
	s.do(DialWAN{u.within})
}

// watchWAN hangs up when the seeder takes our requests and sends nothing, and gives up a dial that has no end.
func (s *Swarm) watchWAN() {
	u, w := &s.uplink, &s.wan
	if u.link == linkDialling && s.now.Sub(u.dialled) > u.within+dialGrace {
		s.wanDown()
	}
	if w.inFlight == 0 || u.link != linkUp || s.now.Before(w.paused) {
		return
	}
	limit := wanStall
	if w.rate > 0 {
		limit = max(limit, time.Duration(8*w.inFlight*int64(time.Second)/w.rate))
	}
	if s.now.Sub(later(w.last, w.paused)) > limit {
		s.do(HangUpWAN{})
		s.wanDown()
	}
}

func (s *Swarm) wanUp() {
	u := &s.uplink
	u.link, u.backoff, u.dials, u.asked, u.askNext = linkUp, 0, 0, time.Time{}, s.now
}

// wanDown waits before the next dial: not at the same intervals as other nodes and sites, that lost the seeder at the
// same instant.
func (s *Swarm) wanDown() {
	u := &s.uplink
	u.link, u.asked = linkDown, time.Time{}
	most := redialMost
	if s.Active() {
		most = redialActive
	}
	u.backoff = min(max(2*u.backoff, redialLeast), most)
	u.redial = s.now.Add(u.backoff - u.backoff*time.Duration(mix(s.hash, u.dials)%256)/1024)
	s.loseLease()
}

// pause is what the seeder wants: no request for so long. What is on its way may come.
func (s *Swarm) pause(d time.Duration) {
	s.wan.paused = s.now.Add(d)
	if d > 0 {
		s.got = later(s.got, s.wan.paused) // nobody is to blame that nothing comes
		for _, c := range s.conducts {
			c.mute, c.charge = time.Time{}, ""
		}
	}
	for _, p := range s.order {
		if why := p.conduct.charge; why != "" {
			p.conduct.charge = ""
			s.do(Strike{p.id, status.StrikeStall, why, 0})
		}
	}
}

// Paused says until when the seeder wants no request; zero: it has not asked for a pause, or it is over.
func (s *Swarm) Paused() time.Time {
	if s.now.Before(s.wan.paused) {
		return s.wan.paused
	}
	return time.Time{}
}
