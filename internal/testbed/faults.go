package testbed

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Cut makes a site's WAN a black hole: what is sent and what is on its way is lost, and nobody is told. Heal ends it.
func (b *Bed) Cut(site int) error  { return b.wire(site, func(s *settings) { s.cut = true }) }
func (b *Bed) Heal(site int) error { return b.wire(site, func(s *settings) { s.cut = false }) }

// Loss sets the share of packets that a site's WAN loses each way, 0 to 1.
func (b *Bed) Loss(site int, share float64) error {
	return b.wire(site, func(s *settings) { s.loss = share })
}

// Delay sets the round-trip time of a site's WAN.
func (b *Bed) Delay(site int, rtt time.Duration) error {
	return b.wire(site, func(s *settings) { s.delay = rtt / 2 })
}

func (b *Bed) wire(site int, change func(*settings)) error {
	if site < 1 || site > len(b.relays) {
		return fmt.Errorf("bed %s has no site %d", b.Name(), site)
	}
	b.relays[site-1].set(change)
	return nil
}

// Isolate pulls a node's cable, Join plugs it in again.
func (b *Bed) Isolate(site, node int) error { return b.plug(site, node, "down") }
func (b *Bed) Join(site, node int) error    { return b.plug(site, node, "up") }

func (b *Bed) plug(site, node int, to string) error {
	return ip(b.guard.namespace(router(site)), fmt.Sprintf("link set %s %s", lanPort(node), to))
}

const splitTable = "bridge bedsplit"

// Partition splits a site's LAN in two: the nodes that are named, and the others. Both halves keep the WAN.
func (b *Bed) Partition(site int, half ...int) error {
	in := map[int]bool{}
	var here, there []string
	for _, n := range half {
		in[n] = true
	}
	for n := 1; n <= b.cfg.Nodes; n++ {
		port := fmt.Sprintf("%q", lanPort(n))
		if in[n] {
			here = append(here, port)
		} else {
			there = append(there, port)
		}
	}
	if len(here) != len(half) || len(there) == 0 {
		return errors.New("a partition has nodes of the site on both sides")
	}
	a, c := strings.Join(here, ","), strings.Join(there, ",")
	return b.nft(site, fmt.Sprintf(`add table %[1]s
		delete table %[1]s
		table %[1]s {
			chain forward {
				type filter hook forward priority 0;
				iifname { %[2]s } oifname { %[3]s } drop
				iifname { %[3]s } oifname { %[2]s } drop
			}
		}`, splitTable, a, c))
}

// Reunite ends a partition.
func (b *Bed) Reunite(site int) error { return b.nft(site, "delete table "+splitTable) }

func (b *Bed) nft(site int, script string) error {
	_, err := feed(script+"\n", "ip", "netns", "exec", b.guard.namespace(router(site)), "nft", "-f", "-")
	return err
}
