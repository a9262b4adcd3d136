package node

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
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

// startResolve is how long the start may wait for a name server: without one the mesh must come up as well.
const startResolve = 2 * time.Second

// resolve returns the seeder's addresses, names looked up afresh: the name server may have been out of reach at the
// start, and the seeder may have moved. Called from any goroutine.
func (n *Node) resolve(ctx context.Context) []netip.AddrPort {
	out := []netip.AddrPort{}
	for _, a := range n.e.SeederAddrs {
		if addr, err := netip.ParseAddrPort(a); err == nil {
			out = append(out, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
			continue
		}
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			continue
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			n.log.Warn("the seeder's name is not resolved", "name", host, "err", err)
		}
		for _, ip := range ips {
			out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(number)))
		}
	}
	if old := n.wan.Load(); old == nil || len(out) > 0 && !slices.Equal(*old, out) {
		n.wan.Store(&out)
	}
	return *n.wan.Load()
}
