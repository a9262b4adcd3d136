package testbed

import (
	"encoding/json"
	"fmt"
	"strings"
)

// SiteStats are the bytes of one site since the bed is up, IP packets with their headers on the WAN, Ethernet frames
// on the LAN.
type SiteStats struct {
	DownSent, DownArrived int64 // WAN, towards the site: before and after the wire
	UpSent, UpArrived     int64 // WAN, from the site
	Down, Up              Wire
	Nodes                 []NodeStats // of node 1, 2, ...
}

// NodeStats are the bytes of one node.
type NodeStats struct {
	LANSent, LANReceived int64 // on its port, WAN traffic included
	WANDown, WANUp       int64 // of it, what crossed the WAN
}

// Sub returns what was counted since an earlier reading.
func (s SiteStats) Sub(old SiteStats) SiteStats {
	s.DownSent -= old.DownSent
	s.DownArrived -= old.DownArrived
	s.UpSent -= old.UpSent
	s.UpArrived -= old.UpArrived
	s.Down, s.Up = s.Down.sub(old.Down), s.Up.sub(old.Up)
	nodes := make([]NodeStats, len(s.Nodes))
	for i, n := range s.Nodes {
		o := old.Nodes[i]
		nodes[i] = NodeStats{n.LANSent - o.LANSent, n.LANReceived - o.LANReceived, n.WANDown - o.WANDown, n.WANUp - o.WANUp}
	}
	s.Nodes = nodes
	return s
}

func (w Wire) sub(o Wire) Wire {
	return Wire{w.Packets - o.Packets, w.Bytes - o.Bytes, w.Lost - o.Lost, w.Cut - o.Cut}
}

// Stats reads a site's counters.
func (b *Bed) Stats(site int) (SiteStats, error) {
	if site < 1 || site > len(b.relays) {
		return SiteStats{}, fmt.Errorf("bed %s has no site %d", b.Name(), site)
	}
	r := b.guard.namespace(router(site))
	far, err := ports(b.guard.namespace(dcRouter))
	if err != nil {
		return SiteStats{}, err
	}
	near, err := ports(r)
	if err != nil {
		return SiteStats{}, err
	}
	wan, err := named(r)
	if err != nil {
		return SiteStats{}, err
	}
	s := SiteStats{
		DownSent: far[wanPort(site)].sent, DownArrived: near["wan0"].received,
		UpSent: near["wan0"].sent, UpArrived: far[wanPort(site)].received,
	}
	s.Down, s.Up = b.relays[site-1].read()
	for n := 1; n <= b.cfg.Nodes; n++ {
		p := near[lanPort(n)] // the router's end: what it received the node sent
		s.Nodes = append(s.Nodes, NodeStats{p.received, p.sent, wan[downCounter(n)], wan[upCounter(n)]})
	}
	return s, nil
}

// Wires reads the two directions of a site's WAN alone. Unlike Stats it starts no process, so it may be asked often.
func (b *Bed) Wires(site int) (down, up Wire, err error) {
	if site < 1 || site > len(b.relays) {
		return down, up, fmt.Errorf("bed %s has no site %d", b.Name(), site)
	}
	down, up = b.relays[site-1].read()
	return down, up, nil
}

func downCounter(n int) string { return fmt.Sprintf("down%d", n) }
func upCounter(n int) string   { return fmt.Sprintf("up%d", n) }

// counters is the nft script that counts each node's WAN bytes in the site's router.
func counters(site, nodes int) string {
	var decl, rules strings.Builder
	for n := 1; n <= nodes; n++ {
		fmt.Fprintf(&decl, "counter %s {}\ncounter %s {}\n", downCounter(n), upCounter(n))
		fmt.Fprintf(&rules, "iifname wan0 ip daddr %s counter name %s\n", NodeAddr(site, n), downCounter(n))
		fmt.Fprintf(&rules, "oifname wan0 ip saddr %s counter name %s\n", NodeAddr(site, n), upCounter(n))
	}
	return fmt.Sprintf("table ip bedcount {\n%schain forward { type filter hook forward priority 0;\n%s}\n}\n", decl.String(), rules.String())
}

type port struct{ received, sent int64 }

// ports reads the counters of a namespace's interfaces.
func ports(ns string) (map[string]port, error) {
	out, err := command("ip", "-n", ns, "-s", "-j", "link")
	if err != nil {
		return nil, err
	}
	var links []struct {
		Ifname  string
		Stats64 struct{ Rx, Tx struct{ Bytes int64 } }
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return nil, fmt.Errorf("interfaces of %s: %w", ns, err)
	}
	m := map[string]port{}
	for _, l := range links {
		m[l.Ifname] = port{l.Stats64.Rx.Bytes, l.Stats64.Tx.Bytes}
	}
	return m, nil
}

// named reads the named counters of nft in a namespace.
func named(ns string) (map[string]int64, error) {
	out, err := command("ip", "netns", "exec", ns, "nft", "-j", "list", "counters")
	if err != nil {
		return nil, err
	}
	var list struct {
		Nftables []struct {
			Counter *struct {
				Name  string
				Bytes int64
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("counters of %s: %w", ns, err)
	}
	m := map[string]int64{}
	for _, x := range list.Nftables {
		if x.Counter != nil {
			m[x.Counter.Name] = x.Counter.Bytes
		}
	}
	return m, nil
}
