// Package swarm decides how a site shares a bundle: which chunk a node asks of whom, who is the site's uplink, and
// when the uplink may take a chunk over the WAN. It is a pure state machine: Step takes an event and the time and
// returns what to do. It has no goroutine, socket, file, clock or random source; the same events give the same
// actions. One goroutine of package node owns it.
//
// The rules it keeps, in the order of their weight:
//
//   - A chunk is taken over the WAN only by the holder of the uplink lease, and only if no node it is connected with
//     has it. No timer sends a node to the WAN by itself.
//   - Write-through: what the uplink has asked of the WAN and what it alone holds stays within a window, so that its
//     death costs at most that window of bytes fetched twice.
//   - On the LAN the rarest chunk goes first, and for each chunk the nodes that lack it take turns in an order that
//     they all compute alike, as many at once as there are holders: a doubling tree for every chunk, each with
//     another shape, so that no node uploads the same chunk to everybody.
package swarm

import (
	"math/bits"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/roster"
)

// Peer is a neighbour's libp2p peer ID. The empty Peer stands for the seeder, that is, for the WAN.
type Peer string

// WAN is the source of chunks that come over the WAN.
const WAN Peer = ""

// Bundle names a bundle by its checksum.
type Bundle = manifest.Digest

// Config holds the bounds. Zero values mean the defaults, which are the named constants.
type Config struct {
	Self Peer
	Role roster.WAN // whether this node may be the uplink

	InFlight   int           // chunks asked of neighbours at a time, in total
	Depth      int           // of one neighbour
	Window     int64         // bytes: least write-through window (see windowBytes)
	Settle     time.Duration // how long a fresh node, or one that hears of a bundle, waits at most to hear who has what before it goes to the WAN
	Stagger    time.Duration // between candidates for the lease
	SplitAfter time.Duration // how long the holder must be out of reach before a second lease is asked for
	Patience   time.Duration // how long a chunk may wait for its turn before the turn is opened to one more node
	Deadline   time.Duration // for a chunk from a neighbour
	Ban        time.Duration // for a neighbour that sent wrong bytes
}

// Defaults.
const (
	DefaultInFlight   = 16
	DefaultDepth      = 4
	DefaultWindow     = 4 * 256 << 10
	DefaultSettle     = 2 * time.Second
	DefaultStagger    = time.Second
	DefaultSplitAfter = 5 * time.Second
	DefaultPatience   = 500 * time.Millisecond
	DefaultDeadline   = 8 * time.Second
	DefaultBan        = 10 * time.Minute
)

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.InFlight == 0 {
		c.InFlight = DefaultInFlight
	}
	if c.Depth == 0 {
		c.Depth = DefaultDepth
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.Role == "" {
		c.Role = roster.WANAllow
	}
	def(&c.Settle, DefaultSettle)
	def(&c.Stagger, DefaultStagger)
	def(&c.SplitAfter, DefaultSplitAfter)
	def(&c.Patience, DefaultPatience)
	def(&c.Deadline, DefaultDeadline)
	def(&c.Ban, DefaultBan)
	return c
}

// Event is something that happened.
type Event interface{ event() }

// The events.
type (
	// Tick lets time pass; send one every 50 to 250 ms.
	Tick struct{}
	// Expect lists the neighbours on the roster: until all of them are connected a fresh node waits for Settle.
	Expect struct{ Peers []Peer }
	// PeerUp and PeerDown follow the sessions with neighbours.
	PeerUp struct {
		Peer Peer
		Role roster.WAN
	}
	PeerDown struct{ Peer Peer }
	// Role says that the roster gives a neighbour, or this node itself, another part in the WAN.
	Role struct {
		Peer Peer
		Role roster.WAN
	}
	// PeerHave replaces what is known of a neighbour's chunks of a bundle.
	PeerHave struct {
		Peer   Peer
		Bundle Bundle
		Wants  bool
		Total  int
		Bitmap []byte
	}
	// PeerHaveAdd adds to it.
	PeerHaveAdd struct {
		Peer    Peer
		Bundle  Bundle
		Numbers []uint32
	}
	// PeerUplink says whom a neighbour sees as uplink: itself, or a node it is connected with; empty: nobody. The
	// first one ends its introduction: every PeerHave it has to begin with came before.
	PeerUplink struct {
		Peer, Holder Peer
		Split        bool
	}
	// BundleAdd introduces a bundle, or replaces what was said of it (Sizes may have grown, Wants may have
	// changed). Sizes are those of its catalog as far as known, the first Index of them belong to the index. Have
	// is what is on disk. Wants: this node is to hold all of it; otherwise it only fetches what neighbours want,
	// and only as uplink.
	BundleAdd struct {
		Bundle Bundle
		Sizes  []int64
		Index  int
		Have   []bool
		Wants  bool
	}
	// BundleDrop forgets a bundle.
	BundleDrop struct{ Bundle Bundle }
	// Stored: the chunk of a Fetch is verified and on disk.
	Stored struct{ Req uint32 }
	// Failed: it is not.
	Failed struct {
		Req uint32
		Why Why
	}
	// Gained: a chunk is on disk that no Fetch asked for (a stick).
	Gained struct {
		Bundle Bundle
		Number int
	}
	// Lost: a chunk on disk was damaged and dropped.
	Lost struct {
		Bundle Bundle
		Number int
	}
	// WANUp and WANDown follow the session with the seeder; WANDown also answers a DialWAN that failed.
	WANUp   struct{}
	WANDown struct{}
	// LeaseGranted and LeaseRefused answer AskLease and RenewLease.
	LeaseGranted struct {
		Lease      uint64
		TTL, Renew time.Duration
		Split      bool
		RTT        time.Duration // of the WAN session, 0 if unknown
		Pause      time.Duration // for so long no chunk is to be asked of the WAN; 0: at once
	}
	LeaseRefused struct {
		Holder Peer
		Retry  time.Duration
	}
)

func (Tick) event()         {}
func (Expect) event()       {}
func (PeerUp) event()       {}
func (PeerDown) event()     {}
func (Role) event()         {}
func (PeerHave) event()     {}
func (PeerHaveAdd) event()  {}
func (PeerUplink) event()   {}
func (BundleAdd) event()    {}
func (BundleDrop) event()   {}
func (Stored) event()       {}
func (Failed) event()       {}
func (Gained) event()       {}
func (Lost) event()         {}
func (WANUp) event()        {}
func (WANDown) event()      {}
func (LeaseGranted) event() {}
func (LeaseRefused) event() {}

// Why says how a Fetch failed.
type Why int

// The ways to fail.
const (
	WhyGone    Why = iota // the session ended
	WhyNotHeld            // refused: not held
	WhyBusy               // refused: busy
	WhyNoLease            // refused by the seeder: no lease
	WhyCorrupt            // wrong bytes
	WhyLocal              // our own disk; try again later
)

// Action is something to do.
type Action interface{ action() }

// The actions.
type (
	// Fetch asks a neighbour, or the seeder when From is WAN, for a chunk. It is answered by Stored or Failed.
	Fetch struct {
		Req    uint32
		From   Peer
		Bundle Bundle
		Number int
	}
	// Cancel gives up a Fetch; what still comes for it is dropped.
	Cancel struct{ Req uint32 }
	// Announce tells all neighbours of chunks now held.
	Announce struct {
		Bundle  Bundle
		Numbers []uint32
	}
	// Complete: the last wanted chunk of what is known of the bundle is on disk.
	Complete struct{ Bundle Bundle }
	// Strike: a neighbour misbehaved. Ban, when not zero, is how long it is not asked for anything.
	Strike struct {
		Peer Peer
		Why  string
		Ban  time.Duration
	}
	// DialWAN opens the session with the seeder, HangUpWAN closes it.
	DialWAN   struct{}
	HangUpWAN struct{}
	// AskLease, RenewLease and ReleaseLease go to the seeder.
	AskLease struct {
		Active      bool
		Unreachable Peer
	}
	RenewLease struct {
		Lease      uint64
		Active     bool
		SeesHolder bool
	}
	ReleaseLease struct{ Lease uint64 }
	// TellUplink tells all neighbours whom this node sees as uplink.
	TellUplink struct {
		Holder Peer
		Split  bool
	}
)

func (Fetch) action()        {}
func (Cancel) action()       {}
func (Announce) action()     {}
func (Complete) action()     {}
func (Strike) action()       {}
func (DialWAN) action()      {}
func (HangUpWAN) action()    {}
func (AskLease) action()     {}
func (RenewLease) action()   {}
func (ReleaseLease) action() {}
func (TellUplink) action()   {}

// Swarm is the state of one node. It is not safe for concurrent use.
type Swarm struct {
	cfg     Config
	hash    uint64 // of cfg.Self
	now     time.Time
	out     []Action
	started time.Time
	settled bool
	expect  map[Peer]bool
	peers   map[Peer]*neighbour
	bans    map[Peer]time.Time // until when; they outlive a session
	order   []*neighbour       // by hash, for a fixed order
	bundles map[Bundle]*bundle
	list    []*bundle // in the order of their addition
	reqs    map[uint32]*request
	lastReq uint32
	uplink  uplink
	wan     flow
	disk    disk
}

// neighbour is a connected node.
type neighbour struct {
	id       Peer
	role     roster.WAN
	hash     uint64
	inFlight int
	pauseTil time.Time // asked for nothing until then: busy or slow
	banned   bool      // until Swarm.bans says otherwise: what it says is noted and counts for nothing
	fails    int       // requests in a row that it did not serve
	failing  time.Time // since when
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

// request is a Fetch under way.
type request struct {
	id       uint32
	from     *neighbour // nil: the WAN
	b        *bundle
	n        int
	at       time.Time
	deadline time.Time
}

// New returns the state of a node that has just started.
func New(cfg Config, now time.Time) *Swarm {
	s := &Swarm{cfg: cfg.withDefaults(), hash: hashPeer(cfg.Self), now: now, started: now, expect: map[Peer]bool{}, peers: map[Peer]*neighbour{}, bans: map[Peer]time.Time{},
		bundles: map[Bundle]*bundle{}, reqs: map[uint32]*request{}}
	s.uplink.lonelySince = now
	return s
}

// Step applies one event and returns what to do, in order.
func (s *Swarm) Step(now time.Time, ev Event) []Action {
	s.now = now
	s.out = nil
	switch e := ev.(type) {
	case Tick:
		s.expire()
	case Expect:
		clear(s.expect)
		for _, p := range e.Peers {
			if p != s.cfg.Self {
				s.expect[p] = true
			}
		}
	case PeerUp:
		s.peerUp(e)
	case PeerDown:
		s.peerDown(e.Peer)
	case Role:
		s.role(e)
	case PeerHave:
		s.peerHave(e)
	case PeerHaveAdd:
		s.peerHaveAdd(e)
	case PeerUplink:
		if p := s.peers[e.Peer]; p != nil {
			p.holder, p.split, p.met = e.Holder, e.Split, true
		}
	case BundleAdd:
		s.bundleAdd(e)
	case BundleDrop:
		s.bundleDrop(e.Bundle)
	case Stored:
		s.stored(e.Req)
	case Failed:
		s.failed(e.Req, e.Why)
	case Gained:
		if b := s.bundles[e.Bundle]; b != nil && e.Number < len(b.sizes) && !b.mine[e.Number] {
			s.gain(b, e.Number)
		}
	case Lost:
		if b := s.bundles[e.Bundle]; b != nil && e.Number < len(b.sizes) && b.mine[e.Number] {
			b.lose(e.Number)
		}
	case WANUp:
		s.wanUp()
	case WANDown:
		s.wanDown()
	case LeaseGranted:
		s.leaseGranted(e)
	case LeaseRefused:
		s.leaseRefused(e)
	}
	s.settle()
	s.elect()
	s.plan()
	return s.out
}

func (s *Swarm) do(a Action) { s.out = append(s.out, a) }

// settle ends the wait of a fresh node once every neighbour on the roster has said what it has, or at the latest
// after Settle.
func (s *Swarm) settle() {
	if s.settled {
		return
	}
	if s.now.Sub(s.started) >= s.cfg.Settle {
		s.settled = true
		return
	}
	for p := range s.expect {
		if n := s.peers[p]; n == nil || !n.met {
			return
		}
	}
	s.settled = len(s.expect) > 0
}

func (s *Swarm) peerUp(e PeerUp) {
	if s.peers[e.Peer] != nil {
		s.peerDown(e.Peer)
	}
	p := &neighbour{id: e.Peer, role: e.Role, hash: hashPeer(e.Peer), have: map[Bundle]*haveMap{}, banned: s.now.Before(s.bans[e.Peer])}
	s.peers[e.Peer] = p
	at := len(s.order)
	for at > 0 && s.order[at-1].hash > p.hash {
		at--
	}
	s.order = append(s.order, nil)
	copy(s.order[at+1:], s.order[at:])
	s.order[at] = p
}

func (s *Swarm) peerDown(id Peer) {
	p := s.peers[id]
	if p == nil {
		return
	}
	for _, r := range s.byAge() {
		if r.from == p {
			s.drop(r)
			s.do(Cancel{r.id})
		}
	}
	s.discount(p)
	delete(s.peers, id)
	for i, o := range s.order {
		if o == p {
			s.order = append(s.order[:i], s.order[i+1:]...)
			break
		}
	}
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
		if n >= h.total && (b == nil || n >= len(b.sizes)) || h.has(n) {
			continue
		}
		h.set(n)
		if b != nil && n < len(b.sizes) && !p.banned {
			b.addHolder(n, 1, s.now)
		}
	}
}

func (s *Swarm) stored(id uint32) {
	r := s.reqs[id]
	if r == nil {
		return
	}
	s.drop(r)
	s.disk = disk{}
	if r.from != nil {
		r.from.fails = 0
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
		s.ban(p, "sent wrong bytes")
	case why == WhyNotHeld:
		if h := p.have[r.b.id]; h.has(r.n) {
			h.unset(r.n)
			if !p.banned {
				r.b.addHolder(r.n, -1, s.now)
			}
		}
	case why == WhyBusy:
		p.pauseTil = later(p.pauseTil, s.now.Add(200*time.Millisecond))
		s.unserved(p)
	}
}

// Bounds of patience with a neighbour that says it holds chunks and delivers none: as long as it counts as a holder,
// nobody takes them over the WAN.
const (
	maxFails   = 2 * DefaultDepth
	maxFailing = 10 * time.Second
)

// unserved notes a request that a neighbour did not serve, and bans one that serves none.
func (s *Swarm) unserved(p *neighbour) {
	if p.fails++; p.fails == 1 {
		p.failing = s.now
	}
	if p.fails >= maxFails && s.now.Sub(p.failing) >= maxFailing {
		p.fails = 0
		s.ban(p, "holds chunks and delivers none")
	}
}

// ban makes a neighbour count for nothing for a while: not as a holder, not as one that takes its turn, not as
// uplink.
func (s *Swarm) ban(p *neighbour, why string) {
	s.do(Strike{p.id, why, s.cfg.Ban})
	s.bans[p.id] = s.now.Add(s.cfg.Ban)
	s.discount(p)
	p.banned = true
}

// discount takes what a neighbour holds out of the count.
func (s *Swarm) discount(p *neighbour) {
	for _, b := range s.list {
		if h := p.have[b.id]; h != nil && !p.banned {
			b.forget(h)
		}
	}
}

// pardon ends the bans whose time has come.
func (s *Swarm) pardon() {
	for id, til := range s.bans {
		if s.now.Before(til) {
			continue
		}
		delete(s.bans, id)
		p := s.peers[id]
		if p == nil || !p.banned {
			continue
		}
		p.banned = false
		for _, b := range s.list {
			if h := p.have[b.id]; h != nil {
				b.learn(h, s.now)
			}
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

// expire gives up requests to neighbours that take too long.
func (s *Swarm) expire() {
	s.pardon()
	for _, r := range s.byAge() {
		if r.from == nil || s.now.Before(r.deadline) {
			continue
		}
		s.drop(r)
		s.do(Cancel{r.id})
		s.do(Strike{r.from.id, "too slow", 0})
		r.from.pauseTil = later(r.from.pauseTil, s.now.Add(5*time.Second))
		s.unserved(r.from)
	}
}

// drop forgets a request.
func (s *Swarm) drop(r *request) {
	delete(s.reqs, r.id)
	r.b.asked(r.n, -1)
	if r.from != nil {
		r.from.inFlight--
	} else {
		s.wan.inFlight -= r.b.sizes[r.n]
	}
}

// byAge lists the requests in the order they were made, so that actions come in a fixed order.
func (s *Swarm) byAge() []*request {
	out := make([]*request, 0, len(s.reqs))
	for _, r := range s.reqs {
		out = append(out, r)
	}
	sortFunc(out, func(a, b *request) bool { return a.id < b.id })
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
