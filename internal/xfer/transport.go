package xfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	tpt "github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"
)

// transport is libp2p's TCP transport with another way to listen: what it accepts sends with a congestion control
// of our choice. The choice is the sender's alone, so it costs nothing at the other end, and it is made for each
// socket, so the machine's default stays what it is.
type transport struct {
	*tcp.TcpTransport
	upgrader   tpt.Upgrader
	congestion string // empty: the machine's default
	log        *slog.Logger
}

// newTransport returns a constructor as libp2p's injection asks for.
func newTransport(congestion string, log *slog.Logger) func(tpt.Upgrader, network.ResourceManager, *tcpreuse.ConnMgr) (*transport, error) {
	return func(u tpt.Upgrader, rm network.ResourceManager, shared *tcpreuse.ConnMgr) (*transport, error) {
		t, err := tcp.NewTCPTransport(u, rm, shared, tcp.DisableReuseport())
		return &transport{t, u, congestion, log}, err
	}
}

// Listen implements transport.Transport.
func (t *transport) Listen(addr ma.Multiaddr) (tpt.Listener, error) {
	network, address, err := manet.DialArgs(addr)
	if err != nil {
		return nil, err
	}
	var refused error
	conf := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		refused = setCongestion(c, t.congestion)
		return nil
	}}
	l, err := conf.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	congestion := t.congestion
	if refused != nil {
		congestion = ""
		t.log.Warn("the kernel does not let us choose how TCP answers loss: a line that loses 1 % of its packets will take about 14 times as long; "+
			"allow it with modprobe tcp_bbr and sysctl net.ipv4.tcp_allowed_congestion_control", "wanted", t.congestion, "err", refused)
	}
	ml, err := manet.WrapNetListener(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return t.upgrader.UpgradeGatedMaListener(t, accepting{t.upgrader.GateMaListener(ml), congestion}), nil
}

// accepting makes of each accepted socket what libp2p's own listener does, and more.
type accepting struct {
	tpt.GatedMaListener
	congestion string
}

// keepAlive is libp2p's.
const keepAlive = 30 * time.Second

// Accept implements transport.GatedMaListener.
func (l accepting) Accept() (manet.Conn, network.ConnManagementScope, error) {
	c, scope, err := l.GatedMaListener.Accept()
	if err != nil {
		return nil, nil, err
	}
	type socket interface {
		syscall.Conn
		SetLinger(int) error
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}
	if s, ok := c.(socket); ok {
		// What fails here fails because the connection is gone, and then its handshake says so.
		_ = s.SetLinger(0) // reset instead of TIME-WAIT
		_ = s.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive})
		if raw, err := s.SyscallConn(); err == nil {
			// Inherited from the listener, unless the route has its own (ip-route(8), congctl), which would prevail.
			_ = setCongestion(raw, l.congestion)
		}
	}
	return c, scope, nil
}

func setCongestion(c syscall.RawConn, name string) error {
	if name == "" {
		return nil
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("tcp congestion control %s: %w", name, err)
	}
	return nil
}
