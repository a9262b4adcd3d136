package xfer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/goleak"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

func TestMain(m *testing.M) {
	// libp2p keeps nothing for the life of the process that a closed host does not take along.
	goleak.VerifyTestMain(m)
}

// downed is a session that ended, and why.
type downed struct {
	s   *xfer.Session
	err error
}

// end is a running host with what its handler saw.
type end struct {
	*xfer.Host
	up   chan *xfer.Session
	down chan downed
	got  chan wire.Message

	// Optional ways to answer and to listen.
	serve  func(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error)
	listen func(*xfer.Session, wire.Message) error

	mu     sync.Mutex
	chunks map[chunk.ID][]byte

	stop func() // ends Run and waits for it
}

func (e *end) SessionUp(s *xfer.Session)              { e.up <- s }
func (e *end) SessionDown(s *xfer.Session, err error) { e.down <- downed{s, err} }

func (e *end) Message(s *xfer.Session, m wire.Message) error {
	if e.listen != nil {
		return e.listen(s, m)
	}
	if d, ok := m.(*wire.Data); ok { // the payload is only lent
		c := *d
		c.Payload = bytes.Clone(d.Payload)
		m = &c
	}
	e.got <- m
	return nil
}

func (e *end) Chunk(ctx context.Context, s *xfer.Session, id chunk.ID) (xfer.Served, error) {
	if e.serve != nil {
		return e.serve(ctx, s, id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b, ok := e.chunks[id]
	if !ok {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	return xfer.Served{Payload: b}, nil
}

// hold makes the end serve a chunk of n bytes.
func (e *end) hold(n int) (chunk.ID, []byte) {
	b := make([]byte, n)
	rand.Read(b)
	id := chunk.Sum(b)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.chunks[id] = b
	return id, b
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func all(peer.ID) bool { return true }

func newEnd() *end {
	return &end{up: make(chan *xfer.Session, 64), down: make(chan downed, 64), got: make(chan wire.Message, 4096), chunks: map[chunk.ID][]byte{}}
}

// start runs a host of site s1 that lets everybody in; change may say otherwise.
func start(t testing.TB, change ...func(*xfer.Config, *end)) *end {
	t.Helper()
	e := newEnd()
	cfg := xfer.Config{Key: newKey(t), Site: "s1", Name: "n", Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: all, Handler: e}
	for _, c := range change {
		c(&cfg, e)
	}
	h, err := xfer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Host = h
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

// meet lets a dial b and returns both ends of the session.
func meet(t testing.TB, a, b *end) (sa, sb *xfer.Session) {
	t.Helper()
	if err := a.Dial(t.Context(), b.ID(), b.Addr()); err != nil {
		t.Fatal(err)
	}
	return <-a.up, <-b.up
}

// stranger is a peer that follows no rule but libp2p's: what an attacker with the binary and a key can be.
type stranger struct {
	host.Host
	lanes chan network.Stream // that were opened to it
	alone chan struct{}       // a connection was closed
}

func newStranger(t testing.TB, key crypto.PrivKey) *stranger {
	t.Helper()
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(),
		libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	s := &stranger{h, make(chan network.Stream, 64), make(chan struct{}, 64)}
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { s.alone <- struct{}{} }})
	for _, p := range []protocol.ID{xfer.ControlProtocol, xfer.DataProtocol} {
		h.SetStreamHandler(p, func(st network.Stream) { s.lanes <- st })
	}
	return s
}

func addrInfo(t testing.TB, e *end) peer.AddrInfo {
	t.Helper()
	a, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(e.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	return peer.AddrInfo{ID: e.ID(), Addrs: []ma.Multiaddr{a}}
}

// connect dials a host and returns the error, if any.
func (s *stranger) connect(t testing.TB, e *end) error {
	t.Helper()
	return s.Connect(t.Context(), addrInfo(t, e))
}

// open opens a lane and writes to it.
func (s *stranger) open(t testing.TB, e *end, p protocol.ID, b []byte) network.Stream {
	t.Helper()
	st, err := s.NewStream(t.Context(), e.ID(), p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(b); err != nil {
		t.Fatal(err)
	}
	return st
}

// join connects, opens both lanes, says a proper hello and waits for the session.
func (s *stranger) join(t testing.TB, e *end) (control, data network.Stream, up *xfer.Session) {
	t.Helper()
	if err := s.connect(t, e); err != nil {
		t.Fatal(err)
	}
	hello := frames(t, &wire.Hello{Version: wire.Version, Site: "s1", Name: "stranger"})
	control, data = s.open(t, e, xfer.ControlProtocol, hello), s.open(t, e, xfer.DataProtocol, hello)
	return control, data, <-e.up
}

func frames(t testing.TB, ms ...wire.Message) (b []byte) {
	t.Helper()
	for _, m := range ms {
		var err error
		if b, err = wire.Append(b, m); err != nil {
			t.Fatal(err)
		}
	}
	return b
}
