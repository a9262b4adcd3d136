package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// lan is memberlist's own transport, except that dialling ends when it is shut down.
type lan struct {
	*memberlist.NetTransport
	dial   func(addr string, timeout time.Duration) (net.Conn, error)
	cancel context.CancelFunc
}

// bindTries: with port 0 the kernel chooses a TCP port, and the UDP port of that number may be taken.
const bindTries = 20

func listen(addr string, allowed []netip.Prefix, logger *libraryLogger) (*lan, netip.AddrPort, error) {
	ip, port, err := bindTo(addr, allowed)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	c := &memberlist.NetTransportConfig{BindAddrs: []string{ip.String()}, BindPort: int(port), Logger: logger}
	t, err := memberlist.NewNetTransport(c)
	for try := 1; err != nil && port == 0 && try < bindTries; try++ {
		t, err = memberlist.NewNetTransport(c)
	}
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("gossip listener %s: %w", addr, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	dial := func(addr string, timeout time.Duration) (net.Conn, error) {
		return (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", addr)
	}
	return &lan{t, dial, cancel}, netip.AddrPortFrom(ip, uint16(t.GetAutoBindPort())), nil
}

// bindTo finds the address to listen on: one of this machine inside the allowed networks, never all of them.
func bindTo(addr string, allowed []netip.Prefix) (netip.Addr, uint16, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("gossip address %q: %w", addr, err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("gossip address %q: port: %w", addr, err)
	}
	if host != "" {
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return netip.Addr{}, 0, fmt.Errorf("gossip address %q: %w", addr, err)
		}
		if !ip.IsUnspecified() {
			if !allows(allowed, ip) {
				return netip.Addr{}, 0, fmt.Errorf("gossip address %q is outside the allowed networks %v", addr, allowed)
			}
			return ip.Unmap(), uint16(port), nil
		}
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range local {
		if p, err := netip.ParsePrefix(a.String()); err == nil && allows(allowed, p.Addr()) {
			return p.Addr().Unmap(), uint16(port), nil
		}
	}
	return netip.Addr{}, 0, fmt.Errorf("no address of this machine is inside the allowed networks %v", allowed)
}

func (l *lan) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return l.dial(a.Addr, timeout)
}

func (l *lan) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return l.dial(addr, timeout)
}

func (l *lan) Shutdown() error {
	l.cancel()
	return l.NetTransport.Shutdown()
}
