package swarm

import (
	"testing"
	"time"
)

// baseline is a usual site: 50 Mbit/s and 40 ms to the data centre, 1 Gbit/s within.
func baseline() layout {
	return layout{nodes: 8, bytes: 24 << 20, wan: 50 * mbit, lan: 1000 * mbit, rtt: 40 * time.Millisecond, slice: 64 << 10, store: 3 * time.Millisecond}
}

// scenario is a site and what breaks in it.
type scenario struct {
	name string
	l    layout
	fs   []fault
}

func scenarios() []scenario {
	site := func(name string, change func(*layout), fs ...fault) scenario {
		l := baseline()
		if change != nil {
			change(&l)
		}
		return scenario{name, l, fs}
	}
	nodes := func(n int) func(*layout) { return func(l *layout) { l.nodes = n } }
	evils := func(n int, of func(i int) evil) func(*layout) {
		return func(l *layout) {
			l.nodes = max(l.nodes, n+1)
			l.evil = func(i int) evil {
				if i < n {
					return of(i)
				}
				return nil
			}
			// An insider that is uplink wastes what it is given: at most a bundle for each lease.
			l.mayDup = func(s *sim) int64 { return int64(s.seeder.leases) * s.total() }
		}
	}
	all := func(e evil) func(int) evil { return func(int) evil { return e } }
	prepare := func(f func(*sim)) func(*layout) { return func(l *layout) { l.prepare = f } }

	return []scenario{
		site("no fault", nil),
		site("one node", nodes(1)),
		site("two nodes", nodes(2)),
		site("30 nodes", nodes(30)),
		site("thin WAN", func(l *layout) { l.wan, l.bytes = 2*mbit, 8<<20 }),
		site("fat WAN far away", func(l *layout) { l.wan, l.rtt, l.bytes = 200*mbit, 150*time.Millisecond, 64<<20 }, killUplinkAt(0.5, time.Millisecond)),
		site("slow LAN", func(l *layout) { l.lan = 60 * mbit }),
		site("the first candidates relay and want nothing", prepare(func(s *sim) {
			for range 2 {
				s.first(func(n *simNode) bool { return n.wants }, false).wants = false
			}
		})),

		site("uplink killed at 10 %", nil, killUplinkAt(0.1, time.Millisecond)),
		site("uplink killed at 50 %", nil, killUplinkAt(0.5, time.Millisecond)),
		site("uplink killed at 90 %", nil, killUplinkAt(0.9, time.Millisecond)),
		site("uplink loses power at 50 %", nil, killUplinkAt(0.5, quiet)),
		site("uplink killed, and its successor", nil, killTwice(0.4)),
		site("uplink killed on a slow LAN", func(l *layout) { l.lan = 60 * mbit }, killUplinkAt(0.5, time.Millisecond)),
		site("uplink frozen for 2 s", nil, freezeUplink(0.3, 2*time.Second)),
		site("uplink frozen for 5 s", nil, freezeUplink(0.3, 5*time.Second)),
		site("uplink frozen for 20 s", nil, freezeUplink(0.3, 20*time.Second)),
		site("uplink asked to leave at 10 %", nil, leaveUplink(0.1)),
		site("uplink asked to leave at 50 %", nil, leaveUplink(0.5)),
		site("uplink asked to leave at 90 %", nil, leaveUplink(0.9)),

		site("WAN cut for 2 s", nil, cutWAN(0.5, 2*time.Second)),
		site("WAN cut for 20 s", nil, cutWAN(0.5, 20*time.Second)),
		site("WAN flaps", nil, flapWAN(4)),
		site("WAN loses packets", nil, lossyWAN),
		site("WAN from the last candidate only", prepare(func(s *sim) { s.wan.lone = s.first(func(*simNode) bool { return true }, true) })),
		site("a pause of 30 s", nil, func(s *sim) { s.when(0.4, func() { s.seeder.pause(30 * time.Second) }) }),

		site("LAN split for 4 s", nil, splitLAN(0.3, 4*time.Second)),
		site("LAN split for 20 s", func(l *layout) {
			l.bytes = 96 << 20
			// What is on its way when the halves meet.
			l.mayDup = func(s *sim) int64 { return int64(s.seeder.splits) * s.window() }
		}, splitLAN(0.2, 20*time.Second)),
		site("a slow node", prepare(func(s *sim) { s.nodes[3].up.rate, s.nodes[3].down.rate = 10*mbit, 20*mbit })),
		site("a full disk", nil, func(s *sim) {
			n := s.first(func(*simNode) bool { return true }, true) // never the uplink
			s.when(0.3, func() { n.full = true; s.over(20*time.Second, func() { n.full = false }) })
		}),
		site("the uplink's disk is full", nil, func(s *sim) {
			s.when(0.3, func() {
				s.hitUplink(func(n *simNode) { s.deaths++; n.full = true; s.over(20*time.Second, func() { n.full = false }) })
			})
		}),
		site("a node joins late", prepare(func(s *sim) { s.nodes[0].absent = true }), func(s *sim) {
			s.when(0.6, func() { s.nodes[0].boot(0); s.over(100*time.Millisecond, func() {}) })
		}),
		site("a node restarts with half", nil, restartWithHalf(0.6)),
		site("all reboot", nil, powerFailure(0.5)),
		site("all boot with pieces", prepare(scatter)),
		site("the last complete holder is asked to leave", func(l *layout) {
			l.lan = 100 * mbit
			l.prepare = func(s *sim) {
				n := s.nodes[s.rng.IntN(len(s.nodes))]
				for i := range n.have {
					n.have[i] = true
				}
				s.own()
				s.wan.cut = true
			}
		}, func(s *sim) {
			for _, n := range s.nodes {
				if n.have[0] {
					s.over(300*time.Millisecond, func() { s.leave(n, func() { n.absent = true }) })
				}
			}
		}),
		site("all are asked to leave at once", nil, func(s *sim) {
			s.when(0.5, func() {
				for _, n := range s.nodes {
					s.leave(n, func() { n.absent = true })
				}
			})
		}),
		site("seeder restarted", nil, restartSeeder(0.5, time.Second, 0)),
		site("seeder replaced", nil, restartSeeder(0.5, 5*time.Second, 300*time.Millisecond)),

		site("wrong bytes", evils(1, all(poisoner{}))),
		site("stalls", evils(1, all(staller{}))),
		site("drips", evils(2, all(dripper{}))),
		site("busy for ever", evils(2, all(shirker{}))),
		site("lies about what it has", evils(2, all(liar{}))),
		site("hangs up when asked", evils(1, all(quitter{}))),
		site("serves most", evils(3, all(choosy{}))),
		site("an uplink keeps what it fetches", func(l *layout) { evils(1, all(hoarder{}))(l); firstIsEvil(l) }),
		site("an uplink fetches nothing", func(l *layout) { evils(1, all(squatter{}))(l); firstIsEvil(l) }),
		site("nine of ten are evil", evils(9, mob)),
		site("nine of ten send wrong bytes", evils(9, all(poisoner{}))),
		site("nine of ten stall", evils(9, all(staller{}))),
		site("all neighbours are evil", evils(5, mob)),
	}
}

// firstIsEvil makes the first candidate the evil one.
func firstIsEvil(l *layout) {
	e := l.evil(0)
	l.evil = nil
	l.prepare = func(s *sim) { s.first(func(*simNode) bool { return true }, false).evil = e }
}

// scatter puts half of the chunks somewhere in the site, as after a power failure of long ago.
func scatter(s *sim) {
	for c := range s.sizes {
		if s.rng.IntN(2) == 0 {
			s.nodes[s.rng.IntN(len(s.nodes))].have[c] = true
		}
	}
	s.own()
}

// own takes what lies in the site as having crossed the WAN.
func (s *sim) own() {
	for c := range s.sizes {
		if s.copies(c) > 0 {
			s.crossed[c] = s.sizes[c]
			s.before += s.sizes[c]
		}
	}
}

func TestSimSite(t *testing.T) {
	for _, c := range scenarios() {
		t.Run(c.name, func(t *testing.T) {
			seeds := simSeeds
			if c.l.nodes > 10 || c.l.bytes > 48<<20 {
				seeds = max(1, seeds/6)
			}
			var worst, most int64
			var slowest time.Duration
			for i := range seeds {
				s := play(t, c, simFirst+uint64(i))
				for _, b := range s.bad {
					t.Error(b)
				}
				if t.Failed() {
					return
				}
				worst, most, slowest = max(worst, s.twice()), max(most, s.mayTwice()), max(slowest, s.last())
			}
			ideal := lasts(c.l.bytes, c.l.wan)
			t.Logf("%d seeds: last node at most %.3f s (F/W %.3f s); twice over the WAN at most %d of %d bytes", seeds, slowest.Seconds(), ideal.Seconds(), worst, most)
		})
	}
}

// play runs a scenario to its end.
func play(t testing.TB, c scenario, seed uint64) *sim {
	s := newSim(t, c.l, seed)
	for _, f := range c.fs {
		f(s)
	}
	if _, ok := s.run(20*lasts(c.l.bytes, c.l.wan) + 40*time.Minute); ok {
		s.checkEnd()
	}
	return s
}

// last is when the last node was complete.
func (s *sim) last() (d time.Duration) {
	for _, n := range s.nodes {
		if n.done && n.wants && n.evil == nil && !n.absent {
			d = max(d, n.doneAt.Sub(time.Unix(0, 0)))
		}
	}
	return d
}
