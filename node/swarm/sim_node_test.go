package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

// simNode is a node: what package node does around a Swarm, with a disk that keeps what was written.
type simNode struct {
	s      *sim
	i      int
	id     Peer
	sw     *Swarm
	life   int // counts boots
	alive  bool
	absent bool // not booted yet, and nobody waits for it
	frozen bool
	later  []func() // what came while it was frozen
	side   int      // of a LAN that is split
	sess   map[int]*session
	wan    *wanConn // as the node believes
	have   []bool
	known  int // how much of the catalog
	wants  bool
	done   bool
	doneAt time.Time
	evil   evil                 // nil: honest
	full   bool                 // the disk
	waits  time.Duration        // it hears of the bundle only then
	left   bool                 // said that it may leave
	gone   map[uint32]bool      // requests given up
	heard  map[int]map[int]bool // what each neighbour said it holds
	up     line
	down   line
	cpu    time.Time        // busy until then
	news   map[int][]uint32 // for whom, not said yet

	received int64 // bytes over the LAN
}

// run does f as the node: at once, or when it thaws.
func (n *simNode) run(f func()) {
	switch {
	case !n.alive:
	case n.frozen:
		n.later = append(n.later, f)
	default:
		f()
	}
}

// soon does f as the node in d, unless it has died.
func (n *simNode) soon(d time.Duration, f func()) {
	life := n.life
	n.s.after(d, func() {
		if n.life == life {
			n.run(f)
		}
	})
}

func (n *simNode) boot(after time.Duration) {
	s := n.s
	s.after(after, func() {
		n.life++
		n.alive, n.absent, n.frozen, n.left, n.done = true, false, false, false, false
		n.wan, n.later, n.cpu = nil, nil, s.now
		n.up, n.down = line{rate: n.up.rate}, line{rate: n.down.rate}
		n.sess, n.gone, n.heard, n.news = map[int]*session{}, map[uint32]bool{}, map[int]map[int]bool{}, map[int][]uint32{}
		cfg := s.l.cfg
		cfg.Self = n.id
		n.sw = New(cfg, s.now)
		var others []Peer
		for _, o := range s.nodes {
			if o != n {
				others = append(others, o.id)
			}
		}
		n.step(Expect{others})
		if n.waits == 0 {
			n.addBundle()
		} else {
			n.soon(n.waits-s.now.Sub(time.Unix(0, 0))+s.within(20*time.Millisecond), n.addBundle)
		}
		n.tick()
		s.connectAll()
	})
}

func (n *simNode) tick() {
	n.soon(100*time.Millisecond, func() { n.step(Tick{}); n.tick() })
}

// addBundle tells the swarm what is known of the bundle: its index, or with the index all of it.
func (n *simNode) addBundle() {
	n.known = 1
	if n.have[0] {
		n.known = len(n.have)
	}
	n.step(BundleAdd{n.s.bundle, n.s.sizes[:n.known], 1, n.have[:n.known], n.wants})
	for _, o := range n.s.nodes {
		if n.sess[o.i] != nil {
			n.tellHave(o)
		}
	}
}

// met: a session is up. What we have goes out before anything that makes them choose.
func (n *simNode) met(o *simNode, x *session) {
	n.sess[o.i], n.heard[o.i], n.news[o.i] = x, map[int]bool{}, nil
	if n.known > 0 {
		n.tellHave(o)
	}
	n.step(PeerUp{o.id, roster.WANAllow})
	holder, split := n.sw.Near()
	n.deliver(o, func() { o.step(PeerUplink{n.id, holder, split}) })
}

func (n *simNode) lostSession(x *session) {
	o := x.a
	if o == n {
		o = x.b
	}
	if n.sess[o.i] == x {
		delete(n.sess, o.i)
		delete(n.heard, o.i)
		n.step(PeerDown{o.id})
	}
}

// deliver runs f at a neighbour, in order, if the session is still up there.
func (n *simNode) deliver(o *simNode, f func()) {
	x := n.sess[o.i]
	if x == nil || x.broken {
		return
	}
	at := n.s.now.Add(n.s.lat())
	when := x.last(n)
	at = later(at, *when)
	*when = at
	n.s.after(at.Sub(n.s.now), func() {
		o.run(func() {
			if o.sess[n.i] == x && !x.broken {
				f()
			}
		})
	})
}

func (n *simNode) tellHave(o *simNode) {
	bits := make([]byte, (n.known+7)/8)
	var list []int
	for i := range n.known {
		if n.have[i] || n.evil != nil && n.evil.claims(n, i) {
			bits[i/8] |= 1 << (i % 8)
			list = append(list, i)
		}
	}
	wants, total := n.wants && !n.sw.leave.asked, n.known
	n.deliver(o, func() {
		o.heard[n.i] = map[int]bool{}
		for _, i := range list {
			o.heard[n.i][i] = true
		}
		o.step(PeerHave{n.id, n.s.bundle, wants, total, bits})
	})
}

// step gives the swarm an event and does what it decides.
func (n *simNode) step(ev Event) {
	evs := []Event{ev}
	if n.s.l.kinder != nil {
		evs = n.s.l.kinder(n, ev)
	}
	for _, ev := range evs {
		for _, a := range n.sw.Step(n.s.now, ev) {
			n.act(a)
		}
	}
}

func (n *simNode) act(a Action) {
	s := n.s
	if n.evil != nil && n.evil.acts(n, a) {
		return
	}
	switch a := a.(type) {
	case Fetch:
		if a.From == WAN {
			s.checkWAN(n, a)
			s.seeder.get(n.wan, seederGet{a.Req, a.Number})
		} else {
			n.ask(a)
		}
	case Cancel:
		n.gone[a.Req] = true
	case Announce:
		s.checkAnnounce(n, a)
		n.announce(a.Numbers)
	case Complete:
		if n.known < len(n.have) {
			n.soon(2*time.Millisecond, n.addBundle) // the index is read
		} else if n.wants && !n.done {
			n.done, n.doneAt = true, s.now
		}
	case Withdraw:
		for _, o := range s.nodes {
			if n.sess[o.i] != nil {
				n.tellHave(o)
			}
		}
	case MayLeave:
		n.left = true
	case TellUplink:
		for _, o := range s.nodes {
			if n.sess[o.i] != nil {
				n.deliver(o, func() { o.step(PeerUplink{n.id, a.Holder, a.Split}) })
			}
		}
	case Strike:
		s.strikes = append(s.strikes, struck{n.i, a})
	case DialWAN:
		s.wan.dial(n, a.Within, n.dialled)
	case HangUpWAN:
		n.hangUp()
	case AskLease:
		if n.wan != nil {
			s.seeder.hears(n.wan, lease.Ask{Site: simSite, Peer: string(n.id), Active: a.Active, Unreachable: string(a.Unreachable)})
		}
	case RenewLease:
		if n.wan != nil {
			s.seeder.hears(n.wan, lease.Renew{Site: simSite, Peer: string(n.id), Lease: a.Lease, Active: a.Active})
		}
	case ReleaseLease:
		if n.wan != nil {
			s.seeder.hears(n.wan, lease.Release{Site: simSite, Peer: string(n.id), Lease: a.Lease})
		}
	}
}

// announceEvery is how long news wait for more of them when nobody waits for them.
const announceEvery = 100 * time.Millisecond

// announce tells neighbours of new chunks: at once whom they help, the others in batches.
func (n *simNode) announce(numbers []uint32) {
	for _, o := range n.s.nodes {
		if n.sess[o.i] == nil {
			continue
		}
		urgent := false
		for _, u := range numbers {
			urgent = urgent || n.sw.Waits(o.id, n.s.bundle, int(u))
		}
		n.news[o.i] = append(n.news[o.i], numbers...)
		if urgent {
			n.tellNews(o)
		} else if len(n.news[o.i]) == len(numbers) {
			n.soon(announceEvery, func() { n.tellNews(o) })
		}
	}
}

func (n *simNode) tellNews(o *simNode) {
	news := n.news[o.i]
	if len(news) == 0 {
		return
	}
	n.news[o.i] = nil
	n.deliver(o, func() {
		for _, u := range news {
			o.heard[n.i][int(u)] = true
		}
		o.step(PeerHaveAdd{n.id, n.s.bundle, news})
	})
}

func (n *simNode) dialled(ok bool) {
	if !ok {
		n.step(WANDown{})
		return
	}
	n.wan = n.s.seeder.accept(n)
	n.step(WANUp{})
}

func (n *simNode) hangUp() {
	if c := n.wan; c != nil {
		n.s.wan.pass(c, true, func() { n.s.seeder.ended(c) })
		c.atNode, n.wan = false, nil
	}
}

func (n *simNode) lostWAN(c *wanConn) {
	if n.wan == c {
		c.atNode, n.wan = false, nil
		n.step(WANDown{})
	}
}

func (n *simNode) hearSeeder(c *wanConn, ev Event) {
	if n.wan == c {
		if f, ok := ev.(Failed); ok && n.gone[f.Req] {
			return
		}
		n.step(ev)
	}
}

// ask asks a neighbour for a chunk.
func (n *simNode) ask(a Fetch) {
	for _, o := range n.s.nodes {
		if o.id == a.From {
			n.deliver(o, func() { o.serve(n, a) })
			return
		}
	}
}

// serve answers a neighbour.
func (n *simNode) serve(to *simNode, a Fetch) {
	if n.evil != nil && n.evil.serves(n, to, a) {
		return
	}
	if !n.have[a.Number] {
		n.refuse(to, a, WhyNotHeld)
		return
	}
	x := n.sess[to.i]
	n.s.send(x, n, to, a.Number, func() {
		to.run(func() {
			if to.sess[n.i] == x {
				to.arrived(a, true)
			}
		})
	})
}

func (n *simNode) refuse(to *simNode, a Fetch, why Why) {
	n.deliver(to, func() {
		if !to.gone[a.Req] {
			to.step(Failed{a.Req, why})
		}
	})
}

// arrived: a chunk has come. It is hashed and written, and only then there.
func (n *simNode) arrived(a Fetch, good bool) {
	s := n.s
	n.cpu = later(n.cpu, s.now).Add(lasts(s.sizes[a.Number], 600<<20)) // one hash after the other
	n.soon(n.cpu.Sub(s.now)+s.l.store/2+s.within(s.l.store+1), func() {
		switch {
		case !s.verify(n, a.From, a.Number, good):
			if !n.gone[a.Req] {
				n.step(Failed{a.Req, WhyCorrupt})
			}
		case n.full:
			if !n.gone[a.Req] {
				n.step(Failed{a.Req, WhyLocal})
			}
		case n.have[a.Number] && a.From != WAN:
			s.wasted += s.sizes[a.Number]
			n.step(Stored{a.Req})
		default:
			n.have[a.Number] = true
			n.step(Stored{a.Req})
			n.step(Gained{a.Bundle, a.Number})
		}
	})
}

func (n *simNode) count() (k int) {
	for _, h := range n.have {
		if h {
			k++
		}
	}
	return k
}

// kill ends the process; neighbours notice after so long, the seeder too.
func (n *simNode) kill(notice time.Duration) {
	if !n.alive {
		return
	}
	n.alive = false
	n.life++ // what it was about to do is not done
	for _, o := range n.s.nodes {
		if x := n.sess[o.i]; x != nil {
			n.s.sever(x, notice)
		}
	}
	if c := n.wan; c != nil {
		c.atNode = false
		n.s.after(max(notice, n.s.l.rtt/2), func() { n.s.seeder.ended(c) })
	}
}

// freeze stops the process for a while. Its connections stay up until the others lose patience, which it learns, like
// everything else that came meanwhile, when it thaws.
func (n *simNode) freeze(d time.Duration) {
	s, life := n.s, n.life
	n.frozen = true
	s.after(quiet, func() {
		if n.frozen && n.life == life {
			for _, o := range s.nodes {
				if x := n.sess[o.i]; x != nil {
					s.sever(x, 0)
				}
			}
			if c := n.wan; c != nil {
				s.seeder.ended(c)
				n.run(func() { n.lostWAN(c) })
			}
		}
	})
	s.after(d, func() {
		if n.life != life {
			return
		}
		n.frozen = false
		todo := n.later
		n.later = nil
		for _, f := range todo {
			f()
		}
		s.pumpOut(n)
		s.pumpIn(n)
	})
}
