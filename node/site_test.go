package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/node"
)

// site is a site of real nodes on loopback, enrolled by hand: no seeder anywhere.
type site struct {
	t                            *testing.T
	dir                          string
	release, operator, rosterKey *signer.KeyFile
	set                          trust.Set
	seeder                       peer.ID
	seederKey                    crypto.PrivKey
	seederAddr                   string // of its mesh listener; nobody listens at the first one
	gossipKey                    []byte
	members                      []member
	roster                       trust.Signed
	now                          time.Time
	clock                        map[string]func() time.Time
	quota                        map[string]int64
	space                        map[string]func() (node.Space, error)
	installer                    []string
	installConfig                string
	handoff                      string
	undefended                   []status.StrikeKind // what the nodes do without
	trusting                     bool                // they have no quarantine
	schedule                     string              // of the policies: "{maintenanceWindow: ...}"
}

type member struct {
	name, state, socket string
	key                 crypto.PrivKey
	id                  peer.ID
	gossip              string
	addr                netip.AddrPort // of the chunk exchange, once started
	stop                func()
}

func key(t *testing.T, name string) *signer.KeyFile {
	t.Helper()
	priv, _, _, err := signer.Generate(name, name+"@example.com")
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// freeAddr finds a loopback port for gossip: neighbours must know it from the roster. The kernel gives ports of this range
// to nobody by itself, so that it stays free until the node listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+mrand.IntN(20_000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		l.Close()
		if err == nil {
			u.Close()
			return addr
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return ""
}

func newSite(t *testing.T, nodes int) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), release: key(t, "release"), operator: key(t, "operator"), rosterKey: key(t, "roster"),
		gossipKey: make([]byte, 32), now: time.Now().UTC().Truncate(time.Second), clock: map[string]func() time.Time{}}
	rand.Read(s.gossipKey)
	for role, k := range map[*trust.RoleKeys]*signer.KeyFile{&s.set.Release: s.release, &s.set.Policy: s.operator, &s.set.Roster: s.rosterKey} {
		rk, err := trust.NewRoleKeys(1, k.Public())
		if err != nil {
			t.Fatal(err)
		}
		*role = rk
	}
	s.seederKey, s.seeder = newKey(t)
	s.seederAddr = "127.0.0.1:1"
	r := roster.Roster{Schema: roster.Schema, Site: "s1", Version: 1, Created: s.now, Timezone: "UTC", Nodes: []roster.Node{}}
	for i := range nodes {
		k, id := newKey(t)
		m := member{name: fmt.Sprintf("n%02d", i), key: k, id: id, gossip: freeAddr(t)}
		m.state, m.socket = filepath.Join(s.dir, m.name), filepath.Join(s.dir, m.name+".sock")
		r.Nodes = append(r.Nodes, roster.Node{Name: m.name, PeerID: id.String(), Labels: map[string]string{"role": "pos"}, WAN: roster.WANAllow, Addrs: []string{m.gossip}})
		s.members = append(s.members, m)
	}
	s.roster = s.sign(s.rosterKey, must(r.Encode()))
	for i := range s.members {
		s.enrol(&s.members[i])
	}
	return s
}

func newKey(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (s *site) sign(k *signer.KeyFile, doc []byte) trust.Signed {
	return trust.Signed{Doc: doc, Sig: must(k.Sign(s.t.Context(), doc))}
}

func (s *site) enrol(m *member) {
	s.t.Helper()
	e := enrol.Enrolment{Site: "s1", Node: m.name, Seeder: s.seeder.String(), SeederAddrs: []string{s.seederAddr}, SeederURLs: []string{"https://127.0.0.1:1"},
		GossipKey: s.gossipKey, Trust: s.set, Roster: s.roster}
	if err := node.WriteEnrolment(m.state, m.key, e); err != nil {
		s.t.Fatal(err)
	}
}

// start runs a member until stop or the end of the test.
func (s *site) start(i int) {
	s.t.Helper()
	m := &s.members[i]
	cfg := node.Config{State: m.state, Socket: m.socket, ListenPeer: "127.0.0.1:0", ListenGossip: m.gossip,
		Facts: &manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}, Installer: s.installer, InstallConfig: s.installConfig, Handoff: s.handoff, QuotaBytes: s.quota[m.name], Now: s.clock[m.name], Space: s.space[m.name]}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", m.name)
	}
	node.Undefended(&cfg, s.undefended...)
	if s.trusting {
		node.Trusting(&cfg)
	}
	n, err := node.New(cfg, log)
	if err != nil {
		s.t.Fatal(err)
	}
	m.addr = n.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var stopped bool
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("%s: %v", m.name, err)
		}
	}
	s.t.Cleanup(m.stop)
}

func (s *site) client(i int) *api.NodeClient { return must(api.NewNodeClient(s.members[i].socket)) }

// await polls a node's own statement until it fits.
func (s *site) await(i int, what string, fits func(status.Node) bool) status.Node {
	s.t.Helper()
	c := s.client(i)
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	for {
		st, err := c.Node(ctx)
		if err == nil && fits(st) {
			return st
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: never %s: %+v (%v)", s.members[i].name, what, st, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// bundle builds a signed bundle of n random files.
func (s *site) bundle(version string, seq uint64, files map[string][]byte) *chunker.Bundle {
	s.t.Helper()
	from := filepath.Join(s.dir, "tree-"+version)
	for name, b := range files {
		p := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	return must(chunker.Build(s.t.Context(), chunker.BuildOptions{Name: "app", Version: version, Sequence: seq,
		Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64", Format: manifest.FormatFiles},
		From:   from, Out: filepath.Join(s.dir, "app-"+version+".bundle"), Created: s.now, Signers: []signer.Signer{s.release}}))
}

// policy asks every node with role=pos for a bundle.
func (s *site) policy(b *chunker.Bundle, revision uint64) trust.Signed {
	s.t.Helper()
	return s.policyOf("all", b, revision, "")
}

// policyOf is one with a name, and with more lines in its spec.
func (s *site) policyOf(name string, b *chunker.Bundle, revision uint64, more string) trust.Signed {
	s.t.Helper()
	text := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: %s}\nspec:\n  bundleRef: {name: app, version: %q, checksum: %q}\n  targets: {selector: {matchLabels: {role: pos}}}\n%s",
		name, b.Manifest.Version, b.Digest, more)
	if s.schedule != "" {
		text += "  schedule: " + s.schedule + "\n"
	}
	return s.sign(s.operator, must(must(policy.NewDocument([]byte(text), revision, s.now)).Encode()))
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := mrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

// A stick goes into one node of a site that has no WAN at all; every node ends up with the whole bundle, and no node
// got a byte from anywhere but its neighbours.
func TestStickFeedsASiteWithoutWAN(t *testing.T) {
	s := newSite(t, 4)
	b := s.bundle("1.0", 1, map[string][]byte{"a/big.bin": random(1, 8<<20), "b.txt": []byte("hello\n")})
	var stick bytes.Buffer
	if err := chunker.Export(t.Context(), b, chunker.Enclosed{Policies: []trust.Signed{s.policy(b, 1)}}, &stick, nil); err != nil {
		t.Fatal(err)
	}
	for i := range s.members {
		s.start(i)
	}
	c := s.client(0)
	defer c.CloseIdle()
	res, err := c.Import(t.Context(), bytes.NewReader(stick.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if res.Policies != 1 || res.Added == 0 || res.Checksum != b.Digest {
		t.Fatalf("import: %+v", res)
	}
	var lan int64
	for i := range s.members {
		st := s.await(i, "staged", func(st status.Node) bool { return st.Phase == status.Deferred && st.Reason == "InstallerMissing" })
		if st.Transfer.FromWAN != 0 || st.Transfer.ChunksHave != st.Transfer.Chunks {
			t.Errorf("%s: %+v", st.Node, st.Transfer)
		}
		lan += st.Transfer.FromLAN
		if st.NextAttempt == nil || st.Outbox == 0 {
			t.Errorf("%s: no next attempt or no report kept: %+v", st.Node, st)
		}
	}
	if want := 3 * (b.Manifest.TotalBytes + b.Manifest.Index.Size); lan < want || lan > want*102/100 {
		t.Errorf("%d bytes crossed the LAN, want %d to 2 %% more", lan, want)
	}
	// The oracle: every store is clean.
	for i := range s.members {
		s.members[i].stop()
		st := must(store.Open(filepath.Join(s.members[i].state, "chunks"), store.Options{}))
		r, err := st.Fsck(t.Context(), false, nil)
		st.Close()
		if err != nil || !r.Clean() {
			t.Errorf("%s: fsck %+v %v", s.members[i].name, r, err)
		}
	}
}

// staged brings a bundle into the site by a stick at node 0 and waits until every started node has staged it.
func (s *site) staged(b *chunker.Bundle, revision uint64, nodes ...int) {
	s.t.Helper()
	s.give(nodes[0], b, revision)
	s.awaitStaged(b, nodes...)
}

// give imports a stick with the bundle and a policy for it at node i.
func (s *site) give(i int, b *chunker.Bundle, revision uint64) {
	s.t.Helper()
	s.hand(i, b, s.policy(b, revision))
}

// hand imports a stick with the bundle and a policy at node i.
func (s *site) hand(i int, b *chunker.Bundle, p trust.Signed) {
	s.t.Helper()
	var stick bytes.Buffer
	if err := chunker.Export(s.t.Context(), b, chunker.Enclosed{Policies: []trust.Signed{p}}, &stick, nil); err != nil {
		s.t.Fatal(err)
	}
	c := s.client(i)
	defer c.CloseIdle()
	if _, err := c.Import(s.t.Context(), &stick); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) awaitStaged(b *chunker.Bundle, nodes ...int) {
	s.t.Helper()
	for _, i := range nodes {
		s.await(i, "staged", func(st status.Node) bool {
			return st.Desired != nil && st.Desired.Checksum == b.Digest && st.Reason == "InstallerMissing" && st.Transfer.ChunksHave == st.Transfer.Chunks
		})
	}
}

// A clock that is off by decades, either way, neither keeps a node out of the mesh nor from staging what is signed.
func TestWrongClocks(t *testing.T) {
	s := newSite(t, 3)
	shifted := func(year int) func() time.Time {
		d := time.Until(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		return func() time.Time { return time.Now().Add(d) }
	}
	s.clock["n01"], s.clock["n02"] = shifted(1970), shifted(2099)
	for i := range s.members {
		s.start(i)
	}
	s.staged(s.bundle("1.0", 1, map[string][]byte{"f": random(2, 1<<20)}), 1, 0, 1, 2)
}

// A chunk that rots on a node's disk is never served; it is dropped, reported and fetched again from a neighbour.
func TestDamagedChunkIsFetchedAgain(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	s.start(1)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(3, 2<<20)})
	s.staged(b, 1, 0, 1)
	ref := b.Index.Files[0].Chunks[1]
	file := filepath.Join(s.members[1].state, "chunks", store.Name(ref.ID))
	raw := must(os.ReadFile(file))
	raw[1000] ^= 1
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	c := s.client(1)
	defer c.CloseIdle()
	if got, err := c.GetChunk(t.Context(), ref.ID); err == nil {
		t.Fatalf("a damaged chunk of %d bytes was served", len(got))
	}
	st := s.await(1, "whole again", func(st status.Node) bool {
		return len(st.Alarms) > 0 && st.Transfer.ChunksHave == st.Transfer.Chunks && st.Transfer.Chunks > 0
	})
	if st.Alarms[0].Code != "E2103" {
		t.Errorf("alarms: %+v", st.Alarms)
	}
	got, err := c.GetChunk(t.Context(), ref.ID)
	if err != nil || !bytes.Equal(got, append(raw[:1000:1000], append([]byte{raw[1000] ^ 1}, raw[1001:]...)...)) {
		t.Errorf("after healing: %d bytes, %v", len(got), err)
	}
}

// A node that was enrolled after the others started is let in as soon as gossip has brought the newer roster.
func TestLateNodeIsLetIn(t *testing.T) {
	s := newSite(t, 3)
	all := s.roster
	r := must(roster.Open(&s.set, all, s.now))
	// The first two start with a roster that does not know the third.
	old := *r
	old.Version, old.Nodes = 1, r.Nodes[:2]
	newer := *r
	newer.Version = 2
	s.roster = s.sign(s.rosterKey, must(old.Encode()))
	s.enrol(&s.members[0])
	s.enrol(&s.members[1])
	s.start(0)
	s.start(1)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(4, 1<<20)})
	s.staged(b, 1, 0, 1)
	s.roster = s.sign(s.rosterKey, must(newer.Encode()))
	s.enrol(&s.members[2])
	s.start(2)
	s.awaitStaged(b, 2)
	c := s.client(0)
	defer c.CloseIdle()
	st := must(c.Status(t.Context()))
	if st.Roster != 2 || len(st.Nodes) != 3 {
		t.Errorf("node 0 follows roster %d with %d nodes", st.Roster, len(st.Nodes))
	}
}

// A second version costs the LAN only what has changed, and a node restarted in between keeps what it had.
func TestSecondVersionReusesTheFirst(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	s.start(1)
	big := random(5, 4<<20)
	s.staged(s.bundle("1.0", 1, map[string][]byte{"big": big, "small": random(6, 1000)}), 1, 0, 1)
	s.members[1].stop()
	s.start(1)
	b := s.bundle("2.0", 2, map[string][]byte{"big": big, "small": random(7, 300<<10)})
	s.staged(b, 2, 0, 1)
	st := s.await(1, "told", func(st status.Node) bool { return st.Transfer.Reused >= int64(len(big)) })
	if st.Transfer.FromLAN > 400<<10 {
		t.Errorf("second version: %+v", st.Transfer)
	}
}
