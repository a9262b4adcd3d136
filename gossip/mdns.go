package gossip

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/mdns"
)

const (
	mdnsService = "_patchmesh._tcp"
	mdnsListen  = time.Second // for answers to one question
	mdnsAnswers = 32          // taken from one question
	aloneFactor = 20          // a node alone asks that much more often
)

// beacon answers questions by multicast DNS and asks them. The site's name and the node's are not told: the
// record holds tags that only who has the site's key can make or recognise. They authenticate nothing, since
// anybody can repeat them; an address that is found is called like any other, and the guard decides.
type beacon struct {
	addr     netip.AddrPort
	site     string // tag of the site, in the TXT record
	instance string
	iface    *net.Interface
	log      *libraryLogger
}

func newBeacon(cfg Config, addr netip.AddrPort, iface *net.Interface, logger *libraryLogger) beacon {
	tag := func(what, name string) string {
		h := hmac.New(sha256.New, cfg.Key)
		h.Write([]byte("patchmesh mdns v1 " + what + " " + name))
		return hex.EncodeToString(h.Sum(nil)[:8])
	}
	return beacon{addr: addr, site: "site=" + tag("site", cfg.Site), instance: tag("node", cfg.Node), iface: iface, log: logger}
}

// discover starts answering and asking. That it cannot is no error: it is one hint among several.
func (l *loop) discover(ctx context.Context) {
	if l.addr.Addr().IsLoopback() {
		l.cfg.Logger.Debug("multicast dns is off on loopback")
		return
	}
	iface, err := interfaceOf(l.addr.Addr())
	if err != nil || iface == nil {
		l.cfg.Logger.Info("multicast dns is off", "addr", l.addr, "err", err)
		return
	}
	_, logger := newBridge(l.cfg.Logger, "mdns")
	b := newBeacon(l.cfg, l.addr, iface, logger)
	server, err := b.answer()
	if err != nil {
		l.cfg.Logger.Info("multicast dns is off", "addr", l.addr, "err", err)
		return
	}
	l.wg.Go(func() {
		defer func() { _ = server.Shutdown() }()
		b.ask(ctx, l.cfg.Timing.Discover, l.table, func(a netip.AddrPort) {
			l.tell(ctx, func() {
				if _, ok := l.found[a]; !ok && (len(l.found) >= maxFound || !allows(l.cfg.CIDRs, a.Addr())) {
					return
				} else if !ok && !l.connected()[a] {
					l.round.Reset(jitter(adoptPause, l.rng))
				}
				l.found[a] = l.cfg.Now()
			})
		})
	})
}

// answer serves our record until the server is shut down.
func (b beacon) answer() (*mdns.Server, error) {
	ips := []net.IP{b.addr.Addr().AsSlice()}
	zone, err := mdns.NewMDNSService(b.instance, mdnsService, "local.", b.instance+".local.", int(b.addr.Port()), ips, []string{b.site})
	if err != nil {
		return nil, err
	}
	return mdns.NewServer(&mdns.Config{Zone: zone, Iface: b.iface, Logger: b.log})
}

// ask asks at once, and then as long as nodes are missing, every so often and with jitter.
func (b beacon) ask(ctx context.Context, every time.Duration, t *table, found func(netip.AddrPort)) {
	rng := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for {
		company := t.company()
		if !company || t.missing() {
			for _, a := range b.question(ctx) {
				found(a)
			}
		}
		pause := every
		if !company {
			pause /= aloneFactor
		}
		select {
		case <-time.After(jitter(pause, rng)):
		case <-ctx.Done():
			return
		}
	}
}

// question returns the addresses of those who answered with our site's tag.
func (b beacon) question(ctx context.Context) []netip.AddrPort {
	answers := make(chan *mdns.ServiceEntry, mdnsAnswers)
	err := mdns.QueryContext(ctx, &mdns.QueryParam{
		Service: mdnsService, Timeout: mdnsListen, Interface: b.iface, Entries: answers, Logger: b.log,
		DisableIPv4: b.addr.Addr().Is6(), DisableIPv6: b.addr.Addr().Is4(),
	})
	if err != nil {
		b.log.Printf("[INFO] question: %v", err)
	}
	close(answers) // the library sends from QueryContext only
	var out []netip.AddrPort
	for e := range answers {
		ip, ok := netip.AddrFromSlice(e.AddrV4)
		if !ok {
			ip, ok = netip.AddrFromSlice(e.AddrV6)
		}
		a := netip.AddrPortFrom(ip.Unmap(), uint16(e.Port))
		if ok && slices.Contains(e.InfoFields, b.site) && a != b.addr && e.Port > 0 && e.Port < 1<<16 {
			out = append(out, a)
		}
	}
	return out
}

// interfaceOf returns the interface that has an address, nil if none has.
func interfaceOf(ip netip.Addr) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == ip {
				return &i, nil
			}
		}
	}
	return nil, nil
}
