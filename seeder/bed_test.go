package seeder

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// libp2p and its logger keep these for the life of the process.
		goleak.IgnoreTopFunction("github.com/libp2p/go-libp2p/p2p/net/connmgr.(*decayer).process"),
		// Clients of the API keep connections for a while.
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// key is an OpenPGP key for one role.
func key(t testing.TB) *signer.KeyFile {
	t.Helper()
	priv, _, _, err := signer.Generate("test", "")
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func role(t testing.TB, k *signer.KeyFile) trust.RoleKeys {
	t.Helper()
	r, err := trust.NewRoleKeys(1, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bed is a running seeder and what an operator has.
type bed struct {
	*Seeder
	t                 testing.TB
	cfg               Config
	release, operator *signer.KeyFile
	admin             *api.Client
	stop              func() // waits until the seeder has ended
}

func start(t testing.TB, change func(*Config)) *bed {
	t.Helper()
	b := &bed{t: t, release: key(t), operator: key(t)}
	b.cfg = Config{State: filepath.Join(t.TempDir(), "st"), ListenMesh: "127.0.0.1:0", ListenAPI: "127.0.0.1:0",
		Release: role(t, b.release), Policy: role(t, b.operator), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&b.cfg)
	}
	b.run()
	t.Cleanup(func() { b.stop() })
	return b
}

// run starts the seeder, a second time too.
func (b *bed) run() {
	b.t.Helper()
	s, err := New(b.t.Context(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Seeder = s
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.admin = b.client(s.Access())
	b.stop = sync.OnceFunc(func() {
		b.admin.CloseIdle()
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bed) client(a api.Access) *api.Client {
	b.t.Helper()
	c, err := api.NewClient(a)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// bundle builds and signs a bundle with one text and one random file.
func (b *bed) bundle(version string, seq uint64, k *signer.KeyFile) *chunker.Bundle {
	b.t.Helper()
	src := b.t.TempDir()
	text := bytes.Repeat([]byte("price 4711 = 12.95, version "+version+"\n"), 30_000)
	noise := make([]byte, 700_000)
	r := rand.New(rand.NewPCG(seq, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, data := range map[string][]byte{"prices.txt": text, "blob.gz": noise} {
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	out, err := chunker.Build(b.t.Context(), chunker.BuildOptions{Name: "app", Version: version, Sequence: seq, From: src, Created: time.Now(),
		Target: manifest.Target{OS: "any", Release: "any", Arch: "any", Format: manifest.FormatFiles},
		Out:    filepath.Join(b.t.TempDir(), "b"), Signers: []signer.Signer{k}})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func upload(t testing.TB, x *chunker.Bundle) api.BundleUpload {
	t.Helper()
	sums, err := x.SignedSums()
	if err != nil {
		t.Fatal(err)
	}
	return api.BundleUpload{Manifest: x.Signed, Index: x.IndexBytes(), Sums: sums}
}

// push uploads at most n chunks (all when n < 0) and says how many were sent.
func (b *bed) push(x *chunker.Bundle, n int) int {
	b.t.Helper()
	begun, err := b.admin.BeginBundle(b.t.Context(), upload(b.t, x))
	if err != nil {
		b.t.Fatal(err)
	}
	sent := 0
	for _, id := range begun.Missing {
		if sent == n {
			return sent
		}
		if err := b.admin.PutChunk(b.t.Context(), id, plainOf(b.t, x, id)); err != nil {
			b.t.Fatal(err)
		}
		sent++
	}
	if _, err := b.admin.CommitBundle(b.t.Context(), x.Digest); err != nil {
		b.t.Fatal(err)
	}
	return sent
}

func plainOf(t testing.TB, x *chunker.Bundle, id chunk.ID) []byte {
	t.Helper()
	c := x.Catalog()
	i, ok := c.Position(id)
	if !ok {
		t.Fatalf("chunk %s is not of the bundle", id)
	}
	plain, err := x.ReadChunk(c.Chunks[i])
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// policy signs a policy that asks nodes with role=pos for the bundle.
func (b *bed) policy(x *chunker.Bundle, rev uint64, checksum manifest.Digest, k *signer.KeyFile) trust.Signed {
	b.t.Helper()
	return b.signed(policyText("pos", x, checksum, "  targets: {selector: {matchLabels: {role: pos}}}\n"), rev, k)
}

// policyText is a policy; spec is what follows its bundle.
func policyText(name string, x *chunker.Bundle, checksum manifest.Digest, spec string) string {
	return `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: ` + name + `}
spec:
  bundleRef: {name: app, version: "` + x.Manifest.Version + `", checksum: "` + checksum.String() + `"}
` + spec
}

// signed is a revision of a policy as it is signed by hand.
func (b *bed) signed(text string, rev uint64, k *signer.KeyFile) trust.Signed {
	b.t.Helper()
	d, err := policy.NewDocument([]byte(text), rev, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return b.sign(d, k)
}

// sign writes a document and signs it.
func (b *bed) sign(d interface{ Encode() ([]byte, error) }, k *signer.KeyFile) trust.Signed {
	b.t.Helper()
	doc, err := d.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	sig, err := k.Sign(b.t.Context(), doc)
	if err != nil {
		b.t.Fatal(err)
	}
	return trust.Signed{Doc: doc, Sig: sig}
}

// wallClock is the wall clock of a seeder, which a test sets.
type wallClock struct{ nanos atomic.Int64 }

func newClock(t time.Time) *wallClock {
	c := &wallClock{}
	c.set(t)
	return c
}

func (c *wallClock) now() time.Time  { return time.Unix(0, c.nanos.Load()) }
func (c *wallClock) set(t time.Time) { c.nanos.Store(t.UnixNano()) }

// site makes a site without a cap.
func (b *bed) site(name string) {
	b.t.Helper()
	if _, err := b.admin.CreateSite(b.t.Context(), api.SiteSpec{Name: name}); err != nil {
		b.t.Fatal(err)
	}
}

// station is a node as far as the seeder can tell.
type station struct {
	*xfer.Host
	t       testing.TB
	id      ed25519.PrivateKey
	name    string
	site    string
	enrol   enrol.Enrolment
	up      chan *xfer.Session
	down    chan struct{}
	got     chan wire.Message
	session *xfer.Session
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(k ed25519.PrivateKey, secret, name string) enrol.Request {
	id := api.PeerID(k.Public().(ed25519.PublicKey))
	return enrol.Request{Secret: secret, Name: name, PeerID: id, Proof: ed25519.Sign(k, enrol.ProofMessage(secret, name, id)), Addrs: []string{"127.0.0.1:1"}}
}

// joinToken makes a join token and returns it parsed.
func (b *bed) joinToken(site string, spec api.TokenSpec) enrol.Token {
	b.t.Helper()
	r, err := b.admin.CreateToken(b.t.Context(), site, spec)
	if err != nil {
		b.t.Fatal(err)
	}
	tok, err := enrol.ParseToken(r.Token)
	if err != nil {
		b.t.Fatal(err)
	}
	return tok
}

// join enrols a station as meshd join does, over TLS with the token's pin.
func (b *bed) join(site, name string, spec api.TokenSpec) *station {
	b.t.Helper()
	if spec.Labels == nil {
		spec.Labels = map[string]string{"role": "pos"}
	}
	tok := b.joinToken(site, spec)
	st := &station{t: b.t, id: newKey(b.t), name: name, site: site, up: make(chan *xfer.Session, 4), down: make(chan struct{}, 4), got: make(chan wire.Message, 256)}
	c := b.client(api.Access{URLs: tok.URLs, Pin: tok.Seeder})
	defer c.CloseIdle()
	q := request(st.id, tok.Secret, name)
	e, err := c.Enrol(b.t.Context(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := tok.CheckEnrolment(&e, &q); err != nil {
		b.t.Fatal(err)
	}
	st.enrol = e
	return st
}

// open makes the station's host without dialling.
func (st *station) open() {
	st.t.Helper()
	k, err := crypto.UnmarshalEd25519PrivateKey(st.id)
	if err != nil {
		st.t.Fatal(err)
	}
	h, err := xfer.New(xfer.Config{Key: k, Site: st.site, Name: st.name, Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(),
		Allow: func(peer.ID) bool { return true }, Handler: st})
	if err != nil {
		st.t.Fatal(err)
	}
	st.Host = h
	ctx, cancel := context.WithCancel(context.WithoutCancel(st.t.Context()))
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	st.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			st.t.Error(err)
		}
	})
}

// dial connects to the seeder and waits for the session.
func (st *station) dial(b *bed) {
	st.t.Helper()
	if st.Host == nil {
		st.open()
	}
	before := b.sessions.peer(st.peerID())
	if err := st.Dial(st.t.Context(), b.host.ID(), b.MeshAddr()); err != nil {
		st.t.Fatal(err)
	}
	select {
	case st.session = <-st.up:
	case <-time.After(patience):
		st.t.Fatalf("%s waits for its session in vain", st.name)
	}
	waitFor(st.t, st.name+" to be connected, as the seeder sees it too", func() bool {
		s := b.sessions.peer(st.peerID())
		return s != nil && s != before
	})
}

// wentDown waits for the end of the session.
func (st *station) wentDown() {
	st.t.Helper()
	select {
	case <-st.down:
	case <-time.After(patience):
		st.t.Fatalf("%s waits for the end of its session in vain", st.name)
	}
}

// patience ends a wait that would never end.
const patience = 20 * time.Second

func (st *station) SessionUp(s *xfer.Session)        { st.up <- s }
func (st *station) SessionDown(*xfer.Session, error) { st.down <- struct{}{} }
func (st *station) peerID() string                   { return api.PeerID(st.id.Public().(ed25519.PublicKey)) }
func (st *station) Message(_ *xfer.Session, m wire.Message) error {
	if d, ok := m.(*wire.Data); ok {
		c := *d
		c.Payload = bytes.Clone(d.Payload)
		m = &c
	}
	st.got <- m
	return nil
}

func (st *station) Chunk(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
	return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
}

// next waits for a message of one type and drops others.
func next[M wire.Message](st *station) M {
	st.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-st.got:
			if x, ok := m.(M); ok {
				return x
			}
		case <-timeout:
			st.t.Fatalf("%s waits for a %T in vain", st.name, *new(M))
		}
	}
}

// ask asks for the lease and returns the grant, or nil with the refusal.
func (st *station) ask(q wire.LeaseAsk) (*wire.LeaseGrant, *wire.LeaseRefuse) {
	st.t.Helper()
	st.session.Send(&q)
	timeout := time.After(patience)
	for {
		select {
		case m := <-st.got:
			switch m := m.(type) {
			case *wire.LeaseGrant:
				return m, nil
			case *wire.LeaseRefuse:
				return nil, m
			}
		case <-timeout:
			st.t.Fatalf("%s has no answer", st.name)
		}
	}
}

// get asks for a chunk and returns the answer.
func (st *station) get(id chunk.ID) (*wire.Data, *wire.Refuse) {
	st.t.Helper()
	st.session.Send(&wire.Get{Req: 7, ID: id})
	timeout := time.After(patience)
	for {
		select {
		case m := <-st.got:
			switch m := m.(type) {
			case *wire.Data:
				return m, nil
			case *wire.Refuse:
				return nil, m
			}
		case <-timeout:
			st.t.Fatalf("%s has no answer", st.name)
		}
	}
}

func wantCode(t testing.TB, what string, err error, code problem.Code) {
	t.Helper()
	if err == nil || problem.CodeOf(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}
