package testbed

import (
	"context"
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

// WANRate changes the rate of a site's WAN, both ways.
func (b *Bed) WANRate(site int, rate Rate) error {
	if site < 1 || site > len(b.relays) || rate <= 0 {
		return fmt.Errorf("bed %s: rate %d for site %d", b.Name(), rate, site)
	}
	return b.setWAN(site, rate)
}

// Flap cuts a site's WAN for down and heals it for up, again and again until the context ends. It leaves it healed.
func (b *Bed) Flap(ctx context.Context, site int, down, up time.Duration) error {
	for {
		if err := b.Cut(site); err != nil {
			return err
		}
		cut := sleep(ctx, down)
		if err := b.Heal(site); err != nil {
			return err
		}
		if !cut || !sleep(ctx, up) {
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) (whole bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
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

// NodeRate changes the rate of a node's port, both ways.
func (b *Bed) NodeRate(site, node int, rate Rate) error {
	if rate <= 0 {
		return fmt.Errorf("node %d of site %d: rate %d", node, site, rate)
	}
	return b.setLAN(site, node, rate)
}

// NodeLoss sets the share of packets that a node's cable loses each way, 0 to 1. What the kernel hands over as one
// large segment is lost as one.
func (b *Bed) NodeLoss(site, node int, share float64) error {
	const of = 1_000_000
	table := func(kind, name, dev string) string {
		return fmt.Sprintf(`add table %[1]s %[2]s
			delete table %[1]s %[2]s
			table %[1]s %[2]s {
				chain in {
					type filter hook prerouting priority -300;
					iifname %[3]q numgen random mod %[4]d < %[5]d drop
				}
			}`, kind, name, dev, of, int(share*of))
	}
	return errors.Join(b.nftIn(Node(site, node), table("ip", "bedloss", "eth0")),
		b.nft(site, table("bridge", fmt.Sprintf("bedloss%d", node), lanPort(node))))
}

// Block makes the WAN a black hole for the nodes that are named, and for no other node of the site; their LAN is as
// before. Without nodes all reach the WAN again.
func (b *Bed) Block(site int, nodes ...int) error {
	var rules strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&rules, "ip saddr %[1]s oifname wan0 drop\nip daddr %[1]s iifname wan0 drop\n", NodeAddr(site, n))
	}
	return b.nft(site, fmt.Sprintf(`add table ip bedblock
		delete table ip bedblock
		table ip bedblock {
			chain forward {
				type filter hook forward priority -10;
				%s
			}
		}`, rules.String()))
}

// Move gives the address of [DC] to another host of the data centre, which is how one server takes the place of
// another, or, with host DC, gives it back. Connections of the former owner go silent.
func (b *Bed) Move(host string) error {
	if host != DC && host != DC2 {
		return fmt.Errorf("host %s is not in the data centre", host)
	}
	for _, h := range []string{DC, DC2} {
		if h != host {
			if err := ip(b.guard.namespace(h), "addr flush to "+DCAddr+"/32 dev eth0"); err != nil {
				return err
			}
		}
	}
	return errors.Join(ip(b.guard.namespace(host), "addr replace "+DCAddr+"/24 brd + dev eth0", "route replace default via 10.200.0.254"),
		ip(b.guard.namespace(dcRouter), "neigh flush to "+DCAddr))
}

// Unplug pulls the cable of a host of the data centre: what dies in it then says no farewell.
func (b *Bed) Unplug(host string) error {
	if host != DC && host != DC2 {
		return fmt.Errorf("host %s is not in the data centre", host)
	}
	return ip(b.guard.namespace(dcRouter), fmt.Sprintf("link set %s down", host))
}

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

func (b *Bed) nft(site int, script string) error { return b.nftIn(router(site), script) }

func (b *Bed) nftIn(host, script string) error {
	_, err := feed(script+"\n", "ip", "netns", "exec", b.guard.namespace(host), "nft", "-f", "-")
	return err
}
