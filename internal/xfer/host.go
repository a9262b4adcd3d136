// Package xfer is the mesh transport: a libp2p host reduced to TCP, TLS 1.3 and yamux, a gater that lets in only
// whom the roster names, and sessions that speak package wire. Each pair of peers has one connection with two
// persistent streams in each direction: a control lane, whose frames never wait behind chunk data, and a data lane
// that carries Data and Refuse. Node and seeder use it alike; it decides nothing.
//
// No relay, no NAT mapping, no address discovery, no DHT, no QUIC: what a site does not need is not there.
package xfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// Protocols of the two lanes.
const (
	ControlProtocol protocol.ID = "/patchmesh/control/1"
	DataProtocol    protocol.ID = "/patchmesh/data/1"
)

// Config of a Host. Key, Name, Listen, Allow and Handler are required.
type Config struct {
	Key      crypto.PrivKey // Ed25519
	Site     string         // said in Hello; empty for a seeder
	Name     string         // said in Hello
	Software string
	Listen   string // host:port; port 0 lets the system choose
	Limits   Limits
	// Allow says whether a peer may connect, in either direction. Called from any goroutine, must not block.
	Allow func(peer.ID) bool
	// AllowDial says whether an address may be dialled, so that nobody can talk us into dialling elsewhere. Nil: all.
	AllowDial func(netip.AddrPort) bool
	Handler   Handler
	Logger    *slog.Logger
}

// Handler receives what sessions bring. Methods are called from the sessions' goroutines, several at once.
type Handler interface {
	// SessionUp is called once both lanes work and the peer has said Hello.
	SessionUp(*Session)
	// SessionDown is called once for every SessionUp.
	SessionDown(*Session, error)
	// Message is called for each message but Get, Ping and Pong: in order within a lane, concurrently for the two
	// lanes. A slow return slows the peer down, which is how back-pressure works. An error ends the session. A
	// Data payload is valid until it returns.
	Message(*Session, wire.Message) error
	// Chunk answers a Get. It is called from the data lane's writer, one at a time for a session.
	Chunk(context.Context, *Session, chunk.ID) (Served, error)
}

// Host owns the listener and the sessions.
type Host struct {
	cfg  Config
	h    host.Host
	addr netip.AddrPort
	log  *slog.Logger

	buffers wire.Buffers

	mu       sync.Mutex // guards the fields below
	sessions map[peer.ID]*Session
	closed   bool
	ctx      context.Context
	wg       sync.WaitGroup
}

// New opens the listener, so that Addr is known. Nothing is accepted before Run.
func New(cfg Config) (*Host, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	listen, err := netip.ParseAddrPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("mesh listen address %q: %w", cfg.Listen, err)
	}
	laddr, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(listen))
	if err != nil {
		return nil, err
	}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg.Limits.config()), cfg.Limits.options()...)
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	x := &Host{cfg: cfg, log: cfg.Logger, sessions: map[peer.ID]*Session{}}
	h, err := libp2p.New(
		libp2p.Identity(cfg.Key),
		libp2p.ListenAddrs(laddr),
		libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(libp2ptls.ID, newSecurity),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ConnectionGater(&gater{cfg}),
		libp2p.ResourceManager(rm),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.Ping(false),
		libp2p.UserAgent("patchmesh"),
		libp2p.SwarmOpts(swarm.WithDialTimeout(5*time.Second)),
		libp2p.WithDialTimeout(5*time.Second),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mesh listen on %s: %w", cfg.Listen, err), rm.Close())
	}
	x.h = h
	for _, a := range h.Network().ListenAddresses() {
		if na, err := manet.ToNetAddr(a); err == nil {
			if ta, ok := na.(*net.TCPAddr); ok {
				x.addr = ta.AddrPort()
			}
		}
	}
	return x, nil
}

// ID is the host's own peer ID.
func (x *Host) ID() peer.ID { return x.h.ID() }

// Addr is the address of the listener.
func (x *Host) Addr() netip.AddrPort { return x.addr }

// Run serves until ctx ends, then closes every session and the listener and waits for all of it. Run may be
// called once.
func (x *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x.mu.Lock()
	x.ctx = ctx
	x.mu.Unlock()
	n := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { x.ensure(c.RemotePeer()) }}
	x.h.Network().Notify(n)
	x.h.SetStreamHandler(ControlProtocol, x.inbound)
	x.h.SetStreamHandler(DataProtocol, x.inbound)
	for _, p := range x.h.Network().Peers() { // who connected before anybody listened to it
		x.ensure(p)
	}
	<-ctx.Done()
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.h.Network().StopNotify(n)
	x.wg.Wait()
	return x.h.Close()
}

// Close closes a host whose Run was never called.
func (x *Host) Close() error { return x.h.Close() }

// Dial connects to a peer at one of the addresses and returns when the connection stands; the session follows
// through Handler.SessionUp. libp2p's dial back-off, which reaches five minutes, is cleared first: the caller paces.
func (x *Host) Dial(ctx context.Context, p peer.ID, addrs ...netip.AddrPort) error {
	info := peer.AddrInfo{ID: p}
	for _, a := range addrs {
		m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(a))
		if err != nil {
			return err
		}
		info.Addrs = append(info.Addrs, m)
	}
	if s, ok := x.h.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(p)
	}
	x.h.Peerstore().ClearAddrs(p)
	return x.h.Connect(network.WithForceDirectDial(ctx, "patchmesh"), info)
}

// Session returns the session with a peer, if one is up.
func (x *Host) Session(p peer.ID) (*Session, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.sessions[p]
	if !ok || !s.up.Load() {
		return nil, false
	}
	return s, true
}

// Disconnect ends the session and the connections with a peer.
func (x *Host) Disconnect(p peer.ID, why error) {
	x.mu.Lock()
	s := x.sessions[p]
	x.mu.Unlock()
	if s != nil {
		s.End(why)
	}
	x.h.Network().ClosePeer(p)
}

// ensure starts the session with a connected peer unless there is one.
func (x *Host) ensure(p peer.ID) *Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.ctx == nil {
		return nil
	}
	if s, ok := x.sessions[p]; ok {
		return s
	}
	s := newSession(x, p)
	x.sessions[p] = s
	x.wg.Go(func() {
		s.run(x.ctx)
		x.mu.Lock()
		delete(x.sessions, p)
		x.mu.Unlock()
		close(s.gone)
	})
	return s
}

// inbound hands a lane that the peer opened to the session. A lane that a session already has means that the peer
// started over: the old session ends and a new one takes the lane.
func (x *Host) inbound(st network.Stream) {
	for range 2 {
		s := x.ensure(st.Conn().RemotePeer())
		if s == nil {
			break
		}
		if s.offer(st) {
			return
		}
		s.End(errReplaced)
		<-s.gone
	}
	st.Reset()
}

// gater lets in whom Config.Allow names, and nobody else gets as far as a stream.
type gater struct{ cfg Config }

func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.cfg.Allow(p) }

func (g *gater) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool {
	if g.cfg.AllowDial == nil {
		return true
	}
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return false
	}
	ta, ok := na.(*net.TCPAddr)
	return ok && g.cfg.AllowDial(ta.AddrPort())
}

func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, a network.ConnMultiaddrs) bool {
	ok := g.cfg.Allow(p)
	if !ok {
		g.cfg.Logger.Warn("peer refused: not on the roster", "peer", p.String(), "addr", a.RemoteMultiaddr().String())
	}
	return ok
}

func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
