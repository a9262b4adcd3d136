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
//     they all compute alike, a few at once for each holder: a tree for every chunk, each with another shape, so that no
//     node uploads the same chunk to everybody. Among holders the one counts that will have sent it first. Who holds
//     more than all others, or is the uplink, gives each chunk out once.
//   - A neighbour is believed until it does not keep its word: a claim that fails again and again counts for nothing,
//     who sends wrong bytes is not asked for ever longer, and an uplink that brings nothing is not heeded.
package swarm

import (
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
	Depth      int           // of one neighbour; less when there are many
	Window     int64         // bytes: least write-through window (see windowBytes)
	Settle     time.Duration // how long a fresh node, or one that hears of a bundle, waits at most to hear who has what before it goes to the WAN
	Stagger    time.Duration // between candidates for the lease
	SplitAfter time.Duration // how long the holder must be out of reach before a second lease is asked for
	Patience   time.Duration // how long a chunk may wait for its turn before the turn is opened to one more node
	Deadline   time.Duration // for a chunk from a neighbour, at least
	Ban        time.Duration // of a neighbour, the first one; each is twice as long as the one before
	Barren     time.Duration // how long an uplink may bring nothing before its word counts for nothing
}

// Defaults.
const (
	DefaultInFlight   = 8
	DefaultDepth      = 4
	DefaultWindow     = 4 * 256 << 10
	DefaultSettle     = 2 * time.Second
	DefaultStagger    = time.Second
	DefaultSplitAfter = 5 * time.Second
	DefaultPatience   = 500 * time.Millisecond
	DefaultDeadline   = 8 * time.Second
	DefaultBan        = 10 * time.Minute
	DefaultBarren     = time.Minute
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
	def(&c.Barren, DefaultBarren)
	return c
}

// Swarm is the state of one node. It is not safe for concurrent use.
type Swarm struct {
	cfg      Config
	hash     uint64 // of cfg.Self
	now      time.Time
	out      []Action
	started  time.Time
	settled  bool
	expect   map[Peer]bool // nil: the roster is not known
	peers    map[Peer]*neighbour
	order    []*neighbour // by hash, for a fixed order
	conducts map[Peer]*conduct
	bundles  map[Bundle]*bundle
	list     []*bundle // in the order of their addition
	reqs     map[uint32]*request
	lastReq  uint32
	got      time.Time // when a chunk last came, from wherever, or there was a reason that none could
	moved    time.Time // when a chunk was last asked of a neighbour, or came from one
	barren   int       // uplinks in a row that brought nothing
	uplink   uplink
	wan      flow
	disk     disk
	leave    leave
}

// New returns the state of a node that has just started.
func New(cfg Config, now time.Time) *Swarm {
	s := &Swarm{cfg: cfg.withDefaults(), hash: hashPeer(cfg.Self), now: now, started: now, got: now, peers: map[Peer]*neighbour{},
		conducts: map[Peer]*conduct{}, bundles: map[Bundle]*bundle{}, reqs: map[uint32]*request{}}
	s.uplink.lonelySince = now
	return s
}

// Step applies one event and returns what to do, in order.
func (s *Swarm) Step(now time.Time, ev Event) []Action {
	s.now = now
	s.out = nil
	switch e := ev.(type) {
	case Tick:
		s.pardon()
		s.expire()
		s.watchUplink()
	case Expect:
		s.expect = map[Peer]bool{}
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
	case Progress:
		s.progress(e)
	case Late:
		s.late(e)
	case Banned:
		s.banned(e)
	case Leave:
		s.startLeaving()
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
	s.mayLeave()
	return s.out
}

func (s *Swarm) do(a Action) { s.out = append(s.out, a) }

// settle ends the wait of a fresh node once every neighbour on the roster has said what it has, or at the latest
// after Settle. A node that is alone on its roster has nobody to wait for.
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
	s.settled = s.expect != nil
}
