package swarm

import "time"

// simWAN is the site's line to the data centre: one queue of slices at its rate, a delay each way. While it is cut
// nothing passes; what was on its way is sent again when it is back, by connections that are still there then.
type simWAN struct {
	s            *sim
	cut          bool
	cuts         int
	stall        time.Time // the line passes nothing before that (loss, other traffic)
	rate         int64
	busy         bool
	queue        []wanSlice
	lone         *simNode // the only node that reaches it; nil: all do
	resend       time.Duration
	began, ended time.Time // when the first slice of anything but the index passed, and the last of all
}

type wanSlice struct {
	c     *wanConn
	n     int // chunk
	size  int64
	drain func() // the slice has passed the line
	came  func() // and has reached the node
}

// wanConn is a node's connection with the seeder. Each end learns for itself that it is over.
type wanConn struct {
	n          *simNode
	life       int
	atNode     bool // the node believes in it
	atSeeder   bool
	upTo, down time.Time // when the last message each way arrives: they stay in order
}

func (w *simWAN) init(s *sim) { w.s, w.rate, w.resend = s, s.l.wan, 200*time.Millisecond }

func (w *simWAN) reaches(n *simNode) bool { return !w.cut && (w.lone == nil || w.lone == n) }

// dial: a SYN is sent at once, after 1 s, after 3 s and after 7 s.
func (w *simWAN) dial(n *simNode, within time.Duration, answer func(ok bool)) {
	s, life := w.s, n.life
	began, done := s.now, false
	finish := func(ok bool) {
		if !done && n.alive && n.life == life {
			done = true
			n.run(func() { answer(ok) })
		}
	}
	for _, d := range []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second} {
		if d >= within {
			break
		}
		s.after(d, func() {
			if !w.reaches(n) || n.frozen || s.seeder.down {
				if s.seeder.down && w.reaches(n) { // its machine refuses
					s.after(s.l.rtt, func() { finish(false) })
				}
				return
			}
			s.after(3*s.l.rtt, func() { // TCP, TLS, lanes
				if w.reaches(n) && s.now.Sub(began) < within && !s.seeder.down {
					finish(true)
				}
			})
		})
	}
	s.after(within, func() { finish(false) })
}

// pass brings a small message to the other end, in order.
func (w *simWAN) pass(c *wanConn, up bool, f func()) {
	at, last := w.s.now.Add(w.s.l.rtt/2), &c.down
	if up {
		last = &c.upTo
	}
	at = later(at, *last)
	*last = at
	w.s.after(at.Sub(w.s.now), func() { w.arrive(c, up, f) })
}

// arrive delivers, or waits for the line to be back.
func (w *simWAN) arrive(c *wanConn, up bool, f func()) {
	switch {
	case up && !c.atSeeder || !up && !c.atNode:
	case w.cut:
		w.s.after(w.resend, func() { w.arrive(c, up, f) })
	default:
		f()
	}
}

// send puts a slice of a chunk on the line.
func (w *simWAN) send(x wanSlice) {
	w.queue = append(w.queue, x)
	w.pump()
}

func (w *simWAN) pump() {
	if w.busy || len(w.queue) == 0 {
		return
	}
	wait := w.stall.Sub(w.s.now)
	if w.cut {
		wait = max(wait, w.resend)
	}
	w.busy = true
	if wait > 0 {
		w.s.after(wait, func() { w.busy = false; w.pump() })
		return
	}
	x := w.queue[0]
	w.queue = w.queue[1:]
	w.s.after(lasts(x.size, w.rate), func() {
		w.busy = false
		w.s.crossed[x.n] += x.size
		if w.ended = w.s.now; w.began.IsZero() && x.n > 0 {
			w.began = w.s.now
		}
		w.s.after(w.s.l.rtt/2, func() { w.arrive(x.c, false, x.came) })
		x.drain()
		w.pump()
	})
}

// setCut cuts the line, or mends it. A connection that is silent for long ends, at both ends.
func (w *simWAN) setCut(cut bool) {
	w.cut = cut
	if w.cuts++; !cut {
		return
	}
	mark := w.cuts
	w.s.after(quiet, func() {
		if w.cuts == mark {
			for _, c := range w.s.seeder.conns() {
				w.s.seeder.ended(c)
				c.n.run(func() { c.n.lostWAN(c) })
			}
		}
	})
}
