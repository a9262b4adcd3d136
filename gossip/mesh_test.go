package gossip

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// trials is for figures: go test ./gossip -run Figures -v -trials 20
var trials = flag.Int("trials", 0, "how often the figures are taken; 0 skips them")

func TestConvergeAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 8)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		p := s.all[0].told(nodeName(3))
		want := Peer{nodeName(3), peerID(3), netip.AddrPortFrom(nodeAddr(3).Addr(), 4001), nodeAddr(3)}
		if p != want {
			t.Errorf("peer %+v, want %+v", p, want)
		}
		s.all[3].stop()
		until(t, "leave", 3*time.Second, func() bool { return !slices.Contains(s.all[0].sees(), nodeName(3)) })
		members := s.all[0].mesh.Members()
		if len(members) != 7 || members[2].Name != nodeName(3) || members[2].Alive || !members[3].Alive {
			t.Errorf("members %+v", members)
		}
		s.stop()
	})
}

func TestCrashIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 8)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		dead := s.all[5]
		s.lan.split(func(a netip.AddrPort) int { return map[bool]int{true: 1}[a == nodeAddr(5)] })
		until(t, "death, as the others see it", 30*time.Second, func() bool {
			return !slices.ContainsFunc(s.all, func(m *member) bool { return m != dead && slices.Contains(m.sees(), nodeName(5)) })
		})
		until(t, "death, as the one that is cut off sees it", 2*time.Minute, func() bool { return len(dead.sees()) == 0 })
		s.stop()
	})
}

// TestSplitHeals for splits so short that the obituaries are still remembered, and so long that they are not.
func TestSplitHeals(t *testing.T) {
	for _, long := range []time.Duration{0, 5 * time.Minute} {
		t.Run(long.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 8)
				until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
				half := func(i int) int { return i % 2 }
				s.lan.split(func(a netip.AddrPort) int { return int(a.Addr().As4()[3]+1) % 2 })
				until(t, "split", time.Minute, func() bool { return s.groups(half) })
				time.Sleep(long)
				s.lan.split(nil)
				took := until(t, "heal", healLimit, func() bool { return s.groups(together) })
				t.Logf("healed after %v", took)
				s.stop()
			})
		})
	}
}

// healLimit: one and a half pauses between rounds, a second round that is near, and the spread of the news.
const healLimit = DefaultRejoin*3/2 + 30*time.Second

// TestOldRosterLearns: node 0 follows a roster of itself alone. Node 1, which is on the next one, joins: node 0
// learns the roster from a node that it must still refuse, and then both see each other.
func TestOldRosterLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, lan: newMemnet()}
		old := newMember(0, 1, 1).start(t, s.lan, nil)
		s.all = append(s.all, old)
		time.Sleep(time.Minute)
		s.all = append(s.all, newMember(1, 2, 2, nodeAddr(0).String()).start(t, s.lan, nil))
		until(t, "both see each other", 10*time.Second, func() bool { return s.groups(together) })
		if got := old.rosterVersion(); got != 2 {
			t.Errorf("node 0 follows roster %d", got)
		}
		if got := old.mesh.Counters()["rejected_unknown"]; got == 0 {
			t.Error("node 1 was never refused: this is not the test it says it is")
		}
		s.stop()
	})
}

// TestOneKnownAddress: everybody knows the address of node 0 and no other.
func TestOneKnownAddress(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			s := newSiteOf(t, 12, allSeeds(1))
			until(t, "convergence", 20*time.Second, func() bool { return s.groups(together) })
			s.stop()
		})
	}
}

// TestRosterSpreads: one node adopts a roster with a ninth node on it by other means; within seconds all have it,
// each having verified it once.
func TestRosterSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 8)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		ninth := newMember(8, 2, 9, allSeeds(9)...).start(t, s.lan, nil)
		s.all = append(s.all, ninth)
		until(t, "spread", 10*time.Second, func() bool {
			return s.groups(together) && !slices.ContainsFunc(s.all, func(m *member) bool { return m.rosterVersion() != 2 })
		})
		for _, m := range s.all {
			if n := locked(m, &m.offered); n > 1 {
				t.Errorf("%s was offered the roster %d times", nodeName(m.i), n)
			}
		}
		s.stop()
	})
}

// TestRemovedNodeIsGone: the next roster does not name node 2 any more.
func TestRemovedNodeIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		m := s.all[0]
		m.mu.Lock()
		m.roster, m.signed = rosterOf(2, 2)
		m.mu.Unlock()
		m.mesh.Refresh()
		until(t, "removal", 10*time.Second, func() bool {
			return slices.Equal(s.all[0].sees(), []string{nodeName(1)}) && slices.Equal(s.all[1].sees(), []string{nodeName(0)})
		})
		s.stop()
	})
}

// TestForgedRoster: a node that holds the site's key says it has roster 99. The others ask, refuse it, do not ask
// without end, and still adopt a true one.
func TestForgedRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		liar := s.all[3]
		liar.mu.Lock()
		liar.roster, liar.signed = rosterOf(99, 4)
		liar.signed.Sig = []byte("forged")
		liar.mu.Unlock()
		liar.mesh.Refresh()
		time.Sleep(10 * time.Minute)
		for _, m := range s.all[:3] {
			if n := locked(m, &m.offered); m.rosterVersion() != 1 || n == 0 || n > 12 {
				t.Errorf("%s: roster %d, verified %d times in 10 minutes", nodeName(m.i), m.rosterVersion(), n)
			}
		}
		m := s.all[0]
		m.mu.Lock()
		m.roster, m.signed = rosterOf(2, 4)
		m.mu.Unlock()
		m.mesh.Refresh()
		until(t, "a true roster", 30*time.Second, func() bool { return s.all[1].rosterVersion() == 2 && s.all[2].rosterVersion() == 2 })
		s.stop()
	})
}

// TestNameTheft: a holder of the key takes the name of node 1 with an identity of its own, and one makes names up.
func TestNameTheft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		thief := newMember(1, 1, 3, allSeeds(3)...).start(t, s.lan, func(c *Config) {
			c.PeerID, c.BindAddr = peerID(77), nodeAddr(77).String()
		})
		sybil := newMember(78, 1, 3, allSeeds(3)...).start(t, s.lan, nil)
		time.Sleep(2 * time.Minute)
		if !s.groups(together) {
			t.Error("the site has changed")
		}
		for _, m := range s.all {
			if p := m.told(nodeName(1)); p.Name != "" && p.PeerID != peerID(1) {
				t.Errorf("%s believes the thief", nodeName(m.i))
			}
		}
		c := s.all[0].mesh.Counters()
		if c["rejected_identity"] == 0 || c["rejected_unknown"] == 0 {
			t.Errorf("not counted: %v", c)
		}
		if got := locked(s.all[0], &s.all[0].conflicts); len(got) == 0 || len(got) > 3 || got[0].Name != nodeName(1) || got[0].PeerID != peerID(77) {
			t.Errorf("conflicts %+v", got)
		}
		s.all = append(s.all, thief, sybil)
		s.stop()
	})
}

// TestClone: two machines with one name and one identity, as after copying a disk.
func TestClone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		clone := newMember(1, 1, 3, allSeeds(3)...).start(t, s.lan, func(c *Config) { c.BindAddr = nodeAddr(77).String() })
		until(t, "conflict", 3*time.Minute, func() bool {
			all := slices.Concat(s.all[0].mesh.Conflicts(), s.all[1].mesh.Conflicts(), s.all[2].mesh.Conflicts())
			return slices.ContainsFunc(all, func(c Conflict) bool { return c.Name == nodeName(1) && c.PeerID == peerID(1) && c.Count > 2 })
		})
		s.all = append(s.all, clone)
		s.stop()
	})
}

// TestRestart: one node leaves and comes back at another address, at once; one is killed and comes back at its own
// before the others have noticed; one is killed and comes back at another address, which the others believe only
// when they have buried its old self, and until then show as a conflict.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 5)
		until(t, "convergence", 15*time.Second, func() bool { return s.groups(together) })
		moveTo := func(i, host int) {
			s.all[i] = newMember(i, 1, 5, allSeeds(5)...).start(t, s.lan, func(c *Config) { c.BindAddr = nodeAddr(host).String() })
		}
		s.all[1].stop()
		moveTo(1, 41)
		until(t, "left, another address", 10*time.Second, func() bool {
			return s.groups(together) && s.all[0].told(nodeName(1)).GossipAddr == nodeAddr(41)
		})
		s.lan.kill(nodeAddr(2))
		s.all[2].stop()
		moveTo(2, 2)
		until(t, "killed, the same address", 10*time.Second, func() bool { return s.groups(together) })
		time.Sleep(time.Minute)
		if !s.groups(together) {
			t.Error("it did not last")
		}
		if got := s.all[0].mesh.Conflicts(); len(got) > 0 {
			t.Errorf("conflicts %+v", got)
		}
		s.lan.kill(nodeAddr(3))
		s.all[3].stop()
		moveTo(3, 43)
		until(t, "killed, another address", 2*time.Minute, func() bool {
			return s.groups(together) && s.all[0].told(nodeName(3)).GossipAddr == nodeAddr(43)
		})
		s.stop()
	})
}

// TestLoss: a tenth of all packets is lost; the site converges and stays together.
func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 8)
		n := 0
		s.lan.mu.Lock()
		s.lan.loss = func() bool { s.lan.mu.Lock(); defer s.lan.mu.Unlock(); n++; return n%10 == 0 }
		s.lan.mu.Unlock()
		until(t, "convergence", 30*time.Second, func() bool { return s.groups(together) })
		time.Sleep(5 * time.Minute)
		for _, m := range s.all {
			if gone := locked(m, &m.gone); len(gone) > 0 {
				t.Errorf("%s lost %v", nodeName(m.i), gone)
			}
		}
		s.stop()
	})
}

// TestFigures prints what the report of a change needs; it asserts the bounds only.
func TestFigures(t *testing.T) {
	if *trials == 0 {
		return
	}
	for _, n := range []int{8, 30, 60} {
		var one, converge, heal []time.Duration
		var rate []int64
		for range *trials {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSiteOf(t, n, allSeeds(1))
					one = append(one, until(t, "convergence", 30*time.Second, func() bool { return s.groups(together) }))
					s.stop()
				})
				synctest.Test(t, func(t *testing.T) {
					s := newSite(t, n)
					converge = append(converge, until(t, "convergence", 30*time.Second, func() bool { return s.groups(together) }))
					time.Sleep(time.Minute)
					before := s.lan.bytes.Load()
					time.Sleep(5 * time.Minute)
					rate = append(rate, (s.lan.bytes.Load()-before)/300/int64(n))
					s.lan.split(func(a netip.AddrPort) int { return int(a.Addr().As4()[3]) % 2 })
					time.Sleep(3 * time.Minute)
					s.lan.split(nil)
					heal = append(heal, until(t, "heal", healLimit, func() bool { return s.groups(together) }))
					s.stop()
				})
			})
		}
		slices.Sort(one)
		slices.Sort(converge)
		slices.Sort(heal)
		slices.Sort(rate)
		mid := *trials / 2
		t.Logf("%d nodes, %d trials: converged in %v (median) %v (worst), from one known address in %v (median) %v (worst); healed in %v (best) %v (median) %v (worst); idle %d bytes/s sent by each",
			n, *trials, converge[mid], converge[*trials-1], one[mid], one[*trials-1], heal[0], heal[mid], heal[*trials-1], rate[mid])
	}
}
