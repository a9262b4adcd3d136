package swarm

import "time"

// The LAN: every node has a line out and a line in, of which each carries one slice at a time. A line out gives the
// flows that have something to send a slice each in turn; a flow has only so many slices on their way that the line
// in of the other end does not have to remember more: together about what TCP does. Chunks of one flow go one after
// the other, as package xfer sends them.

// line is one direction of a node's connection.
type line struct {
	rate  int64
	busy  bool
	turns []*stream // out: flows to be served, in turn
	slots []slot    // in: slices that have come
}

// stream carries chunks from one node to another within a session.
type stream struct {
	from, to *simNode
	sess     *session
	queue    []*parcel
	flying   int // slices
	queued   bool
}

// parcel is a chunk on its way.
type parcel struct {
	left int64 // not sent yet
	came int64 // not arrived yet
	done func()
}

type slot struct {
	f    *stream
	p    *parcel
	size int64
}

const streamSlices = 4 // of one flow on their way

// send puts a chunk into the stream of a session; done is called at the receiver when the last slice has come.
func (s *sim) send(sess *session, from, to *simNode, size int64, done func()) {
	f := sess.stream(from, to)
	f.queue = append(f.queue, &parcel{size, size, done})
	s.enqueue(f)
}

func (s *sim) enqueue(f *stream) {
	if f.queued || len(f.queue) == 0 || f.flying >= streamSlices {
		return
	}
	f.queued = true
	f.from.up.turns = append(f.from.up.turns, f)
	s.pumpOut(f.from)
}

func (s *sim) pumpOut(n *simNode) {
	l := &n.up
	for !l.busy && len(l.turns) > 0 && !n.frozen {
		f := l.turns[0]
		l.turns = l.turns[1:]
		f.queued = false
		if f.sess.broken || !n.alive || len(f.queue) == 0 {
			continue
		}
		p := f.queue[0]
		size := min(p.left, s.l.slice)
		if p.left -= size; p.left == 0 {
			f.queue = f.queue[1:]
		}
		f.flying++
		l.busy = true
		s.after(lasts(size, l.rate), func() {
			l.busy = false
			s.enqueue(f)
			s.after(s.lat(), func() { s.comeIn(slot{f, p, size}) })
			s.pumpOut(n)
		})
	}
}

func (s *sim) comeIn(x slot) {
	if x.f.sess.broken {
		return
	}
	n := x.f.to
	n.down.slots = append(n.down.slots, x)
	s.pumpIn(n)
}

func (s *sim) pumpIn(n *simNode) {
	l := &n.down
	if l.busy || len(l.slots) == 0 || n.frozen {
		return
	}
	x := l.slots[0]
	l.slots = l.slots[1:]
	l.busy = true
	s.after(lasts(x.size, l.rate), func() {
		l.busy = false
		if !x.f.sess.broken {
			x.f.flying--
			n.received += x.size
			if x.p.came -= x.size; x.p.came == 0 {
				x.p.done()
			}
			s.enqueue(x.f)
		}
		s.pumpIn(n)
	})
}

func lasts(size, rate int64) time.Duration {
	return time.Duration(size * int64(time.Second) / rate)
}

// lat is the way of a message through the LAN and two processes.
func (s *sim) lat() time.Duration { return 200*time.Microsecond + s.within(600*time.Microsecond) }

// session is a connection of two nodes. Each end learns for itself that it is over.
type session struct {
	a, b   *simNode
	ab, ba stream
	said   [2]time.Time // when the last message of a, of b arrives: they stay in order
	broken bool         // nothing passes any more
}

func (x *session) last(of *simNode) *time.Time {
	if of == x.a {
		return &x.said[0]
	}
	return &x.said[1]
}

func (x *session) stream(from, to *simNode) *stream {
	f := &x.ab
	if from == x.b {
		f = &x.ba
	}
	f.from, f.to, f.sess = from, to, x
	return f
}

// quiet is how long a session is silent before its ends give it up.
const quiet = 3500 * time.Millisecond

// mend connects who can be connected, twice a second.
func (s *sim) mend() {
	s.connectAll()
	s.after(500*time.Millisecond, s.mend)
}

func (s *sim) connectAll() {
	for i, a := range s.nodes {
		for _, b := range s.nodes[i+1:] {
			if s.reachable(a, b) && a.sess[b.i] == nil && b.sess[a.i] == nil {
				s.after(s.within(100*time.Millisecond), func() { s.connect(a, b) })
			}
		}
	}
}

func (s *sim) reachable(a, b *simNode) bool {
	return a.alive && b.alive && !a.frozen && !b.frozen && a.side == b.side
}

func (s *sim) connect(a, b *simNode) {
	if !s.reachable(a, b) || a.sess[b.i] != nil || b.sess[a.i] != nil {
		return
	}
	x := &session{a: a, b: b}
	a.met(b, x)
	b.met(a, x)
}

// sever breaks a session; the ends learn it after so long.
func (s *sim) sever(x *session, notice time.Duration) {
	if x.broken {
		return
	}
	x.broken = true
	for _, n := range []*simNode{x.a, x.b} {
		life := n.life
		s.after(notice, func() {
			if n.life == life {
				n.run(func() { n.lostSession(x) })
			}
		})
	}
}
