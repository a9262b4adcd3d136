package xfer_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

func TestChunkAndMessagesCross(t *testing.T) {
	a, b := start(t), start(t)
	id, plain := b.hold(300 << 10)
	sa, sb := meet(t, a, b)
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
	if s, ok := a.Session(b.ID()); !ok || s != sa {
		t.Error("the session is not found")
	}
	sa.End(errors.New("test is over"))
	<-a.down
	<-b.down
	if _, ok := a.Session(b.ID()); ok {
		t.Error("the session is found after its end")
	}
}

// Who is on the roster gets a session, nobody else gets as far as a stream: whichever side keeps the gate, and
// whichever side dials.
func TestGate(t *testing.T) {
	gate := func(open bool) func(*xfer.Config, *end) {
		return func(c *xfer.Config, _ *end) { c.Allow = func(peer.ID) bool { return open } }
	}
	t.Run("open", func(t *testing.T) { meet(t, start(t), start(t, gate(true))) })
	t.Run("closed", func(t *testing.T) {
		b := start(t, gate(false))
		s := newStranger(t, newKey(t))
		if err := s.connect(t, b); err == nil { // TLS 1.3 lets a client finish before the server has looked
			if st, err := s.NewStream(t.Context(), b.ID(), xfer.ControlProtocol); err == nil {
				st.Write(frames(t, &wire.Hello{Version: wire.Version, Site: "s1"}))
				if n, err := st.Read(make([]byte, 1)); err == nil {
					t.Errorf("%d bytes read from a host that refused us", n)
				}
			}
		}
		b.stop() // whatever would have come has come
		if len(b.up) > 0 || len(s.lanes) > 0 {
			t.Errorf("%d sessions, %d streams", len(b.up), len(s.lanes))
		}
	})
	t.Run("dialler closed", func(t *testing.T) {
		a, b := start(t, gate(false)), start(t)
		if err := a.Dial(t.Context(), b.ID(), b.Addr()); err == nil {
			t.Error("dialled a peer that is not allowed")
		}
	})
}

// Ed25519 is the only kind of identity. The control is an Ed25519 stranger, made in the same way, who gets in.
func TestOtherKeys(t *testing.T) {
	b := start(t)
	for name, typ := range map[string]int{"rsa": crypto.RSA, "ecdsa": crypto.ECDSA, "secp256k1": crypto.Secp256k1, "ed25519": crypto.Ed25519} {
		key, _, err := crypto.GenerateKeyPairWithReader(typ, 2048, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s := newStranger(t, key)
		if typ == crypto.Ed25519 {
			s.join(t, b)
			continue
		}
		if _, err := xfer.New(xfer.Config{Key: key, Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: all, Handler: newEnd()}); err == nil {
			t.Errorf("%s: accepted as our own identity", name)
		}
		if err := s.connect(t, b); err != nil {
			continue
		}
		st, err := s.NewStream(t.Context(), b.ID(), xfer.ControlProtocol)
		if err != nil {
			continue
		}
		st.Write(frames(t, &wire.Hello{Version: wire.Version, Site: "s1"}))
		if _, err := st.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the host spoke with it", name)
		}
	}
	if n := len(b.up); n != 0 {
		t.Errorf("%d more sessions", n)
	}
}

// A node with the credentials of one site gets no session in another.
func TestOtherSite(t *testing.T) {
	a, b := start(t), start(t, func(c *xfer.Config, _ *end) { c.Site = "s2" })
	if err := a.Dial(t.Context(), b.ID(), b.Addr()); err != nil {
		t.Fatal(err)
	}
	a.stop()
	b.stop()
	if len(a.up)+len(b.up) > 0 {
		t.Fatal("session across sites")
	}
}

// A host that was never run gives its listener back, and one that runs is not closed twice.
func TestCloseWithoutRun(t *testing.T) {
	cfg := xfer.Config{Key: newKey(t), Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: all, Handler: newEnd()}
	for range 2 {
		h, err := xfer.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if h.Trims() { // libp2p's own manager leaves 160 peers, a minute after there are more than 192
			t.Error("connections are closed because there are many")
		}
		cfg.Listen = h.Addr().String()
		if err := errors.Join(h.Close(), h.Close()); err != nil {
			t.Fatal(err)
		}
		if err := h.Dial(t.Context(), h.ID(), h.Addr()); err == nil {
			t.Error("a closed host dialled")
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for name, change := range map[string]func(*xfer.Config){
		"no key":     func(c *xfer.Config) { c.Key = nil },
		"no gate":    func(c *xfer.Config) { c.Allow = nil },
		"no handler": func(c *xfer.Config) { c.Handler = nil },
		"no limits":  func(c *xfer.Config) { c.Limits = xfer.Limits{} },
		"no window":  func(c *xfer.Config) { c.Limits.FirstWindow = 0 },
		"no port":    func(c *xfer.Config) { c.Listen = "127.0.0.1" },
		"a name":     func(c *xfer.Config) { c.Listen = "localhost:0" },
	} {
		cfg := xfer.Config{Key: newKey(t), Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: all, Handler: newEnd()}
		change(&cfg)
		if h, err := xfer.New(cfg); err == nil {
			h.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
