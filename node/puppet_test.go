package node_test

import (
	"context"
	"crypto/sha256"
	"flag"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// Nothing that a node starts outlives its Run, but what the libraries keep for the process.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue { // sites of nodes mostly wait
		if err := f.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).pushPullTrigger"), // sleeps out its first interval
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).triggerFunc"),
		goleak.IgnoreAnyFunction("github.com/ipfs/go-log/writer.(*MirrorWriter).logRoutine"),
	)
}

// puppet is a peer on the real transport that says what a test makes it say: a seeder, or a neighbour that means harm.
type puppet struct {
	t    *testing.T
	host *xfer.Host
	// answer, when not nil, is called for every message, after it was noted.
	answer func(*xfer.Session, wire.Message)
	// chunk answers Gets; nil: not held.
	chunk func(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error)

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every change
	session *xfer.Session
	heard   []wire.Message
	downs   int
}

// puppet starts one with a key; peers are everybody.
func (s *site) puppet(key crypto.PrivKey, name string) *puppet {
	s.t.Helper()
	p := &puppet{t: s.t, changed: make(chan struct{})}
	var err error
	p.host, err = xfer.New(xfer.Config{Key: key, Site: "s1", Name: name, Software: "puppet", Listen: "127.0.0.1:0",
		Limits: xfer.NodeLimits(), Allow: func(peer.ID) bool { return true }, Handler: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.host.Run(ctx) }()
	s.t.Cleanup(func() { cancel(); <-ended })
	return p
}

// playSeeder starts a puppet that every node takes for the seeder, and that grants every lease.
func (s *site) playSeeder() *puppet {
	s.t.Helper()
	p := s.puppet(s.seederKey, "seeder")
	p.answer = func(se *xfer.Session, m wire.Message) {
		switch m := m.(type) {
		case *wire.LeaseAsk:
			se.Send(&wire.LeaseGrant{Nonce: m.Nonce, Lease: 1, TTLMillis: 60_000, RenewMillis: 20_000})
		case *wire.LeaseRenew:
			se.Send(&wire.LeaseGrant{Nonce: m.Nonce, Lease: m.Lease, TTLMillis: 60_000, RenewMillis: 20_000})
		}
	}
	s.seederAddr = p.host.Addr().String()
	for i := range s.members {
		s.enrol(&s.members[i])
	}
	return p
}

func (p *puppet) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// SessionUp, SessionDown, Message and Chunk implement xfer.Handler.
func (p *puppet) SessionUp(s *xfer.Session) { p.change(func() { p.session = s }) }

func (p *puppet) SessionDown(s *xfer.Session, _ error) {
	p.change(func() {
		p.downs++
		if p.session == s {
			p.session = nil
		}
	})
}

func (p *puppet) Message(s *xfer.Session, m wire.Message) error {
	if _, ok := m.(*wire.Data); ok { // its payload is not ours to keep
		return nil
	}
	p.change(func() { p.heard = append(p.heard, m) })
	if p.answer != nil {
		p.answer(s, m)
	}
	return nil
}

func (p *puppet) Chunk(ctx context.Context, s *xfer.Session, id chunk.ID) (xfer.Served, error) {
	if p.chunk == nil {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	return p.chunk(ctx, s, id)
}

// await waits until fits, called under the lock, is true.
func (p *puppet) await(what string, fits func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		ok, changed := fits(), p.changed
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			p.t.Fatalf("never: %s", what)
		}
	}
}

// dial connects to a node and waits for the session.
func (p *puppet) dial(id peer.ID, addr netip.AddrPort) *xfer.Session {
	p.t.Helper()
	if err := p.host.Dial(p.t.Context(), id, addr); err != nil {
		p.t.Fatal(err)
	}
	p.await("a session", func() bool { return p.session != nil })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session
}

// tellDoc has a puppet hand a node a document, which it asks for.
func tellDoc(p *puppet, se *xfer.Session, kind wire.DocKind, name string, number uint64, d trust.Signed) {
	p.t.Helper()
	p.mu.Lock()
	before := len(heard[*wire.GetDoc](p))
	p.mu.Unlock()
	se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(kind, name, number, d)}})
	p.await("a question", func() bool { return len(heard[*wire.GetDoc](p)) > before })
	se.Send(&wire.Doc{Kind: kind, Doc: d.Doc, Sig: d.Sig})
}

// fence waits until the node has handled everything that was sent before: it answers a question about a document of
// its own after it.
func (p *puppet) fence(s *xfer.Session, own trust.Signed) {
	p.t.Helper()
	p.mu.Lock()
	before := len(heard[*wire.Doc](p))
	p.mu.Unlock()
	s.Send(&wire.GetDoc{Digest: sha256.Sum256(own.Doc)})
	p.await("an answer", func() bool { return len(heard[*wire.Doc](p)) > before })
}

// heard picks the messages of one type; call it under the lock.
func heard[M wire.Message](p *puppet) (out []M) {
	for _, m := range p.heard {
		if x, ok := m.(M); ok {
			out = append(out, x)
		}
	}
	return out
}

func plain(b []byte) xfer.Served { return xfer.Served{Encoding: byte(encoding.Plain), Payload: b} }
