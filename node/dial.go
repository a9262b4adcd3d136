package node

import (
	"net/netip"
	"time"
)

// contact is what is known of reaching one neighbour. Pure; owned by the loop.
type contact struct {
	addrs   []netip.AddrPort // of the chunk exchange, newest first
	since   time.Time        // since when there has been no session
	next    time.Time        // not before
	wait    time.Duration
	dialing bool
}

// Waits between dials of one neighbour, and how long the side that is not to dial leaves it to the other.
const (
	dialLeast = 500 * time.Millisecond
	dialMost  = 30 * time.Second
	dialYield = 3 * time.Second
	maxAddrs  = 4
)

// learn notes an address; a new one is tried at once.
func (c *contact) learn(a netip.AddrPort) {
	for i, b := range c.addrs {
		if a == b {
			copy(c.addrs[1:i+1], c.addrs[:i])
			c.addrs[0] = a
			return
		}
	}
	c.addrs = append([]netip.AddrPort{a}, c.addrs...)
	c.addrs = c.addrs[:min(len(c.addrs), maxAddrs)]
	c.hurry()
}

// hurry forgets the back-off: gossip has seen the neighbour.
func (c *contact) hurry() { c.wait, c.next = 0, time.Time{} }

// due says whether to dial now. Of two nodes the one with the smaller peer ID dials, so that they do not meet
// half-way; the other one steps in after a while, for the case that only its direction works.
func (c *contact) due(now time.Time, smaller bool) bool {
	if c.dialing || len(c.addrs) == 0 || now.Before(c.next) {
		return false
	}
	return smaller || now.Sub(c.since) >= dialYield
}

// failed paces the next dial.
func (c *contact) failed(now time.Time) {
	c.wait = min(max(2*c.wait, dialLeast), dialMost)
	c.next = now.Add(c.wait)
}
