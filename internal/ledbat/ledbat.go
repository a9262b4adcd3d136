// Package ledbat decides how many bytes may be in flight to a site, so that what others send over the same link goes
// first: a less-than-best-effort congestion control on top of the kernel's own. It is pure: what the sender measures goes
// in, a window comes out, and time is handed in. Who sends, waits and measures is elsewhere (seeder/yield.go).
//
// It follows LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus; RFC 6817 is LEDBAT, RFC 9840 an experience with it): the
// round-trip time less the smallest one ever seen is what waits in queues; up to a target of it the window grows, above it
// shrinks, and when the queue stays in spite of that it is others' and the window is halved until two packets are left.
// Where it differs:
//
//   - The target is 10 ms, not 60: a till that talks to the data centre is not to notice.
//   - The window moves towards what would leave the queue at the target, w (base+target)/(base+queue), by half the way in a
//     round trip (FAST TCP; Wei, Jin, Low, Hegde 2006), where LEDBAT++ adds up to one packet: as stable, and it is soon there
//     on a fast link. Among each other such windows do not become equal; a site has one uplink.
//   - Slow-downs to see the base again are half the window for two round trips, and only when the base was not seen for half
//     a minute: 0.3 % of the link, where two packets every ten slow-downs are up to 10 %. That is enough to empty our own
//     queue, and what others hold would not go away for less either.
//   - Loss alone is no reason to yield. It says so little where a line is bad that one lost packet in a hundred would cost
//     most of the link. More than two in a hundred above what the path always loses counts as a queue too short to be seen;
//     the same 2 % as in BBRv2 (draft-cardwell-iccrg-bbr-congestion-control).
//   - A path that has become longer looks like a queue of others. But no traffic holds a queue still: when the round trip
//     does not move for ten seconds and nothing is lost, the path has changed, and its base is learnt anew.
package ledbat

import (
	"math"
	"time"
)

// The controller's constants.
const (
	Target     = 10 * time.Millisecond // of what may wait in the queue because of us
	MSS        = 1448                  // bytes of a packet
	Least      = 2 * MSS               // the smallest window
	First      = 32 << 10              // the first window of a path of which nothing is known
	Most       = 64 << 20
	slowEvery  = 30 * time.Second // without having seen the base
	soon       = 2 * time.Second
	slowRounds = 2
	calmAfter  = 10 * time.Second // a queue that stays the same for so long is none
	quick      = 16 * MSS
	// Two packets are to leave together: a receiver acknowledges pairs, and the delay of a lone one, up to 40 ms, looks like a
	// queue. The kernel sends pairs from 1.2 Mbit/s on.
	leastPacing = 256 << 10

	minRound = 10 * time.Millisecond
	stall    = time.Second // without an acknowledgement: what is measured next is of the stall
)

// Sample is what a sender measured. Counters are of the connection.
type Sample struct {
	RTT       time.Duration // smoothed over some packets; 0: none yet
	Delivered uint32        // packets acknowledged; it may start over
	Sent      int64         // bytes, Resent included
	Resent    int64         // bytes
	Flight    int           // bytes sent, not acknowledged and not lost
}

// Controller is the window of one connection.
type Controller struct {
	base   *Base
	window int
	enough int // slow start ends here; 0: anywhere
	begun  bool

	// The round trip that is being measured.
	since  time.Time
	from   Sample // at its begin
	last   Sample
	least  time.Duration // smallest RTT
	flight int           // largest
	acked  time.Time     // of the last sample with an acknowledgement
	skip   int           // rounds to let pass until the last change shows

	queue    time.Duration
	start    bool // slow start
	over     int  // cuts since the queue was last within bounds
	home     int  // window before the first of them
	yielding bool
	lagging  bool // the smoothed round trip may still tell of others' queue when it is gone

	known time.Duration // base at the last round
	peak  float64       // packets per second, the most of any round: what the link can do
	cliff int           // window at which more was lost than the path loses in any case; 0: none of late

	seen  time.Time // when the base was last seen, or looked for
	slow  int       // rounds of a slow-down to come
	saved int       // window before it

	calm  calm
	noise noise
}

// New begins a connection on a path. hint is a window that was right for the path not long ago, 0 if there is none.
func New(base *Base, hint int) *Controller {
	c := &Controller{base: base, window: First, start: true}
	if hint > 0 {
		c.window, c.enough = clamp(max(First, hint/2)), hint*9/10
	}
	return c
}

// Window is how many bytes may be in flight.
func (c *Controller) Window() int { return c.window }

// Queue is what waited in queues when last measured.
func (c *Controller) Queue() time.Duration { return c.queue }

// Yielding says whether the window is held down because of what others send.
func (c *Controller) Yielding() bool { return c.yielding }

// Pacing is the rate in bytes per second at which to send, evenly; 0: as the kernel likes.
func (c *Controller) Pacing() int64 {
	if c.from.RTT <= 0 {
		return 0
	}
	gain := 1.25
	if c.start {
		gain = 2
	}
	return max(leastPacing, int64(gain*float64(c.window)/c.from.RTT.Seconds()))
}

// Idle says that nothing was sent for a while: the window may be out of date.
func (c *Controller) Idle() {
	if c.yielding {
		return
	}
	*c = *New(c.base, c.window)
}

// Observe takes a sample, as often as one likes, and says whether the window or the pacing has changed.
func (c *Controller) Observe(now time.Time, s Sample) bool {
	if s.RTT <= 0 {
		return false
	}
	c.base.Observe(now, s.RTT)
	if !c.begun {
		c.begun, c.seen, c.acked = true, now, now
		c.noise.from = s
		c.next(now, s)
		return true
	}
	if s.Delivered != c.last.Delivered || s.Flight == 0 {
		if now.Sub(c.acked) > stall {
			c.skip = 5
		}
		c.acked = now
	}
	base := c.base.Min(now)
	rtt := c.fresh(s, base)
	c.last = s
	c.least, c.flight = min(c.least, rtt), max(c.flight, s.Flight)
	if c.start && c.skip == 0 && rtt-base > Target && s.RTT >= c.from.RTT { // at once: the window doubles each round
		c.queue = rtt - base
		c.leaveStart(base)
		c.next(now, s)
		return true
	}
	if now.Sub(c.since) < max(minRound, min(s.RTT, 4*base)) || s.Delivered == c.from.Delivered {
		return false
	}
	c.round(now, s, base)
	c.next(now, s)
	return true
}

func (c *Controller) next(now time.Time, s Sample) {
	c.since, c.from, c.last, c.least, c.flight = now, s, s, math.MaxInt64, s.Flight
}

// fresh is the round trip without the kernel's smoothing where there is but one acknowledgement to smooth: with the
// smallest window there is one in a round trip, and the smoothed one needs some twenty of them to see that a queue is gone.
// The kernel takes an eighth of each (RFC 6298).
func (c *Controller) fresh(s Sample, base time.Duration) time.Duration {
	if s.RTT-base <= Target {
		c.lagging = false
	}
	if !c.lagging || c.window > quick || s.Delivered-c.last.Delivered > 2 {
		return s.RTT
	}
	return max(base, c.last.RTT+8*(s.RTT-c.last.RTT))
}

// round decides at the end of a round trip.
func (c *Controller) round(now time.Time, s Sample, base time.Duration) {
	c.queue = c.least - base
	c.peak = max(c.peak, float64(s.Delivered-c.from.Delivered)/now.Sub(c.since).Seconds())
	switch {
	case c.known-base > Target/2: // it was lower than it had looked, and may be lower still
		c.seen = now.Add(soon - slowEvery)
	case c.queue < Target/4:
		c.seen = now
	}
	c.known = base
	lossy := c.noise.observe(s)
	if c.slow > 0 {
		if c.slow--; c.slow == 0 {
			c.window, c.skip = c.saved, 1
		}
		return
	}
	if c.skip > 0 {
		c.skip--
		return
	}
	switch {
	case c.queue > c.target()*3/2:
		c.cut(base)
		if c.window == Least && c.calm.observe(now, s) {
			c.base.moved(now, s.RTT)
			c.regain()
		}
	case lossy:
		c.cliff = c.window
		c.window, c.start, c.skip = clamp(c.window*7/10), false, 1
	default:
		c.calm = calm{}
		c.grow(base, s.RTT >= c.from.RTT)
		if now.Sub(c.seen) > slowEvery && !c.start {
			c.seen, c.slow, c.saved = now, slowRounds, c.window
			c.window = clamp(c.window / 2)
		}
	}
}

// target is Target and a packet: on a thin link, where one takes as long as that, less cannot be told from nothing.
func (c *Controller) target() time.Duration {
	packet := Target
	if c.peak > 0 {
		packet = min(packet, time.Duration(1e9/c.peak))
	}
	return Target + packet
}

// fit is the window that would leave the queue at want, if all that waits is ours.
func (c *Controller) fit(base, want time.Duration) int {
	return int(float64(c.window) * float64(base+want) / float64(base+c.queue))
}

func (c *Controller) leaveStart(base time.Duration) {
	c.start = false
	c.window, c.skip = clamp(max(c.fit(base, Target/2), c.window/2)), 1
}

// cut shrinks the window to what should bring the queue down. When that was done twice and the queue is still there, it is
// not ours.
func (c *Controller) cut(base time.Duration) {
	if c.over == 0 {
		c.home = c.window
	}
	c.start = false
	if c.over++; c.over <= 2 {
		c.window, c.skip = clamp(max(c.fit(base, c.target()), c.window/2)), 1
		return
	}
	c.yielding, c.lagging = true, true
	c.window = clamp(c.window / 2)
}

// grow moves the window towards the target, or quickly back to where it was before others came.
func (c *Controller) grow(base time.Duration, rising bool) {
	if c.yielding && c.queue <= Target/2 {
		c.regain()
	}
	if c.queue <= c.target() {
		c.over = 0
	}
	if c.flight < c.window/2 { // the window is not what holds us
		return
	}
	switch {
	case c.start && c.queue > Target*3/4 && rising:
		c.leaveStart(base)
	case c.start && (c.enough == 0 || c.window < c.enough):
		if c.window *= 2; c.enough > 0 {
			c.window = min(c.window, c.enough)
		}
	default:
		c.start = false
		grown := (c.window + c.fit(base, c.target()) + MSS) / 2
		if c.queue < Target/4 { // where the base is long, that is slow
			grown = max(grown, c.window+c.window/16)
		}
		if c.cliff > 0 { // towards the window at which packets were lost, and beyond, with care
			grown = min(grown, max(c.cliff*7/8, c.window+2*MSS))
			if grown > c.cliff*5/4 {
				c.cliff = 0
			}
		}
		c.window = grown
	}
	c.window = clamp(c.window)
}

// regain goes back to the window of before.
func (c *Controller) regain() {
	c.yielding, c.start, c.enough, c.over, c.calm = false, true, max(c.home*3/4, First), 0, calm{}
}

func clamp(w int) int { return min(max(w, Least), Most) }

// calm watches a round trip that may be too long for another reason than a queue.
type calm struct {
	since       time.Time
	least, most time.Duration
	resent      int64
}

// observe says whether the round trip has stood still for long enough.
func (x *calm) observe(now time.Time, s Sample) bool {
	least, most := min(x.least, s.RTT), max(x.most, s.RTT)
	if x.since.IsZero() || most-least > Target/4 || s.Resent != x.resent {
		*x = calm{now, s.RTT, s.RTT, s.Resent}
		return false
	}
	x.least, x.most = least, most
	return now.Sub(x.since) >= calmAfter
}
