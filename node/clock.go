package node

import (
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// The clock that windows are judged by is the node's own, corrected by what its neighbours' clocks show.
const (
	maxSkew    = 5 * time.Minute  // a correction beyond it means that nobody knows what time it is
	clockEvery = time.Hour        // how often neighbours hear of a clock that nothing else is said about
	clockStep  = 5 * time.Second  // they hear at once of one that was set by more
	clockGrace = 30 * time.Second // how long a daemon that was started waits for two neighbours that there should be
)

// reading is what somebody else's clock showed when we heard of it.
type reading struct {
	clock time.Time
	at    time.Time // by our monotonic clock: that somebody sets our clock does not matter
}

// readingOf is what a greeting just now said in Unix milliseconds; 0: nothing.
func readingOf(millis int64) reading {
	if millis == 0 {
		return reading{}
	}
	return reading{time.UnixMilli(millis), time.Now()}
}

// now is what that clock shows now, if nobody has set it since.
func (r reading) now(at time.Time) time.Time { return r.clock.Add(at.Sub(r.at)) }

// skew is how far the site's clocks are ahead of ours: the median of the neighbours' and our own. With fewer than two
// neighbours it is what the seeder's clock says, if that is known (not zero), or else nothing.
//
// While those whose clocks are right, ourselves included, are more than half, the median lies between two of their
// clocks: with two neighbours or more, one that lies moves it no further than the honest clocks differ.
func skew(own time.Time, neighbours []time.Time, seeder time.Time) time.Duration {
	if len(neighbours) < 2 {
		if seeder.IsZero() {
			return 0
		}
		return seeder.Sub(own)
	}
	ahead := []time.Duration{0}
	for _, t := range neighbours {
		ahead = append(ahead, t.Sub(own))
	}
	slices.Sort(ahead)
	m := len(ahead) / 2
	if len(ahead)%2 == 1 {
		return ahead[m]
	}
	return ahead[m-1]/2 + ahead[m]/2
}

// tooEarly: the daemon was started just now and has not heard the neighbours that could say that its clock is wrong.
func (n *Node) tooEarly(now time.Time) bool {
	f := n.inForce.Load()
	return len(n.nb) < 2 && f != nil && len(f.r.Nodes) > 2 && now.Sub(n.began) < clockGrace
}

// skew of the clocks of those with whom there is a session now: what was heard before may be from before a sleep.
func (n *Node) skew() time.Duration {
	now := time.Now()
	var clocks []time.Time
	for _, nb := range n.nb {
		if !nb.clock.clock.IsZero() {
			clocks = append(clocks, nb.clock.now(now))
		}
	}
	var seeder time.Time
	if n.seederS != nil && !n.seederAt.clock.IsZero() {
		seeder = n.seederAt.now(now)
	}
	return skew(n.cfg.now().Round(0), clocks, seeder)
}

// siteZone is the time zone of the site by its roster, nil if it has none.
func (n *Node) siteZone() *time.Location {
	f := n.inForce.Load()
	if f == nil {
		return nil
	}
	z, err := policy.LoadZone(f.r.Timezone)
	if err != nil {
		return nil
	}
	return z
}

// tellClock lets the neighbours know what our clock shows, when it was set or when they have not heard of it for long.
func (n *Node) tellClock(now time.Time) {
	clock := n.cfg.now().Round(0)
	step := clock.Sub(n.showed.now(now)).Abs()
	if now.Sub(n.showed.at) < clockEvery && step < clockStep {
		return
	}
	n.showed = reading{clock, now}
	for _, nb := range n.nb {
		nb.s.Send(n.saying())
	}
}

// saying is our last statement with what our clock shows now.
func (n *Node) saying() *wire.Status {
	m := n.mine
	m.At = n.cfg.now().UTC()
	return &wire.Status{Node: m}
}
