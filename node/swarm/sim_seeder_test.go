package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/seeder/lease"
)

// simSeeder is the data centre as a site sees it: the real table of leases, and a queue of chunks for each
// connection. It sends one chunk after the other, each only to who holds a lease at that moment.
type simSeeder struct {
	s      *sim
	table  *lease.Table
	list   []*wanConn
	gets   map[*wanConn][]seederGet
	busy   map[*wanConn]bool
	down   bool
	slow   time.Duration // before each chunk: a store that is cold
	paused time.Time
	splits int
	leases int
	refuse int // requests for a chunk without a lease
	// When a lease was taken from a node that did not ask for it: it hears of it half a round trip later.
	revoked map[string]time.Time
}

type seederGet struct {
	req uint32
	n   int
}

const simSite = "site"

func (x *simSeeder) init(s *sim) { x.s, x.revoked = s, map[string]time.Time{}; x.start() }

// start begins without any memory.
func (x *simSeeder) start() {
	x.table = lease.NewTable(lease.Config{}, uint64(x.s.rng.Uint32()))
	x.list, x.gets, x.busy, x.down = nil, map[*wanConn][]seederGet{}, map[*wanConn]bool{}, false
}

// stop ends every connection; nodes notice it as fast as a reset travels.
func (x *simSeeder) stop() {
	x.down = true
	for _, c := range x.conns() {
		x.s.wan.pass(c, false, func() { c.n.run(func() { c.n.lostWAN(c) }) })
		c.atSeeder = false
	}
	x.list = nil
}

func (x *simSeeder) conns() []*wanConn { return append([]*wanConn(nil), x.list...) }

func (x *simSeeder) accept(n *simNode) *wanConn {
	for _, c := range x.conns() { // a peer that starts over
		if c.n == n {
			x.ended(c)
		}
	}
	c := &wanConn{n: n, life: n.life, atNode: true, atSeeder: true}
	x.list = append(x.list, c)
	return c
}

// ended: the seeder sees a connection end.
func (x *simSeeder) ended(c *wanConn) {
	if !c.atSeeder {
		return
	}
	c.atSeeder = false
	for i, o := range x.list {
		if o == c {
			x.list = append(x.list[:i], x.list[i+1:]...)
			break
		}
	}
	delete(x.gets, c)
	x.tell(x.table.Step(x.s.now, lease.Gone{Site: simSite, Peer: string(c.n.id)}))
}

func (x *simSeeder) valid(n *simNode) bool {
	_, ok := x.table.Holder(x.s.now, simSite, string(n.id))
	return ok
}

// took: the seeder has just taken the node's lease, which cannot know it yet.
func (x *simSeeder) took(n *simNode) bool {
	at, ok := x.revoked[string(n.id)]
	return ok && x.s.now.Sub(at) <= x.s.l.rtt
}

// forget ends a node's lease and tells nobody.
func (x *simSeeder) forget(n *simNode) {
	x.table.Step(x.s.now, lease.Gone{Site: simSite, Peer: string(n.id)})
}

// hears takes an event for the table from a connection.
func (x *simSeeder) hears(c *wanConn, ev lease.Event) {
	x.s.wan.pass(c, true, func() { x.tell(x.table.Step(x.s.now, ev)) })
}

func (x *simSeeder) tell(as []lease.Action) {
	for _, a := range as {
		switch a := a.(type) {
		case lease.Grant:
			if a.First {
				if x.leases++; a.Split {
					x.splits++
				}
			}
			x.answer(a.Peer, LeaseGranted{a.Lease, a.TTL, a.Renew, a.Split, x.s.l.rtt, max(0, x.paused.Sub(x.s.now))})
		case lease.Refuse:
			x.answer(a.Peer, LeaseRefused{Peer(a.Holder), a.Retry, max(0, x.paused.Sub(x.s.now))})
		case lease.Revoke:
			x.revoked[a.Peer] = x.s.now
			x.answer(a.Peer, LeaseRefused{})
		}
	}
}

func (x *simSeeder) answer(peer string, ev Event) {
	for _, c := range x.list {
		if string(c.n.id) == peer {
			x.s.wan.pass(c, false, func() { c.n.run(func() { c.n.hearSeeder(c, ev) }) })
		}
	}
}

// pause wants no requests for a while and says so to whoever holds a lease.
func (x *simSeeder) pause(d time.Duration) {
	x.paused = x.s.now.Add(d)
	for _, l := range x.table.Leases(simSite) {
		ttl := l.Expires.Sub(x.s.now)
		x.answer(l.Peer, LeaseGranted{l.ID, ttl, ttl / 3, l.Split, x.s.l.rtt, d})
	}
}

// get asks for a chunk.
func (x *simSeeder) get(c *wanConn, g seederGet) {
	x.s.wan.pass(c, true, func() {
		x.gets[c] = append(x.gets[c], g)
		x.serve(c)
	})
}

func (x *simSeeder) serve(c *wanConn) {
	if x.busy[c] || len(x.gets[c]) == 0 || !c.atSeeder {
		return
	}
	g := x.gets[c][0]
	x.gets[c] = x.gets[c][1:]
	if !x.valid(c.n) {
		x.refuse++
		x.s.wan.pass(c, false, func() { c.n.run(func() { c.n.hearSeeder(c, Failed{g.req, WhyNoLease}) }) })
		x.serve(c)
		return
	}
	x.busy[c] = true
	x.s.after(x.slow, func() { x.slice(c, g, x.s.sizes[g.n]) })
}

// slice sends the rest of a chunk.
func (x *simSeeder) slice(c *wanConn, g seederGet, left int64) {
	if !c.atSeeder {
		x.busy[c] = false
		return
	}
	size := min(left, 16<<10)
	left -= size
	x.s.wan.send(wanSlice{c, g.n, size, func() {
		if left > 0 {
			x.slice(c, g, left)
			return
		}
		x.busy[c] = false
		x.serve(c)
	}, func() {
		if left == 0 {
			c.n.run(func() { c.n.arrived(Fetch{g.req, WAN, x.s.bundle, g.n}, true) })
		}
	}})
}
