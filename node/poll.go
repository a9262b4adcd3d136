package node

import (
	"hash/fnv"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// A neighbour that holds the lease and hands on nothing, no document and no acknowledgement, cannot be told from one that
// has nothing to hand on. So each node asks the seeder itself now and then, and tells it what it has to tell: a few KiB, for
// which no lease is needed.
const (
	pollEvery   = 6 * time.Hour    // at another time on each node
	pollReports = 30 * time.Minute // when reports wait for so long although somebody says that it is the uplink
)

// poll is when that is next. Pure; owned by the loop.
type poll struct {
	next  time.Time
	under bool      // the session with the seeder is for that
	first uint64    // number of the report that waits longest
	since time.Time // since when
}

// due says whether to ask now. id spreads the nodes over the time; first is the report that waits longest, 0: none.
func (p *poll) due(now time.Time, id string, first uint64) bool {
	if first != p.first || p.since.After(now) {
		p.first, p.since = first, now
	}
	if p.next.IsZero() || p.next.Sub(now) > pollEvery { // the clock was set back
		h := fnv.New64a()
		h.Write([]byte(id))
		p.next = now.Add(pollEvery/8 + time.Duration(h.Sum64()%uint64(pollEvery*7/8)))
	}
	if now.Before(p.next) && (first == 0 || now.Sub(p.since) < pollReports) {
		return false
	}
	p.next, p.since = now.Add(pollEvery), now
	return true
}

// pollSeeder asks the seeder when it is time to and nothing else brings us together.
func (n *Node) pollSeeder() {
	first := uint64(0)
	if len(n.out.waiting) > 0 {
		first = n.out.waiting[0].Seq
	}
	if !n.poll.due(n.cfg.now(), n.self.String(), first) || n.seederS != nil || n.roleOf(n.self) == roster.WANNever {
		return
	}
	n.poll.under = true
	n.dialWAN(8 * time.Second)
}

// polled tells the seeder what there is to tell; its documents come by themselves. The swarm hangs up.
func (n *Node) polled(s *xfer.Session) {
	if !n.poll.under {
		return
	}
	n.poll.under = false
	s.Send(&wire.Status{Node: n.mine})
	for _, r := range n.out.burst() {
		s.Send(&wire.Report{Report: r})
	}
}
