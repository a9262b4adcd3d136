package swarm

import (
	"slices"
	"time"
)

// The LAN: every node has a line out and a line in, of which each carries one slice at a time. A line out gives the
// flows that have something to send a slice each in turn; a flow has only so many slices on their way that the line
// in of the other end does not have to remember more: together about what TCP does. Chunks of one flow go one after
// the other, as package xfer sends them.

// line is one direction of a node's connection.
type line struct {
	rate    int64
	busy    bool
	waiting []*parcel // out: chunks that have not begun, in the order they were asked for
	begun   []*parcel // out: chunks being sent, one of each stream, a slice each in turn
	slots   []slot    // in: slices that have come
}

// stream carries chunks from one node to another within a session, one after the other.
type stream struct {
	from, to *simNode
	sess     *session
	flying   int // slices
	sending  bool
}

// parcel is a chunk on its way.
type parcel struct {
	f    *stream
	n    int   // chunk
	left int64 // not sent yet
	came int64 // not arrived yet
	done func()
}

type slot struct {
	p    *parcel
	size int64
}

const streamSlices = 16 // of one stream on their way

// send puts a chunk into the stream of a session; done is called at the receiver when the last slice has come.
func (s *sim) send(sess *session, from, to *simNode, n int, done func()) {
	size := s.sizes[n]
	from.up.waiting = append(from.up.waiting, &parcel{sess.stream(from, to), n, size, size, done})
	s.pumpOut(from)
}

func (s *sim) pumpOut(n *simNode) {
	l := &n.up
	if l.busy || !n.alive || n.frozen {
		return
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(p *parcel) bool { return p.f.sess.broken })
	l.waiting = slices.DeleteFunc(l.waiting, func(p *parcel) bool {
		if p.f.sending {
			return false
		}
		p.f.sending = true
		l.begun = append(l.begun, p)
		return true
	})
	for i, p := range l.begun {
		if p.f.sess.broken {
			l.begun = slices.Delete(l.begun, i, i+1)
			s.pumpOut(n)
			return
		}
		if p.f.flying >= streamSlices {
			continue
		}
		size := min(p.left, s.l.slice)
		l.begun = slices.Delete(l.begun, i, i+1)
		if p.left -= size; p.left > 0 {
			l.begun = append(l.begun, p)
		} else {
			p.f.sending = false
		}
		p.f.flying++
		l.busy = true
		s.after(lasts(size, l.rate), func() {
			l.busy = false
			s.after(s.lat(), func() { s.comeIn(slot{p, size}) })
			s.pumpOut(n)
		})
		return
	}
}

func (s *sim) comeIn(x slot) {
	if x.p.f.sess.broken {
		return
	}
	n := x.p.f.to
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
		if !x.p.f.sess.broken {
			x.p.f.flying--
			n.received += x.size
			if x.p.came -= x.size; x.p.came == 0 {
				x.p.done()
			}
			s.pumpOut(x.p.f.from)
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
