package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// build makes everything there is in a bed.
func (b *Bed) build() error {
	if err := b.dataCentre(); err != nil {
		return err
	}
	for s := 1; s <= b.cfg.Sites; s++ {
		if err := b.site(s); err != nil {
			return fmt.Errorf("site %d: %w", s, err)
		}
	}
	return nil
}

// dataCentre makes a router and the two hosts behind it.
func (b *Bed) dataCentre() error {
	if err := b.host(dcRouter, true); err != nil {
		return err
	}
	const gateway = "10.200.0.254"
	if err := b.lan(dcRouter, gateway); err != nil {
		return err
	}
	for _, h := range [][2]string{{DC, DCAddr}, {DC2, DC2Addr}} {
		if err := b.plugged(dcRouter, h[0], h[0], h[1], gateway); err != nil {
			return err
		}
	}
	return nil
}

// lan makes the bridge of a router.
func (b *Bed) lan(router, addr string) error {
	return ip(b.guard.namespace(router), "link add br0 type bridge mcast_snooping 0 forward_delay 0 stp_state 0",
		"addr add "+addr+"/24 brd + dev br0", "link set br0 up")
}

// tcp is how hosts send that choose nothing else: as most machines do, whatever the default of this one.
const tcp = "congctl cubic"

// plugged makes a host and plugs it into a port of the router's bridge.
func (b *Bed) plugged(router, port, host, addr, gateway string) error {
	if err := b.host(host, false); err != nil {
		return err
	}
	r, x := b.guard.namespace(router), b.guard.namespace(host)
	if err := ip(r, fmt.Sprintf("link add %s type veth peer name eth0 netns %s", port, x), fmt.Sprintf("link set %s master br0 up", port)); err != nil {
		return err
	}
	return ip(x, "addr add "+addr+"/24 brd + dev eth0 noprefixroute", "link set eth0 up",
		fmt.Sprintf("route add %s/24 dev eth0 src %s %s", addr[:strings.LastIndexByte(addr, '.')]+".0", addr, tcp), "route add default via "+gateway+" "+tcp)
}

// host makes an empty namespace.
func (b *Bed) host(name string, forwards bool) error {
	ns, err := b.guard.note(name)
	if err != nil {
		return err
	}
	if _, err := command("ip", "netns", "add", ns); err != nil {
		return err
	}
	values := map[string]string{
		"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1", // chatter that would be counted
		"ipv4/tcp_no_metrics_save": "1", // a connection does not learn from the one before
	}
	if forwards {
		values["ipv4/ip_forward"] = "1"
	}
	err = inside(ns, func() error {
		for name, v := range values {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(v), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return ip(ns, "link set lo up")
}

// site makes the WAN, the router, the LAN and the nodes of a site.
func (b *Bed) site(s int) error {
	if err := b.host(router(s), true); err != nil {
		return err
	}
	if err := b.wan(s); err != nil {
		return err
	}
	if err := b.lan(router(s), routerAddr(s)); err != nil {
		return err
	}
	if err := b.plugged(router(s), "bystander", Bystander(s), BystanderAddr(s), routerAddr(s)); err != nil {
		return err
	}
	for n := 1; n <= b.cfg.Nodes; n++ {
		if err := b.node(s, n); err != nil {
			return err
		}
	}
	return b.nft(s, counters(s, b.cfg.Nodes))
}

// wan joins a site's router to the data centre's. The shapers stand before the wire on both sides, as the modem's
// queue does.
func (b *Bed) wan(s int) error {
	dc, r := b.guard.namespace(dcRouter), b.guard.namespace(router(s))
	down, err := openTUN(dc, wanPort(s))
	if err != nil {
		return err
	}
	up, err := openTUN(r, "wan0")
	if err != nil {
		return err
	}
	wire, err := newRelay(settings{delay: b.cfg.RTT / 2, loss: b.cfg.Loss})
	if err != nil {
		return err
	}
	b.relays = append(b.relays, wire)
	b.tasks.Go(func() { wire.run([2]int{down, up}, b.cfg.Seed+uint64(s)) })
	near, far := wanAddrs(s)
	if err := ip(dc, fmt.Sprintf("addr add %s peer %s dev %s", near, far, wanPort(s)),
		fmt.Sprintf("link set %s mtu %d txqueuelen 5000 up", wanPort(s), mtu), fmt.Sprintf("route add %s via %s", SiteNet(s), far)); err != nil {
		return err
	}
	if err := ip(r, fmt.Sprintf("addr add %s peer %s dev wan0", far, near),
		fmt.Sprintf("link set wan0 mtu %d txqueuelen 5000 up", mtu), fmt.Sprintf("route add default via %s src %s", near, far)); err != nil {
		return err
	}
	return b.setWAN(s, b.cfg.WAN)
}

// setWAN shapes both ends of a site's link. Bursts are 4 ms long, at least four packets.
func (b *Bed) setWAN(s int, rate Rate) error {
	burst := max(4*mtu, rate.Bytes(4*time.Millisecond))
	return errors.Join(shape(b.guard.namespace(dcRouter), wanPort(s), rate, burst, b.cfg.Queue),
		shape(b.guard.namespace(router(s)), "wan0", rate, burst, b.cfg.Queue))
}

// node makes a node and plugs it in.
func (b *Bed) node(s, n int) error {
	if err := b.plugged(router(s), lanPort(n), Node(s, n), NodeAddr(s, n), routerAddr(s)); err != nil {
		return err
	}
	return b.setLAN(s, n, b.cfg.LAN)
}

// setLAN shapes both ends of a node's cable. One segment that the network card would have cut up passes whole.
func (b *Bed) setLAN(s, n int, rate Rate) error {
	burst := max(70_000, rate.Bytes(2*time.Millisecond))
	return errors.Join(shape(b.guard.namespace(Node(s, n)), "eth0", rate, burst, 20*time.Millisecond),
		shape(b.guard.namespace(router(s)), lanPort(n), rate, burst, 20*time.Millisecond))
}

// shape bounds what leaves through an interface; 0 is no bound, and leaves one that is there.
func shape(ns, dev string, rate Rate, burst int64, queue time.Duration) error {
	if rate == 0 {
		return nil
	}
	_, err := command("tc", strings.Fields(fmt.Sprintf("-n %s qdisc replace dev %s root tbf rate %dbit burst %d latency %dus", ns, dev, rate, burst, queue.Microseconds()))...)
	return err
}

// ip runs commands of ip in a namespace.
func ip(ns string, lines ...string) error {
	_, err := feed(strings.Join(lines, "\n")+"\n", "ip", "-n", ns, "-batch", "-")
	return err
}
