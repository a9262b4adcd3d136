package swarm

import "time"

// fault is something that breaks in a run.
type fault func(*sim)

// when does f once so much of the bundle has crossed the WAN.
func (s *sim) when(share float64, f func()) {
	s.awaited++
	var look func()
	look = func() {
		got, all := int64(0), s.total()-s.before
		for i, b := range s.crossed {
			got += min(b, s.sizes[i])
		}
		if float64(got) >= share*float64(all) {
			s.awaited--
			f()
			return
		}
		s.after(5*time.Millisecond, look)
	}
	s.after(0, look)
}

// over does f in d, and the run does not end before.
func (s *sim) over(d time.Duration, f func()) {
	s.awaited++
	s.after(d, func() { s.awaited--; f() })
}

// holder is the node that leads.
func (s *sim) holder() *simNode {
	for _, n := range s.nodes {
		if n.alive && n.sw.Leads() && s.seeder.valid(n) {
			return n
		}
	}
	return nil
}

// hitUplink does f to the uplink, as soon as there is one.
func (s *sim) hitUplink(f func(*simNode)) {
	if n := s.holder(); n != nil {
		f(n)
		return
	}
	s.over(5*time.Millisecond, func() { s.hitUplink(f) })
}

// first is the candidate whose turn comes first, or last, among those that fit.
func (s *sim) first(fit func(*simNode) bool, last bool) (best *simNode) {
	weight := func(n *simNode) uint64 { return mix(hashPeer(n.id), 0x5eed) >> 1 }
	for _, n := range s.nodes {
		if fit(n) && (best == nil || (weight(n) < weight(best)) != last) {
			best = n
		}
	}
	return best
}

func killUplinkAt(share float64, notice time.Duration) fault {
	return func(s *sim) {
		s.when(share, func() {
			s.hitUplink(func(n *simNode) { s.deaths++; n.kill(notice); n.absent = true })
		})
	}
}

// killTwice kills the uplink, and its successor as soon as that leads.
func killTwice(share float64) fault {
	return func(s *sim) {
		s.when(share, func() {
			s.hitUplink(func(n *simNode) {
				s.deaths++
				n.kill(time.Millisecond)
				n.absent = true
				s.over(s.within(2*time.Second), func() {
					s.hitUplink(func(n *simNode) { s.deaths++; n.kill(time.Millisecond); n.absent = true })
				})
			})
		})
	}
}

func freezeUplink(share float64, d time.Duration) fault {
	return func(s *sim) {
		s.when(share, func() {
			s.hitUplink(func(n *simNode) { s.deaths++; n.freeze(d); s.over(d, func() {}) })
		})
	}
}

func cutWAN(share float64, d time.Duration) fault {
	return func(s *sim) {
		s.when(share, func() {
			s.deaths++
			s.wan.setCut(true)
			s.over(d, func() { s.wan.setCut(false) })
		})
	}
}

// flapWAN: seconds up, seconds down. Each fall may break the session.
func flapWAN(times int) fault {
	return func(s *sim) {
		var fall func(left int)
		fall = func(left int) {
			s.deaths++
			s.wan.setCut(true)
			s.over(500*time.Millisecond+s.within(6*time.Second), func() {
				s.wan.setCut(false)
				if left > 1 {
					s.over(500*time.Millisecond+s.within(4*time.Second), func() { fall(left - 1) })
				}
			})
		}
		s.when(0.1, func() { fall(times) })
	}
}

// lossyWAN: one connection over a line with loss is slower and now and then waits for a timer.
func lossyWAN(s *sim) {
	s.wan.rate = s.wan.rate * 6 / 10
	var stall func()
	stall = func() {
		s.wan.stall = s.now.Add(200*time.Millisecond + s.within(1200*time.Millisecond))
		s.after(time.Second+s.within(3*time.Second), stall)
	}
	s.after(time.Second, stall)
}

// splitLAN splits it in two, uplink on one side, and heals it.
func splitLAN(share float64, d time.Duration) fault {
	return func(s *sim) {
		s.when(share, func() {
			for i, n := range s.nodes {
				n.side = i % 2
			}
			for i, a := range s.nodes {
				for _, b := range s.nodes[i+1:] {
					if x := a.sess[b.i]; x != nil && a.side != b.side {
						s.sever(x, quiet)
					}
				}
			}
			s.over(d, func() {
				for _, n := range s.nodes {
					n.side = 0
				}
			})
		})
	}
}

// powerFailure: all nodes stop at once; the last chunks of each are lost; they come back one by one.
func powerFailure(share float64) fault {
	return func(s *sim) {
		s.when(share, func() {
			s.deaths++
			for _, n := range s.nodes {
				n.kill(quiet)
				for k := 0; k < 2; k++ {
					i := s.rng.IntN(len(n.have))
					if n.have[i] && s.copies(i) > 1 { // the last copy is within the window that a death may cost
						n.have[i] = false
					}
				}
				n.boot(4*time.Second + s.within(10*time.Second))
			}
		})
	}
}

func (s *sim) copies(chunk int) (k int) {
	for _, n := range s.nodes {
		if n.have[chunk] {
			k++
		}
	}
	return k
}

// restartWithHalf kills a node that is not the uplink; it comes back with half of what it had.
func restartWithHalf(share float64) fault {
	return func(s *sim) {
		s.when(share, func() {
			n := s.first(func(n *simNode) bool { return n.alive && !n.sw.Leads() }, true)
			n.kill(time.Millisecond)
			for i := range n.have {
				if n.have[i] && s.copies(i) > 1 && s.rng.IntN(2) == 0 {
					n.have[i] = false
				}
			}
			n.boot(3 * time.Second)
		})
	}
}

func restartSeeder(share float64, away, cold time.Duration) fault {
	return func(s *sim) {
		s.when(share, func() {
			s.deaths++
			s.seeder.stop()
			s.over(away, func() { s.seeder.start(); s.seeder.slow = cold })
		})
	}
}

// leaveUplink asks the uplink to leave; it goes when it says that it may.
func leaveUplink(share float64) fault {
	return func(s *sim) {
		s.when(share, func() { s.hitUplink(func(n *simNode) { s.leave(n, func() { n.absent = true }) }) })
	}
}

func (s *sim) leave(n *simNode, then func()) {
	n.step(Leave{})
	var look func()
	look = func() {
		if !n.left {
			s.over(10*time.Millisecond, look)
			return
		}
		if sole := n.sw.Sole(); sole > 0 {
			s.violated("node %d may leave, and %d bytes that others want with it", n.i, sole)
		}
		n.kill(time.Millisecond)
		then()
	}
	look()
}
