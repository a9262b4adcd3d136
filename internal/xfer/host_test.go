package xfer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// libp2p and its logger keep these for the life of the process.
		goleak.IgnoreTopFunction("github.com/libp2p/go-libp2p/p2p/net/connmgr.(*decayer).process"))
}

// end is one host with what its handler saw.
type end struct {
	*xfer.Host
	up, down chan *xfer.Session
	got      chan wire.Message

	mu     sync.Mutex
	chunks map[chunk.ID][]byte
}

func (e *end) SessionUp(s *xfer.Session)            { e.up <- s }
func (e *end) SessionDown(s *xfer.Session, _ error) { e.down <- s }
func (e *end) Message(_ *xfer.Session, m wire.Message) error {
	if d, ok := m.(*wire.Data); ok { // the payload is only lent
		c := *d
		c.Payload = bytes.Clone(d.Payload)
		m = &c
	}
	e.got <- m
	return nil
}

func (e *end) Chunk(_ context.Context, _ *xfer.Session, id chunk.ID) (xfer.Served, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, ok := e.chunks[id]
	if !ok {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	return xfer.Served{Payload: b}, nil
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// start runs a host until the test ends.
func start(t *testing.T, site string, allow func(peer.ID) bool) *end {
	t.Helper()
	e := &end{up: make(chan *xfer.Session, 8), down: make(chan *xfer.Session, 8), got: make(chan wire.Message, 64), chunks: map[chunk.ID][]byte{}}
	h, err := xfer.New(xfer.Config{Key: newKey(t), Site: site, Name: "n", Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(),
		Allow: allow, Handler: e, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	e.Host = h
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e
}

func all(peer.ID) bool { return true }

func TestChunkAndMessagesCross(t *testing.T) {
	a, b := start(t, "s1", all), start(t, "s1", all)
	plain := bytes.Repeat([]byte("x"), 300<<10)
	id := chunk.Sum(plain)
	b.chunks[id] = plain
	if err := a.Dial(t.Context(), b.ID(), b.Addr()); err != nil {
		t.Fatal(err)
	}
	sa, sb := <-a.up, <-b.up
	if sa.Peer() != b.ID() || sb.Peer() != a.ID() {
		t.Fatal("sessions are with the wrong peers")
	}
	sa.Send(&wire.Get{Req: 1, ID: id})
	if d := (<-a.got).(*wire.Data); d.Req != 1 || !bytes.Equal(d.Payload, plain) {
		t.Fatalf("data: req %d, %d bytes", d.Req, len(d.Payload))
	}
	sa.Send(&wire.Get{Req: 2, ID: chunk.Sum(nil)})
	if r := (<-a.got).(*wire.Refuse); r.Req != 2 || r.Reason != wire.ReasonNotHeld {
		t.Fatalf("refuse: %+v", r)
	}
	sb.Send(&wire.Uplink{Holder: "me"})
	if u := (<-a.got).(*wire.Uplink); u.Holder != "me" {
		t.Fatalf("uplink: %+v", u)
	}
	sa.End(errors.New("test is over"))
	<-a.down
	<-b.down
}

// A peer that starts over gets a new session at once; nobody waits for a timeout.
func TestPeerStartsOver(t *testing.T) {
	a, b := start(t, "s1", all), start(t, "s1", all)
	for range 3 {
		if err := a.Dial(t.Context(), b.ID(), b.Addr()); err != nil {
			t.Fatal(err)
		}
		s := <-a.up
		<-b.up
		s.End(errors.New("again"))
		<-a.down
		<-b.down
	}
}

// The gater refuses who is not on the roster before a session exists; with the gate open the same peer gets in.
func TestGater(t *testing.T) {
	for _, open := range []bool{false, true} {
		b := start(t, "s1", func(peer.ID) bool { return open })
		a := start(t, "s1", all)
		err := a.Dial(t.Context(), b.ID(), b.Addr())
		if open {
			if err != nil {
				t.Fatalf("open gate: %v", err)
			}
			<-a.up
			<-b.up
			continue
		}
		// The dialler may see the connection stand for a moment (TLS 1.3 lets the client finish first), the
		// other side never has a session.
		select {
		case <-b.up:
			t.Fatal("a session came up with a peer that is not allowed")
		case <-a.up:
			t.Fatal("a session came up at a peer that is not allowed")
		default:
		}
	}
}

// A node with the credentials of one site gets no session in another.
func TestOtherSite(t *testing.T) {
	a, b := start(t, "s1", all), start(t, "s2", all)
	if err := a.Dial(t.Context(), b.ID(), b.Addr()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.up:
		t.Fatal("session across sites")
	case <-b.up:
		t.Fatal("session across sites")
	default:
	}
}
