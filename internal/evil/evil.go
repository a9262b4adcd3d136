// Package evil is a node of a site whose key is stolen: a real peer with a valid identity, known to the roster, that
// speaks the real protocol and misbehaves in one way or several. Tests let it loose on real nodes. It stands on bare
// libp2p, since package xfer is too polite to do harm.
//
// A [Peer] runs one conversation with each of its targets and begins it anew when it is thrown out. Its methods may be
// called from any goroutine.
package evil

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// Target is a node, or the seeder, to talk to.
type Target struct {
	ID   peer.ID
	Addr netip.AddrPort
}

// Config of a Peer. Key, Site, Name and Roles are required.
type Config struct {
	Key        crypto.PrivKey
	Site, Name string
	Roles      []Role
	Targets    []Target
	Seeder     *Target // for the roles that take the lease
	// Bundle, Chunks and Content are what the thief found on the stolen node's disk. Without Content the roles that
	// answer with almost right bytes send random ones.
	Bundle  manifest.Digest
	Chunks  []chunk.ID
	Content func(chunk.ID) ([]byte, error)
	Listed  []wire.DocEntry // genuine documents, and
	Docs    []*wire.Doc     // what they are
	// Fair is how many Gets are answered as they should be before the harm begins: what a node needs to want more.
	Fair int64
}

// Peer is one evil node.
type Peer struct {
	cfg  Config
	h    host.Host
	n    Counts
	fair atomic.Int64

	mu    sync.Mutex // guards the fields below
	known map[manifest.Digest]uint32
	talks map[peer.ID]*talk
}

// Counts is what has happened to a Peer so far.
type Counts struct {
	Sessions atomic.Int64 // conversations begun
	Asked    atomic.Int64 // Gets that targets sent us
	Sent     atomic.Int64 // messages of floods, and answers
	WAN      atomic.Int64 // bytes of chunks that the seeder sent us
	Leases   atomic.Int64 // grants
}

// Counts of the peer.
func (p *Peer) Counts() *Counts { return &p.n }

// New makes a peer. Run lets it loose.
func New(cfg Config) (*Peer, error) {
	p := &Peer{cfg: cfg, known: map[manifest.Digest]uint32{}, talks: map[peer.ID]*talk{}}
	p.fair.Store(cfg.Fair)
	if len(cfg.Chunks) > 0 {
		p.known[cfg.Bundle] = uint32(len(cfg.Chunks))
	}
	for _, r := range cfg.Roles {
		if !slices.Contains(Roles(), r) {
			return nil, fmt.Errorf("evil role %q is not known", r)
		}
	}
	var err error
	p.h, err = libp2p.New(libp2p.Identity(cfg.Key), libp2p.NoListenAddrs,
		libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Ping(false),
		libp2p.DisableIdentifyAddressDiscovery(), libp2p.ForceReachabilityPublic())
	return p, err
}

// ID is its peer ID.
func (p *Peer) ID() peer.ID { return p.h.ID() }

func (p *Peer) plays(roles ...Role) bool {
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(p.cfg.Roles, r) })
}

// again is how long it waits before it comes back.
const again = 200 * time.Millisecond

// Run does harm until ctx ends.
func (p *Peer) Run(ctx context.Context) error {
	p.h.SetStreamHandler(xfer.ControlProtocol, p.inbound)
	p.h.SetStreamHandler(xfer.DataProtocol, p.inbound)
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range p.cfg.Targets {
		g.Go(func() error { return p.haunt(ctx, t) })
	}
	if p.cfg.Seeder != nil && p.plays(Withhold, Greedy) {
		g.Go(func() error { return p.haunt(ctx, *p.cfg.Seeder) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return p.h.Close()
	})
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// haunt talks to a target again and again.
func (p *Peer) haunt(ctx context.Context, to Target) error {
	for ctx.Err() == nil {
		if p.plays(HalfOpen) {
			p.knock(ctx, to)
		} else {
			p.converse(ctx, to)
		}
		wait := again
		if p.plays(Comes) {
			wait = time.Millisecond
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// knock opens connections and says nothing on them.
func (p *Peer) knock(ctx context.Context, to Target) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var conns []net.Conn
	for ctx.Err() == nil && len(conns) < 1000 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", to.Addr.String())
		if err != nil {
			break
		}
		p.n.Sent.Add(1)
		conns = append(conns, c)
	}
	<-ctx.Done()
	for _, c := range conns {
		c.Close()
	}
}

// talk is one conversation.
type talk struct {
	p      *Peer
	to     Target
	ctx    context.Context
	seeder bool
	ready  atomic.Bool            // both our lanes stand
	work   sync.WaitGroup         // what outlives the call that began it
	came   [2]chan network.Stream // the target's lanes

	mu  [2]sync.Mutex // one for each of our lanes
	out [2]network.Stream
}

const (
	control = 0
	data    = 1
)

func lane(s network.Stream) int {
	if s.Protocol() == xfer.DataProtocol {
		return data
	}
	return control
}

// inbound takes a lane that a target opens.
func (p *Peer) inbound(s network.Stream) {
	p.mu.Lock()
	t := p.talks[s.Conn().RemotePeer()]
	p.mu.Unlock()
	if t != nil {
		select {
		case t.came[lane(s)] <- s:
			return
		default:
		}
	}
	s.Reset()
}

// converse is one conversation from its beginning until the target has had enough.
func (p *Peer) converse(ctx context.Context, to Target) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &talk{p: p, to: to, ctx: ctx, seeder: p.cfg.Seeder != nil && to.ID == p.cfg.Seeder.ID}
	for i := range t.came {
		t.came[i] = make(chan network.Stream, 1)
	}
	p.mu.Lock()
	p.talks[to.ID] = t
	p.mu.Unlock()
	defer func() {
		p.h.Network().ClosePeer(to.ID)
		p.mu.Lock()
		delete(p.talks, to.ID)
		p.mu.Unlock()
	}()
	if t.connect() != nil {
		return
	}
	var in [2]network.Stream
	for i := range in {
		select {
		case in[i] = <-t.came[i]:
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
			return
		}
	}
	p.n.Sessions.Add(1)
	t.ready.Store(true)
	// It ends when the target ends it, or when a role has done what it does.
	g, gctx := errgroup.WithContext(ctx)
	t.ctx = gctx
	context.AfterFunc(gctx, func() { p.h.Network().ClosePeer(to.ID) })
	g.Go(func() error { return t.listen(in[control]) })
	if p.plays(NoRead) {
		g.Go(func() error { <-gctx.Done(); return gctx.Err() })
	} else {
		g.Go(func() error { return t.listen(in[data]) })
	}
	g.Go(func() error { return t.perform() })
	_ = g.Wait() // how it ended is the target's affair
	t.work.Wait()
}

var errEnough = errors.New("enough")

// connect dials, opens both lanes and says hello.
func (t *talk) connect() error {
	m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(t.to.Addr))
	if err != nil {
		return err
	}
	if s, ok := t.p.h.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(t.to.ID)
	}
	t.p.h.Peerstore().AddAddr(t.to.ID, m, time.Hour)
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	if err := t.p.h.Connect(network.WithForceDirectDial(ctx, "evil"), peer.AddrInfo{ID: t.to.ID}); err != nil {
		return err
	}
	hello, err := wire.Append(nil, &wire.Hello{Version: wire.Version, Site: t.p.cfg.Site, Name: t.p.cfg.Name, Software: "meshd"})
	if err != nil {
		return err
	}
	for i, proto := range []protocol.ID{xfer.ControlProtocol, xfer.DataProtocol} {
		if t.out[i], err = t.p.h.NewStream(ctx, t.to.ID, proto); err != nil {
			return err
		}
		if err := t.raw(i, hello); err != nil {
			return err
		}
	}
	return nil
}

// raw writes bytes on one of our lanes.
func (t *talk) raw(lane int, b []byte) error {
	t.mu[lane].Lock()
	defer t.mu[lane].Unlock()
	_, err := t.out[lane].Write(b)
	return err
}

// say sends a message on its lane.
func (t *talk) say(ms ...wire.Message) error {
	var b []byte
	var err error
	for _, m := range ms {
		if b, err = wire.Append(b, m); err != nil {
			return err
		}
	}
	if len(b) == 0 {
		return nil
	}
	at := control
	if _, ok := ms[0].(*wire.Data); ok {
		at = data
	}
	return t.raw(at, b)
}
