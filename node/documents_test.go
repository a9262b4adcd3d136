package node_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
)

func entry(kind wire.DocKind, name string, revision uint64, d trust.Signed) wire.DocEntry {
	return wire.DocEntry{Kind: kind, Name: name, Revision: revision, Digest: sha256.Sum256(d.Doc)}
}

func desired(st status.Node) uint64 {
	if st.Desired == nil {
		return 0
	}
	return st.Desired.Revision
}

// A document is fetched when a list names it and it is new; it is taken when it was asked for.
func TestDocumentsAreAskedFor(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(20, 1000)})
	first, second := s.policy(b, 1), s.policy(b, 2)
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(s.members[0].id, s.members[0].addr)
	asked := func() (n int) {
		p.change(func() { n = len(heard[*wire.GetDoc](p)) })
		return n
	}

	se.Send(&wire.Doc{Kind: wire.DocPolicy, Doc: second.Doc, Sig: second.Sig})
	p.fence(se, s.roster)
	if st := must(s.client(0).Node(t.Context())); st.Desired != nil {
		t.Fatalf("a document that nobody asked for was taken: %+v", st.Desired)
	}

	se.Send(&wire.Docs{Entries: []wire.DocEntry{
		{Kind: wire.DocManifest, Name: "app", Revision: 1, Digest: b.Digest}, // no policy names it
		{Kind: "recipe", Name: "app", Revision: 1, Digest: manifest.Digest{1}},
		entry(wire.DocRoster, "s1", 1, trust.Signed{Doc: []byte("another")}), // no newer than ours
	}})
	p.fence(se, s.roster)
	if n := asked(); n != 0 {
		t.Fatalf("%d documents were asked for that are unknown or old", n)
	}

	se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocPolicy, "all", 2, second)}})
	p.await("a question", func() bool { return len(heard[*wire.GetDoc](p)) == 1 })
	se.Send(&wire.Doc{Kind: wire.DocPolicy, Doc: second.Doc, Sig: second.Sig})
	s.await(0, "told what to do", func(st status.Node) bool { return desired(st) == 2 })

	// Now the manifest is known to be wanted, the older policy is not.
	se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocPolicy, "all", 1, first), {Kind: wire.DocManifest, Name: "app", Revision: 1, Digest: b.Digest}}})
	p.await("a second question", func() bool { return len(heard[*wire.GetDoc](p)) == 2 })
	p.change(func() {
		if q := heard[*wire.GetDoc](p)[1]; q.Digest != b.Digest {
			t.Errorf("asked for %v", q.Digest)
		}
	})
}

// A document that one neighbour announces and never hands out is fetched from another one.
func TestDocumentIsAskedOfAnother(t *testing.T) {
	s := newSite(t, 3)
	s.start(0)
	d := s.policy(s.bundle("1.0", 1, map[string][]byte{"f": random(21, 1000)}), 1)
	list := &wire.Docs{Entries: []wire.DocEntry{entry(wire.DocPolicy, "all", 1, d)}}
	mute, good := s.puppet(s.members[1].key, "n01"), s.puppet(s.members[2].key, "n02")
	a := mute.dial(s.members[0].id, s.members[0].addr)
	b := good.dial(s.members[0].id, s.members[0].addr)
	a.Send(list)
	mute.await("a question", func() bool { return len(heard[*wire.GetDoc](mute)) == 1 })
	b.Send(list)
	good.await("a question", func() bool { return len(heard[*wire.GetDoc](good)) == 1 })
	b.Send(&wire.Doc{Kind: wire.DocPolicy, Doc: d.Doc, Sig: d.Sig})
	s.await(0, "told what to do", func(st status.Node) bool { return desired(st) == 1 })
}

// Who is taken off the roster loses its session, and does not get another one.
func TestRosterRemovalEndsTheSession(t *testing.T) {
	s := newSite(t, 3)
	s.start(0)
	out, stays := s.puppet(s.members[1].key, "n01"), s.puppet(s.members[2].key, "n02")
	se := out.dial(s.members[0].id, s.members[0].addr)
	stays.dial(s.members[0].id, s.members[0].addr)
	r := must(roster.Open(&s.set, s.roster, s.now))
	r.Version, r.Nodes = 2, append(r.Nodes[:1:1], r.Nodes[2])
	d := s.sign(s.rosterKey, must(r.Encode()))
	se.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocRoster, "s1", 2, d)}})
	out.await("a question", func() bool { return len(heard[*wire.GetDoc](out)) == 1 })
	se.Send(&wire.Doc{Kind: wire.DocRoster, Doc: d.Doc, Sig: d.Sig})
	out.await("the end", func() bool { return out.downs == 1 && out.session == nil })
	_ = out.host.Dial(t.Context(), s.members[0].id, s.members[0].addr) // refused now or a moment later
	st := s.await(0, "left with one neighbour", func(st status.Node) bool { return st.Transfer.Peers == 1 })
	stays.change(func() {
		if stays.downs > 0 {
			t.Errorf("who stays on the roster was cut off: %+v", st)
		}
	})
	c := s.client(0)
	defer c.CloseIdle()
	if site := must(c.Status(t.Context())); len(site.Nodes) != 2 || site.Roster != 2 {
		t.Errorf("roster %d, nodes %+v", site.Roster, site.Nodes)
	}
}

// A stick without a policy, and the policy for it later: the bundle is here, and it is staged.
func TestPolicyAfterTheStick(t *testing.T) {
	s := newSite(t, 1)
	s.start(0)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(22, 1<<20)})
	c := s.client(0)
	defer c.CloseIdle()
	var stick bytes.Buffer
	if err := chunker.Export(t.Context(), b, chunker.Enclosed{}, &stick, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Import(t.Context(), &stick); err != nil {
		t.Fatal(err)
	}
	s.give(0, b, 1)
	s.awaitStaged(b, 0)
}

// A policy file that the disk spoilt neither lets the node forget what it was to do, nor lets an older revision in.
func TestDamagedPolicyFile(t *testing.T) {
	s := newSite(t, 1)
	s.start(0)
	one := s.bundle("1.0", 1, map[string][]byte{"f": random(23, 1000)})
	two := s.bundle("2.0", 2, map[string][]byte{"f": random(24, 1000)})
	s.staged(one, 1, 0)
	s.staged(two, 2, 0)
	s.members[0].stop()
	if err := os.WriteFile(filepath.Join(s.members[0].state, "policies", "all.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start(0)
	st := s.await(0, "up", func(st status.Node) bool { return st.Desired != nil && len(st.Alarms) > 0 })
	if st.Desired.Checksum != two.Digest || st.Alarms[0].Code != "E1102" {
		t.Errorf("wants %+v, alarms %+v", st.Desired, st.Alarms)
	}
	s.give(0, one, 1) // an old stick
	if st := must(s.client(0).Node(t.Context())); desired(st) != 2 {
		t.Errorf("an older revision was taken: %+v", st.Desired)
	}
	s.give(0, two, 2) // positive control: the same revision heals it
	s.awaitStaged(two, 0)
}

// A withdrawn policy is a document like any other: it ends the target, and the policy that it withdraws is not let in
// again.
func TestWithdrawnPolicy(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(25, 1000)})
	s.staged(b, 1, 0)
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(s.members[0].id, s.members[0].addr)
	gone := s.sign(s.operator, must(must(policy.NewDeletion("all", 2, s.now)).Encode()))
	tellDoc(p, se, wire.DocPolicy, "all", 2, gone)
	s.await(0, "free", func(st status.Node) bool { return st.Desired == nil && st.Reason == "NoPolicy" })
	s.give(0, b, 1)
	if st := must(s.client(0).Node(t.Context())); st.Desired != nil {
		t.Errorf("back from the dead: %+v", st.Desired)
	}
}

// A policy that excludes a node keeps every policy for the bundle from it, whatever their priority; one for another bundle
// does not.
func TestExcluded(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(26, 1000)})
	s.staged(b, 1, 0)
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(s.members[0].id, s.members[0].addr)
	handsOff := func(bundle string, revision uint64) trust.Signed {
		text := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: hands-off}\nspec:\n  bundleRef: {name: %s, version: \"1.0\", checksum: %q}\n"+
			"  targets: {selector: {matchLabels: {role: pos}}, exclude: {matchExpressions: [{key: thawed, operator: DoesNotExist}]}}\n  priority: -5\n", bundle, b.Digest)
		return s.sign(s.operator, must(must(policy.NewDocument([]byte(text), revision, s.now)).Encode()))
	}
	tellDoc(p, se, wire.DocPolicy, "hands-off", 1, handsOff("app", 1))
	s.await(0, "excluded", func(st status.Node) bool { return st.Desired == nil && st.Reason == "NoPolicy" })
	tellDoc(p, se, wire.DocPolicy, "hands-off", 2, handsOff("other", 2))
	s.await(0, "back", func(st status.Node) bool { return st.Desired != nil && st.Desired.Policy == "all" })
}
