package node_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// revoke signs a list of revoked bundles, made some seconds after the site.
func (s *site) revoke(k *signer.KeyFile, seconds int, bundles ...*chunker.Bundle) trust.Signed {
	s.t.Helper()
	at := s.now.Add(time.Duration(seconds) * time.Second)
	l := &revocation.List{Schema: revocation.Schema, Sequence: uint64(at.Unix()), Created: revocation.Timestamp(at), Bundles: []revocation.Bundle{}}
	for _, b := range bundles {
		l.Bundles = append(l.Bundles, revocation.Bundle{Bundle: "app", Version: b.Manifest.Version, Checksum: b.Digest, Revoked: l.Created, Reason: "tills freeze"})
	}
	return s.sign(k, must(l.Encode()))
}

// enclose imports a stick with a bundle, a policy for it, and a list of revoked bundles at node i.
func (s *site) enclose(i int, b *chunker.Bundle, with chunker.Enclosed) {
	s.t.Helper()
	var stick bytes.Buffer
	if err := chunker.Export(s.t.Context(), b, with, &stick, nil); err != nil {
		s.t.Fatal(err)
	}
	c := s.client(i)
	defer c.CloseIdle()
	if _, err := c.Import(s.t.Context(), &stick); err != nil {
		s.t.Fatal(err)
	}
}

// A site without WAN: a stick brings the list to one node, its neighbour hears of it over the LAN and, with the real
// executor, installs nothing that is revoked, not even when it is started again alone. What runs goes on and is shown as
// revoked. The control: with what both have written down taken away, the same policy installs.
func TestRevokedByANeighbour(t *testing.T) {
	s := newSite(t, 2)
	m := s.members[0]
	s.start(1) // without an installer
	s.installer, s.installConfig = s.realInstaller(m, "")
	s.start(0)
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")})
	installed := func(b *chunker.Bundle, also func(status.Node) bool) status.Node {
		t.Helper()
		return s.await(0, "running "+b.Manifest.Version, func(st status.Node) bool {
			return len(st.Installed) == 1 && st.Installed[0].Checksum == b.Digest && (also == nil || also(st))
		})
	}
	s.give(1, one, 1)
	installed(one, nil)

	refused := func() {
		t.Helper()
		st := installed(one, func(st status.Node) bool {
			return st.Desired != nil && st.Desired.Checksum == two.Digest && st.Reason == "BundleRevoked" && st.NextAttempt != nil
		})
		if st.Phase != status.Deferred || st.Code != "E2113" || !strings.Contains(st.Detail, "tills freeze") || s.current(m, "f") != "one\n" {
			t.Errorf("%+v, %q in force", st, s.current(m, "f"))
		}
	}
	list := s.revoke(s.operator, 1, two)
	s.enclose(1, two, chunker.Enclosed{Policies: []trust.Signed{s.policy(two, 2)}, Revocations: list})
	refused()
	s.await(0, "reporting it", func(status.Node) bool { return strings.Contains(s.said(0), "2.0 Deferred deferred BundleRevoked 0") })

	s.members[1].stop()
	s.members[0].stop()
	s.start(0)
	refused()

	// What runs is revoked too.
	s.enclose(0, two, chunker.Enclosed{Revocations: s.revoke(s.operator, 2, two, one)})
	st := installed(one, func(st status.Node) bool { return st.Installed[0].Revoked != "" })
	if st.Installed[0].Revoked != "tills freeze" || len(st.Alarms) == 0 || !strings.Contains(st.Alarms[0].Message, "app 1.0 runs here") {
		t.Errorf("%+v", st)
	}

	s.members[0].stop()
	for _, name := range []string{filepath.Join(m.state, "revoked.json"), filepath.Join(m.state, "revocations.json"), filepath.Join(s.dir, m.name+"-installer", "revoked.json")} {
		if err := os.Remove(name); err != nil && !strings.HasSuffix(filepath.Dir(name), "-installer") {
			t.Fatal(err)
		}
	}
	s.start(0)
	installed(two, nil)
}

// Lists that a neighbour offers: the newest that is genuine is taken and handed on; an older one is not asked for, one of
// another key costs the neighbour a strike; and neither takes back what is known.
func TestRevocationsAreVerified(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")})
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(s.members[0].id, s.members[0].addr)
	asked := func() int { p.mu.Lock(); defer p.mu.Unlock(); return len(heard[*wire.GetDoc](p)) }
	offer := func(sequence uint64, d trust.Signed) {
		t.Helper()
		se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocRevocations, "fleet", sequence, d)}})
	}
	hand := func(seconds int, d trust.Signed) {
		t.Helper()
		before := asked()
		offer(uint64(s.now.Unix())+uint64(seconds), d)
		p.await("a question", func() bool { return len(heard[*wire.GetDoc](p)) > before })
		se.Send(&wire.Doc{Kind: wire.DocRevocations, Doc: d.Doc, Sig: d.Sig})
	}
	listed := func(seconds int) {
		t.Helper()
		p.await("the list in its list", func() bool {
			for _, l := range heard[*wire.Docs](p) {
				for _, e := range l.Entries {
					if e.Kind == wire.DocRevocations && e.Revision == uint64(s.now.Unix())+uint64(seconds) {
						return true
					}
				}
			}
			return false
		})
	}
	known := func() *revocation.List {
		t.Helper()
		return must(revocation.Parse(must(os.ReadFile(filepath.Join(s.members[0].state, "revoked.json")))))
	}
	hand(5, s.revoke(s.operator, 5, one))
	listed(5)

	before := asked()
	offer(uint64(s.now.Unix())+4, s.revoke(s.operator, 4)) // older: it does not even ask
	p.fence(se, s.roster)
	if n := asked(); n != before {
		t.Errorf("asked for an older list: %d questions", n-before)
	}
	hand(9, s.revoke(s.release, 9, two))
	s.await(0, "refusing it", func(st status.Node) bool {
		return len(st.Alarms) > 0 && st.Alarms[0].Code == "E2102"
	})
	if l := known(); l.Find(one.Digest) == nil || l.Find(two.Digest) != nil {
		t.Errorf("%+v", l)
	}
	// A newer list that was made without knowing of the first does not take it back.
	hand(10, s.revoke(s.operator, 10, two))
	listed(10)
	if l := known(); l.Find(one.Digest) == nil || l.Find(two.Digest) == nil || l.Sequence != uint64(s.now.Unix())+10 {
		t.Errorf("%+v", l)
	}
}
