package seeder

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// published is a site s1 with two nodes that the policy selects, and a bundle.
func published(t *testing.T) (b *bed, x manifest.Catalog, a, c *station) {
	t.Helper()
	b = start(t, nil)
	bundle := b.bundle("1.0", 1, b.release)
	b.push(bundle, -1)
	b.site("s1")
	a, c = b.join("s1", "a", api.TokenSpec{}), b.join("s1", "c", api.TokenSpec{})
	if _, err := b.admin.PutPolicy(t.Context(), b.policy(bundle, 1, bundle.Digest, b.operator)); err != nil {
		t.Fatal(err)
	}
	return b, *bundle.Catalog(), a, c
}

// The documents of a site arrive, and every one verifies with the trust set of the enrolment.
func TestDocuments(t *testing.T) {
	b, _, a, _ := published(t)
	a.dial(b)
	set := &a.enrol.Trust
	kinds := map[wire.DocKind]int{}
	for _, e := range next[*wire.Docs](a).Entries {
		a.session.Send(&wire.GetDoc{Digest: e.Digest})
		d := next[*wire.Doc](a)
		s := trust.Signed{Doc: d.Doc, Sig: d.Sig}
		var err error
		switch e.Kind {
		case wire.DocRoster:
			var r *roster.Roster
			if r, err = roster.Open(set, s, time.Now()); err == nil && (r.Version != e.Revision || len(r.Nodes) != 2) {
				t.Errorf("roster %+v", r)
			}
		case wire.DocPolicy:
			_, _, err = policy.Open(set, s, time.Now())
		case wire.DocManifest:
			_, _, err = set.OpenManifest(s, time.Now())
		}
		if err != nil || manifest.DigestOf(d.Doc) != e.Digest || d.Kind != e.Kind {
			t.Errorf("%+v: %v", e, err)
		}
		kinds[e.Kind]++
	}
	if kinds[wire.DocRoster] != 1 || kinds[wire.DocPolicy] != 1 || kinds[wire.DocManifest] != 1 {
		t.Errorf("documents: %v", kinds)
	}
	// A site whose nodes no policy selects gets its roster only; a withdrawn policy reaches everybody.
	b.site("s2")
	z := b.join("s2", "z", api.TokenSpec{Labels: map[string]string{"role": "office"}})
	z.dial(b)
	if d := next[*wire.Docs](z); len(d.Entries) != 1 || d.Entries[0].Kind != wire.DocRoster {
		t.Errorf("site without a policy: %+v", d)
	}
	del, err := policy.NewDeletion("pos", 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := del.Encode()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := b.operator.Sign(t.Context(), doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.admin.PutPolicy(t.Context(), trust.Signed{Doc: doc, Sig: sig}); err != nil {
		t.Fatal(err)
	}
	for _, st := range []*station{a, z} {
		if d := next[*wire.Docs](st); len(d.Entries) != 2 || d.Entries[1].Kind != wire.DocPolicy || d.Entries[1].Revision != 2 {
			t.Errorf("after the withdrawal %s has %+v", st.name, d)
		}
	}
}

// Chunks go to the lease holder only, are what they should be, and are counted.
func TestChunksAndAccounts(t *testing.T) {
	b, cat, a, c := published(t)
	a.dial(b)
	c.dial(b)
	id := cat.Chunks[0].ID
	if _, r := a.get(id); r == nil || r.Reason != wire.ReasonNoLease {
		t.Fatalf("without a lease: %+v", r)
	}
	if g, _ := a.ask(wire.LeaseAsk{Nonce: 1, Active: true}); g == nil || g.Split || g.Nonce != 1 || g.TTLMillis != 6000 {
		t.Fatalf("grant %+v", g)
	}
	g, r := c.ask(wire.LeaseAsk{Nonce: 2, Active: true})
	if g != nil || r.Holder != a.peerID() || r.RetryMillis <= 0 {
		t.Fatalf("a second lease: %+v %+v", g, r)
	}
	if _, r := c.get(id); r == nil || r.Reason != wire.ReasonNoLease {
		t.Fatalf("without a lease: %+v", r)
	}
	var payload int64
	zstd := 0
	fetch := func(ref manifest.ChunkRef) {
		t.Helper()
		d, _ := a.get(ref.ID)
		if d == nil {
			t.Fatalf("chunk %s refused", ref.ID)
		}
		plain, err := encoding.Decode(encoding.Kind(d.Encoding), ref.Size, d.Payload)
		if err != nil || chunk.Sum(plain) != ref.ID {
			t.Fatalf("chunk %s: %v", ref.ID, err)
		}
		payload += int64(len(d.Payload))
		if encoding.Kind(d.Encoding) == encoding.Zstd {
			zstd++
		}
	}
	for _, ref := range cat.Chunks {
		fetch(ref)
	}
	if zstd == 0 || zstd == len(cat.Chunks) {
		t.Errorf("%d of %d chunks travelled as zstd: want the text ones", zstd, len(cat.Chunks))
	}
	fetch(cat.Chunks[1]) // once more
	if _, r := a.get(chunk.Sum([]byte("nobody has it"))); r == nil || r.Reason != wire.ReasonNotHeld {
		t.Errorf("unknown chunk: %+v", r)
	}
	check := func(when string) {
		t.Helper()
		s, err := b.admin.Site(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		w := s.WAN
		if w.Payload != payload || w.Needed != cat.Bytes() || w.Duplicate != cat.Chunks[1].Size || w.Plain != w.Needed+w.Duplicate {
			t.Errorf("%s: %+v, want payload %d, needed %d, duplicate %d", when, w, payload, cat.Bytes(), cat.Chunks[1].Size)
		}
	}
	check("while it runs")
	b.stop()
	b.run()
	check("after a restart")
}

// The holder's death frees the lease at once; a split LAN gets a second one, which is counted.
func TestLeases(t *testing.T) {
	b, _, a, c := published(t)
	d := b.join("s1", "d", api.TokenSpec{WAN: roster.WANNever})
	for _, st := range []*station{a, c, d} {
		st.dial(b)
	}
	if _, r := d.ask(wire.LeaseAsk{Active: true}); r == nil {
		t.Fatal("a node that never uses the WAN has a lease")
	}
	ga, _ := a.ask(wire.LeaseAsk{Active: true})
	if ga == nil {
		t.Fatal("no lease for the first")
	}
	gc, _ := c.ask(wire.LeaseAsk{Active: true, Unreachable: a.peerID()})
	if gc == nil || !gc.Split {
		t.Fatalf("split: %+v", gc)
	}
	s, err := b.admin.Site(t.Context(), "s1")
	if err != nil || s.WAN.LeaseSplit != 1 || s.Uplink != "a" {
		t.Fatalf("%+v, uplink %s, %v", s.WAN, s.Uplink, err)
	}
	c.session.Send(&wire.LeaseRenew{Nonce: 3, Lease: gc.Lease, Active: true, SeesHolder: true})
	if r := next[*wire.LeaseRefuse](c); r.Nonce != 3 || r.Holder != a.peerID() {
		t.Fatalf("healed: %+v", r)
	}
	a.session.Send(&wire.LeaseRenew{Nonce: 4, Lease: ga.Lease, Active: true})
	if g := next[*wire.LeaseGrant](a); g.Lease != ga.Lease || g.Nonce != 4 {
		t.Fatalf("renewal: %+v", g)
	}
	a.session.End(errForeign)
	a.wentDown()
	waitFor(t, "the lease to be free", func() bool { return b.leases.primary("s1") == "" })
	if g, r := c.ask(wire.LeaseAsk{Active: true}); g == nil || g.Split {
		t.Fatalf("after the holder's death: %+v %+v", g, r)
	}
}

// Who is not on the roster has no session; who is removed loses it; who names another site or node has none.
func TestGate(t *testing.T) {
	var log lockedBuffer
	b := start(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	b.site("s1")
	a := b.join("s1", "a", api.TokenSpec{})
	b.join("s1", "c", api.TokenSpec{})
	a.dial(b)
	stranger := &station{t: t, id: newKey(t), name: "a", site: "s1", up: a.up, down: make(chan struct{}, 4), got: make(chan wire.Message, 4)}
	stranger.open()
	_ = stranger.Dial(t.Context(), b.host.ID(), b.MeshAddr()) // TLS 1.3 may let the dialler believe in it for a moment
	waitFor(t, "the stranger to be refused", func() bool { return strings.Contains(log.String(), "not on the roster") })
	if s := b.sessions.peer(stranger.peerID()); s != nil {
		t.Error("a stranger has a session")
	}
	liar := b.join("s1", "liar", api.TokenSpec{})
	liar.name = "a"
	liar.open()
	if err := liar.Dial(t.Context(), b.host.ID(), b.MeshAddr()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the liar to be refused", func() bool { return strings.Contains(log.String(), "names another site or node") })
	if s := b.sessions.peer(liar.peerID()); s != nil {
		t.Error("a node under another's name has a session")
	}
	if err := b.admin.RemoveNode(t.Context(), "s1", "a"); err != nil {
		t.Fatal(err)
	}
	a.wentDown()
	if err := a.Dial(t.Context(), b.host.ID(), b.MeshAddr()); err == nil {
		waitFor(t, "the removed node to be cut off", func() bool { return b.sessions.peer(a.peerID()) == nil })
	}
	if s, err := b.admin.Site(t.Context(), "s1"); err != nil || len(s.Nodes) != 2 || s.Roster != 5 {
		t.Errorf("%d nodes, roster %d, %v", len(s.Nodes), s.Roster, err)
	}
}

func (st *station) report(seq uint64, change func(*status.ReportBody)) status.Report {
	body := status.ReportBody{Site: st.site, Node: st.name, Seq: seq, Occurred: time.Now().UTC(), Phase: status.Installed, Outcome: "success", Reason: "Installed"}
	if change != nil {
		change(&body)
	}
	b, err := json.Marshal(body)
	if err != nil {
		st.t.Fatal(err)
	}
	return status.Report{Site: st.site, Node: st.name, Seq: seq, Body: b, Sig: ed25519.Sign(st.id, b)}
}

// Reports arrive once, through whichever node relays them, and only if their node signed them.
func TestReports(t *testing.T) {
	b, _, a, c := published(t)
	a.dial(b)
	good := c.report(1, nil)
	forged := good
	forged.Sig = ed25519.Sign(a.id, forged.Body)
	lies := c.report(3, func(r *status.ReportBody) { r.Seq = 2 })
	replay := c.report(1, nil)
	replay.Node, replay.Seq = "a", 9
	for _, r := range []status.Report{good, forged, lies, replay, good, a.report(1, nil)} {
		a.session.Send(&wire.Report{Report: r})
	}
	for _, want := range []string{"c", "c", "a"} { // the second one is an answer to a repetition
		if ack := next[*wire.ReportAck](a); ack.Node != want || ack.Seq != 1 || ack.Site != "s1" {
			t.Errorf("%+v", ack)
		}
	}
	p, err := b.admin.Reports(t.Context(), api.ReportQuery{})
	if err != nil || len(p.Reports) != 2 || p.Reports[0].Body.Node != "c" || p.Reports[1].Body.Node != "a" {
		t.Fatalf("%+v, %v", p, err)
	}
	first, err := b.admin.Reports(t.Context(), api.ReportQuery{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := b.admin.Reports(t.Context(), api.ReportQuery{Site: "s1", After: first.Next}); err != nil || len(rest.Reports) != 1 || rest.Reports[0].Body.Node != "a" {
		t.Errorf("second page: %+v, %v", rest, err)
	}
	// The machine is replaced; a late report of the old one still counts, and the new one begins at one again.
	if err := b.admin.RemoveNode(t.Context(), "s1", "c"); err != nil {
		t.Fatal(err)
	}
	fresh := b.join("s1", "c", api.TokenSpec{})
	for _, r := range []status.Report{c.report(2, nil), fresh.report(1, nil)} {
		a.session.Send(&wire.Report{Report: r})
	}
	next[*wire.ReportAck](a)
	next[*wire.ReportAck](a)
	if p, err := b.admin.Reports(t.Context(), api.ReportQuery{Node: "c"}); err != nil || len(p.Reports) != 3 {
		t.Errorf("%d reports of c, %v", len(p.Reports), err)
	}
	// Another site's report ends the session.
	b.site("s2")
	z := b.join("s2", "z", api.TokenSpec{})
	a.session.Send(&wire.Report{Report: z.report(1, nil)})
	a.wentDown()
}

// Statements of neighbours count from the lease holder only, and only for whom they name.
func TestStatements(t *testing.T) {
	clk := newClock(time.Now())
	b := start(t, func(c *Config) { c.Now = clk.now })
	b.site("s1")
	a, c := b.join("s1", "a", api.TokenSpec{}), b.join("s1", "c", api.TokenSpec{})
	a.dial(b)
	say := func(st *station, seq uint64, phase status.Phase) status.Node {
		return status.Node{APIVersion: status.APIVersion, Kind: "NodeStatus", Site: st.site, Node: st.name, PeerID: st.peerID(), Seq: seq, Phase: phase}
	}
	phase := func(name string) status.Phase {
		s, err := b.admin.Site(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range s.Nodes {
			if n.Node.Node == name {
				return n.Phase
			}
		}
		return ""
	}
	settle := func() { // the lane is in order: an answer means that all before it was taken
		a.session.Send(&wire.LeaseRenew{Nonce: 9, Lease: 1})
		next[*wire.LeaseRefuse](a)
	}
	if phase("c") != status.Pending {
		t.Fatalf("never heard of: %s", phase("c"))
	}
	a.session.Send(&wire.SiteState{Nodes: []status.Node{say(a, 1, status.Staged), say(c, 1, status.Staged)}})
	settle()
	if phase("a") != status.Staged || phase("c") != status.Pending {
		t.Errorf("without a lease: a %s, c %s", phase("a"), phase("c"))
	}
	g, _ := a.ask(wire.LeaseAsk{})
	wrong := say(c, 5, status.Installed)
	wrong.PeerID = a.peerID()
	a.session.Send(&wire.SiteState{Nodes: []status.Node{say(c, 3, status.Staged), say(c, 2, status.Staging), wrong}, Alive: []string{"c", "nobody"}})
	a.session.Send(&wire.LeaseRenew{Nonce: 10, Lease: g.Lease})
	next[*wire.LeaseGrant](a)
	if phase("c") != status.Staged {
		t.Errorf("with the lease: c %s", phase("c"))
	}
	f, err := b.admin.Status(t.Context())
	if err != nil || f.Nodes != 2 || f.Silent != 0 || f.Phases[status.Staged] != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	clk.set(clk.now().Add(3 * time.Minute))
	if f, err = b.admin.Status(t.Context()); err != nil || f.Silent != 1 { // a is connected
		t.Errorf("three minutes later %d are silent, %v", f.Silent, err)
	}
	b.stop()
	b.run()
	if f, err = b.admin.Status(t.Context()); err != nil || f.Silent != 2 || f.Phases[status.Staged] != 2 {
		t.Errorf("after a restart: %+v, %v", f, err)
	}
}

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
