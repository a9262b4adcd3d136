package swarm

import (
	"fmt"
	"time"
)

// What must hold in every run, whatever breaks:
//
//   - A chunk is asked of the WAN only by a node whose lease the seeder regards as valid.
//   - And only when no neighbour that the node is connected with said that it holds it.
//   - What is not verified is neither stored, nor announced, nor served.
//   - Every honest node that lives is complete in the end (sim.run).
//   - What crosses the WAN twice stays within what is published (sim.checkEnd).
//   - Honest nodes are not banned by honest nodes.
type checks struct {
	bad     []string
	crossed []int64 // bytes of each chunk that have crossed the WAN
	before  int64   // bytes that were in the site before the first node booted
	away    int64   // bytes asked for although a node has them, or has asked for them, that is out of reach: in the other half of the LAN, or still booting
	deaths  int     // of uplinks, and sessions with the seeder that were lost with requests in flight
	strikes []struck
	spoilt  map[[2]Peer]int // wrong chunks that a node took of another: no more than were under way at once
	wasted  int64           // bytes that came over the LAN to who had them
	blind   bool            // positive control: nothing is verified
}

type struck struct {
	by int
	Strike
}

func (s *sim) violated(format string, args ...any) {
	s.bad = append(s.bad, fmt.Sprintf("seed %d, %.3f s: ", s.seed, s.now.Sub(time.Unix(0, 0)).Seconds())+fmt.Sprintf(format, args...))
}

// checkWAN: a node asks the seeder for a chunk.
func (s *sim) checkWAN(n *simNode, a Fetch) {
	// A connection that the seeder has seen end carries no request any more.
	if n.wan == nil || n.wan.atSeeder && !s.seeder.valid(n) && !s.seeder.took(n) {
		s.violated("node %d asks the seeder for chunk %d without a lease", n.i, a.Number)
	}
	away := false
	for _, o := range s.nodes {
		if n.sess[o.i] != nil && n.heard[o.i][a.Number] && o.evil == nil {
			s.violated("node %d asks the seeder for chunk %d, which node %d said it holds", n.i, a.Number, o.i)
		}
		away = away || o != n && n.sess[o.i] == nil && !o.absent && !o.frozen && (o.have[a.Number] || o.alive && o.asksWAN(a.Number))
	}
	if away {
		s.away += s.sizes[a.Number]
	}
}

// asksWAN: the node has asked the seeder for a chunk and waits for it.
func (n *simNode) asksWAN(chunk int) bool {
	for _, r := range n.sw.reqs {
		if r.from == nil && r.n == chunk {
			return true
		}
	}
	return false
}

func (s *sim) checkAnnounce(n *simNode, a Announce) {
	for _, u := range a.Numbers {
		if !n.have[u] {
			s.violated("node %d announces chunk %d, which is not on its disk", n.i, u)
		}
	}
}

// verify is what the store does with a chunk that came; and what is stored is served.
func (s *sim) verify(n *simNode, from Peer, number int, good bool) bool {
	if !good {
		by := [2]Peer{n.id, from}
		if s.spoilt[by]++; s.spoilt[by] > DefaultDepth {
			s.violated("node %d took %d wrong chunks of one neighbour", n.i, s.spoilt[by])
		}
	}
	if s.blind && !good {
		s.violated("node %d stores chunk %d, which is not genuine", n.i, number)
		return true
	}
	return good
}

// checkEnd is asked when the site is complete.
func (s *sim) checkEnd() {
	if dup, most := s.twice(), s.mayTwice(); dup > most {
		s.violated("%d bytes crossed the WAN twice, at most %d may (%d deaths, %d split leases)", dup, most, s.deaths, s.seeder.splits)
	}
	for _, x := range s.strikes {
		for _, n := range s.nodes {
			if n.id == x.Peer && n.evil == nil && s.nodes[x.by].evil == nil && x.Ban > 0 {
				s.violated("node %d, which is honest, was banned by node %d: it %s", n.i, x.by, x.Why)
			}
		}
	}
}

// twice is what crossed the WAN beyond once: also the beginning of a chunk whose rest never came.
func (s *sim) twice() (n int64) {
	for i, b := range s.crossed {
		n += max(0, b-s.sizes[i])
	}
	return n
}

// mayTwice is the published bound: for each death of an uplink, and each session with the seeder that breaks, 4 x 256
// KiB or twice the bandwidth-delay product, whichever is larger; what lies in the site out of reach; and what a
// scenario allows beyond, and says why.
func (s *sim) mayTwice() int64 {
	n := int64(s.deaths)*s.window() + s.away
	if s.l.mayDup != nil {
		n += s.l.mayDup(s)
	}
	return n
}

func (s *sim) window() int64 {
	return max(DefaultWindow, 2*s.l.wan*int64(s.l.rtt)/int64(time.Second))
}
