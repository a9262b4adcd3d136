// Package xfer is the mesh transport: a libp2p host reduced to TCP, TLS 1.3 and yamux, a gater that lets in only
// whom the roster names, and sessions that speak package wire. Two peers have one session with two persistent
// streams in each direction: a control lane, whose frames never wait behind chunk data, and a data lane that carries
// Data. Node and seeder use it alike; it decides nothing.
//
// No relay, no NAT mapping, no address discovery, no DHT, no QUIC: what a site does not need is not there.
//
// # Life of a session
//
//  1. A connection stands, whoever dialled it. Both ends open their two lanes on it and say Hello on each. Two
//     peers that dial each other at once may end up with their lanes on two connections, which does no harm.
//  2. When all four lanes are there and the Hellos agree, the session is up: [Handler.SessionUp].
//  3. It ends when either end says so, when a frame is not what it may be, when the peer is silent, does not read its
//     control lane, or starts over. An end that ends it says first what it has queued, for at most a second.
//  4. Every connection with the peer is closed, but the one of a peer that starts over, [Handler.SessionDown] is
//     called, and only then can the next session with the peer begin.
//
// # Concurrency
//
// A session runs two readers, two writers, the probe and the goroutine that hangs up; [Host.Run] waits for all.
// Locks are held for a few instructions, never while a handler or the network is called.
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
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
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

// Config of a Host. Key, Name, Listen, Limits, Allow and Handler are required.
type Config struct {
	Key      crypto.PrivKey   // Ed25519
	Site     string           // said in Hello; empty for a seeder
	Name     string           // said in Hello
	Now      func() time.Time // the clock that Hello tells of; nil: time.Now
	Software string
	Listen   string // host:port; port 0 lets the system choose
	// Congestion is the congestion control by which accepted connections send, as the kernel names it: "bbr". Empty, or
	// where the kernel does not allow it: the machine's default.
	Congestion string
	Limits     Limits
	// Allow says whether a peer may connect, in either direction. Called from any goroutine, must not block.
	Allow func(peer.ID) bool
	// AllowDial says whether an address may be dialled, so that nobody can talk us into dialling elsewhere. Nil: all.
	AllowDial func(netip.AddrPort) bool
	Handler   Handler
	// Toll says what a peer may send; a session with one that sends more ends with a FaultError. Nil, or a nil Toll: no bound.
	Toll   func(peer.ID) Toll
	Logger *slog.Logger
	// Intervals of liveness probes while there is something to fetch, and otherwise. Zero: the constants.
	ProbeActive, ProbeIdle time.Duration
}

// Handler receives what sessions bring. Methods are called from the sessions' goroutines, several at once.
type Handler interface {
	// SessionUp is called once both lanes work and the peer has said Hello.
	SessionUp(*Session)
	// SessionDown is called once for every SessionUp, before the next SessionUp with the same peer.
	SessionDown(*Session, error)
	// Message is called for each message but Get, Ping and Pong: in order within a lane, concurrently for the two
	// lanes. A slow return slows the peer down, which is how back-pressure works. An error ends the session. A
	// Data payload is valid until it returns. Nothing is brought after Session.End.
	Message(*Session, wire.Message) error
	// Chunk answers a Get. It is called from the data lane's writer, one at a time for a session. An error that is
	// no RefuseError ends the session.
	Chunk(context.Context, *Session, chunk.ID) (Served, error)
}

// Host owns the listener and the sessions. Its methods are safe for concurrent use.
type Host struct {
	cfg     Config
	h       host.Host
	addr    netip.AddrPort
	log     *slog.Logger
	buffers wire.Buffers

	mu       sync.Mutex // guards the fields below
	sessions map[peer.ID]*Session
	ctx      context.Context // of Run; nil before
	closed   bool
	wg       sync.WaitGroup

	begin sync.Once
	begun chan struct{} // closed by Run, or by Close
}

var errNotRunning = errors.New("mesh host is not running")

// New opens the listener, so that Addr is known. Connections wait in the kernel's queue until Run.
func New(cfg Config) (*Host, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	listen, err := netip.ParseAddrPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("mesh listen address %q: %w", cfg.Listen, err)
	}
	laddr, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(listen))
	if err != nil {
		return nil, fmt.Errorf("mesh listen address %q: %w", cfg.Listen, err)
	}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(cfg.Limits.config()), cfg.Limits.options()...)
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	x := &Host{cfg: cfg, log: cfg.Logger, sessions: map[peer.ID]*Session{}, begun: make(chan struct{})}
	x.h, err = libp2p.New(
		libp2p.Identity(cfg.Key),
		libp2p.ListenAddrs(laddr),
		libp2p.NoTransports, libp2p.Transport(newTransport(cfg.Congestion, cfg.Logger)),
		libp2p.Security(libp2ptls.ID, withPause(cfg.Limits.ReadPause)),
		libp2p.Muxer(yamux.ID, newMuxer(cfg.Limits)),
		libp2p.ConnectionGater(newGater(x)),
		libp2p.ResourceManager(rm),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}), // the default one cuts all but 160: a seeder has an uplink of each site
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.Ping(false),
		libp2p.ForceReachabilityPublic(), // or AutoNAT would be looking for somebody to ask
		libp2p.UserAgent("patchmesh"),
		libp2p.SwarmOpts(swarm.WithDialTimeout(5*time.Second)),
		libp2p.WithDialTimeout(5*time.Second),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mesh listen on %s: %w", cfg.Listen, err), rm.Close())
	}
	for _, a := range x.h.Network().ListenAddresses() {
		if na, err := manet.ToNetAddr(a); err == nil {
			if ta, ok := na.(*net.TCPAddr); ok {
				x.addr = ta.AddrPort()
			}
		}
	}
	return x, nil
}

func (c *Config) complete() error {
	if c.Key == nil || c.Key.Type() != crypto.Ed25519 {
		return errors.New("mesh identity is not an Ed25519 key")
	}
	if c.Allow == nil || c.Handler == nil || c.Limits.Conns == 0 || c.Limits.FirstWindow < leastWindow || c.Limits.FirstWindow > windowBytes || c.Limits.FrameBytes < SliceBytes {
		return fmt.Errorf("mesh host needs Allow, Handler and Limits with a first window of %d to %d bytes", leastWindow, windowBytes)
	}
	if c.Toll == nil {
		c.Toll = func(peer.ID) Toll { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ProbeActive == 0 {
		c.ProbeActive = ProbeActive
	}
	if c.ProbeIdle == 0 {
		c.ProbeIdle = ProbeIdle
	}
	return nil
}

// windowBytes is the largest receive window of a stream: enough for 30 MB/s at 130 ms, and what a peer can make us hold
// when a disk is slow. libp2p's own 16 MiB are for the open Internet.
const windowBytes = 4 << 20

// leastWindow is yamux's: with less it refuses every connection.
const leastWindow = 256 << 10

// newMuxer starts each stream with the window that the limits give it: yamux begins with 256 KiB, which fills 40 of
// 50 Mbit/s at 40 ms, and is slow to grow it.
func newMuxer(l Limits) muxer {
	m := *yamux.DefaultTransport
	m.MaxStreamWindowSize, m.InitialStreamWindowSize = windowBytes, uint32(l.FirstWindow)
	m.AcceptBacklog = 32 // streams a peer may open before the first is looked at
	m.MaxMessageSize = uint32(frameHeader + l.FrameBytes)
	return muxer{&m, l.FrameBytes}
}

// ID is the host's own peer ID.
func (x *Host) ID() peer.ID { return x.h.ID() }

// Addr is the address of the listener.
func (x *Host) Addr() netip.AddrPort { return x.addr }

// Run serves until ctx ends, then ends every session, closes the listener and waits for all of it. Run may be
// called once.
func (x *Host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { x.ensure(c.RemotePeer()) }}
	x.h.Network().Notify(n)
	x.h.SetStreamHandler(ControlProtocol, x.inbound)
	x.h.SetStreamHandler(DataProtocol, x.inbound)
	x.mu.Lock()
	x.ctx = ctx
	x.mu.Unlock()
	x.begin.Do(func() { close(x.begun) })
	<-ctx.Done()
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.h.Network().StopNotify(n)
	x.wg.Wait()
	return x.h.Close()
}

// Close closes a host whose Run was never called. After Run, or a second time, it does nothing.
func (x *Host) Close() error {
	x.begin.Do(func() { close(x.begun) })
	return x.h.Close()
}

// running waits for Run and says whether it still runs.
func (x *Host) running(ctx context.Context) bool {
	select {
	case <-x.begun:
	case <-ctx.Done():
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ctx != nil && !x.closed
}

// dialTTL is how long addresses to dial are remembered. It differs from libp2p's own constants on purpose: those mark
// addresses that its identify protocol sweeps away when the peer dials us at the same time.
const dialTTL = 61 * time.Second

// Dial connects to a peer at one of the addresses and returns when the connection stands; the session follows
// through Handler.SessionUp. With a peer whose session is up nothing happens. Dial waits for Run, and for a session
// with the peer that is ending, so it is not to be called from within SessionDown. libp2p's dial back-off, which
// reaches five minutes, is cleared first: the caller paces.
func (x *Host) Dial(ctx context.Context, p peer.ID, addrs ...netip.AddrPort) error {
	if !x.running(ctx) {
		return errNotRunning
	}
	as := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(a))
		if err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
		as = append(as, m)
	}
	x.mu.Lock()
	s := x.sessions[p]
	x.mu.Unlock()
	if s != nil && s.ctx.Err() != nil {
		select {
		case <-s.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s, ok := x.h.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(p)
	}
	x.h.Peerstore().ClearAddrs(p)
	x.h.Peerstore().AddAddrs(p, as, dialTTL)
	if err := x.h.Connect(network.WithForceDirectDial(ctx, "patchmesh"), peer.AddrInfo{ID: p}); err != nil {
		return err
	}
	x.ensure(p)
	return nil
}

// Session returns the session with a peer, if one is up.
func (x *Host) Session(p peer.ID) (*Session, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.sessions[p]
	if !ok || !s.up.Load() || s.ctx.Err() != nil {
		return nil, false
	}
	return s, true
}

// Disconnect ends the session with a peer at once and closes every connection with it.
func (x *Host) Disconnect(p peer.ID, why error) {
	x.mu.Lock()
	s := x.sessions[p]
	x.mu.Unlock()
	if s != nil {
		s.kill(why, nil)
	}
	x.h.Network().ClosePeer(p)
}

// ensure starts the session with a connected peer unless there is one. Nil: the host is not running.
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
		err := s.run()
		if s.up.Swap(false) {
			x.cfg.Handler.SessionDown(s, err)
		}
		x.mu.Lock()
		delete(x.sessions, p)
		x.mu.Unlock()
		close(s.gone)
	})
	return s
}

// inbound hands a lane that the peer opened to the session. A lane that a session already has means that the peer
// started over: the old session ends, and its connections with it, and a new one takes the lane.
func (x *Host) inbound(st network.Stream) {
	for range 3 {
		s := x.ensure(st.Conn().RemotePeer())
		if s == nil {
			break
		}
		if s.offer(st) {
			return
		}
		s.kill(errReplaced, st.Conn())
		<-s.gone
	}
	st.Reset()
}
