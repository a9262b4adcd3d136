package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// quarantined is a site on whose first node the real executor has found that a kept release is not what was signed: it
// was to go back to it.
type quarantined struct {
	*site
	one, two, three *chunker.Bundle
	puppet          *puppet
	session         *xfer.Session
	file            string // of the kept release
}

func newQuarantined(t *testing.T, trusting bool, before ...func(state string)) *quarantined {
	q := &quarantined{site: newSite(t, 2)}
	q.installer, q.installConfig = q.realInstaller(q.members[0], "")
	q.trusting = trusting
	q.start(0)
	for i, b := range []**chunker.Bundle{&q.one, &q.two, &q.three} {
		version := fmt.Sprintf("%d.0", i+1)
		*b = q.bundle(version, uint64(i+1), map[string][]byte{"f": []byte(version + "\n")})
	}
	q.give(0, q.one, 1)
	q.installed(q.one)
	q.give(0, q.two, 2)
	q.installed(q.two)
	dirs := must(filepath.Glob(filepath.Join(q.root(q.members[0]), "app", "releases", "1.0-*")))
	if len(dirs) != 1 {
		t.Fatalf("%q", dirs)
	}
	q.file = filepath.Join(dirs[0], "f")
	q.fine(os.WriteFile(q.file, []byte("9.0\n"), 0o644))
	for _, f := range before {
		f(q.members[0].state)
	}
	q.connect()
	tell(q.puppet, q.session, 5, q.order(q.operator, q.two, order.Rollback, 5, nil))
	q.await(0, "refusing", func(status.Node) bool { return strings.Contains(q.said(0), "verification_failure ChecksumMismatch 5") })
	return q
}

func (q *quarantined) connect() {
	q.puppet = q.site.puppet(q.members[1].key, "n01")
	q.session = q.puppet.dial(q.members[0].id, q.members[0].addr)
}

func (q *quarantined) installed(b *chunker.Bundle) {
	q.t.Helper()
	q.await(0, "installed "+b.Manifest.Version, func(st status.Node) bool {
		return st.Phase == status.Installed && len(st.Installed) == 1 && st.Installed[0].Checksum == b.Digest
	})
}

// held waits until the next bundle is held back, and checks that it is.
func (q *quarantined) held(b *chunker.Bundle) status.Node {
	q.t.Helper()
	st := q.await(0, "held", func(st status.Node) bool {
		return st.Desired != nil && st.Desired.Checksum == b.Digest && st.Phase == status.Scheduled && st.Reason == "Quarantined"
	})
	if st.Quarantined == nil || st.Quarantine != "ChecksumMismatch (E2101) of app 1.0" || st.NextAttempt == nil || st.Code != "E2114" ||
		!slices.ContainsFunc(st.Alarms, func(a status.Alarm) bool { return a.Code == "E2114" }) {
		q.t.Fatalf("%+v", st)
	}
	if got := q.current(q.members[0], "f"); got != "2.0\n" {
		q.t.Fatalf("%q in force", got)
	}
	return st
}

// words are what a node's reports say of its quarantine, each once: its identity, and by whom it was ended.
func (q *quarantined) words() (out []string) {
	box := filepath.Join(q.members[0].state, "outbox")
	for _, e := range must(os.ReadDir(box)) {
		if b := bodyOf(q.t, filepath.Join(box, e.Name())); b.Quarantine != nil {
			if w := strings.TrimSpace(b.Quarantine.ID + " " + b.Quarantine.By); !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// A kept release was changed on the disk. The node holds the next bundle back, over a restart too, until the bytes are
// right again, and then goes on by itself.
func TestQuarantineEndsByACheck(t *testing.T) {
	q := newQuarantined(t, false)
	q.give(0, q.three, 3)
	id := q.held(q.three).Quarantined.ID

	q.members[0].stop()
	q.start(0)
	st := q.await(0, "checked", func(st status.Node) bool { return st.Quarantined != nil && st.Quarantined.Found != "" })
	if st.Quarantined.ID != id || !strings.Contains(st.Quarantined.Found, "is damaged") {
		t.Fatalf("%+v", st.Quarantined)
	}
	q.held(q.three)

	q.members[0].stop()
	q.fine(os.WriteFile(q.file, []byte("1.0\n"), 0o644))
	q.start(0) // which has it checked at once
	q.installed(q.three)
	st = q.await(0, "said", func(status.Node) bool { return len(q.words()) == 2 })
	if got := q.words(); st.Quarantine != "" || got[0] != id || got[1] != id+" check" {
		t.Errorf("%+v %q", st, got)
	}
	if got := q.current(q.members[0], "f"); got != "3.0\n" {
		t.Errorf("%q in force", got)
	}
}

// A disk that refuses the quarantine does not make the node forget it; it is written when the disk takes it, and is as it
// was after a start.
func TestQuarantineThatCannotBeWritten(t *testing.T) {
	var file string
	q := newQuarantined(t, false, func(state string) {
		file = filepath.Join(state, "quarantine.json")
		if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	q.give(0, q.three, 3)
	id := q.held(q.three).Quarantined.ID
	q.fine(os.RemoveAll(file))
	q.await(0, "written", func(status.Node) bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), id) && strings.Contains(string(b), `"told":true`)
	})
	q.members[0].stop()
	// One that cannot be read is one more reason not to trust oneself; what is looked at then is what is there.
	q.fine(os.WriteFile(file, []byte("decayed"), 0o600))
	q.start(0)
	st := q.await(0, "under another quarantine", func(st status.Node) bool { return st.Quarantined != nil && st.Quarantined.Found != "" })
	if st.Quarantined.ID == id || st.Quarantined.Code != "E4103" || !strings.Contains(st.Quarantined.Found, "is damaged") {
		t.Errorf("%+v", st.Quarantined)
	}
}

// The positive control: without the quarantine the next bundle is installed on a machine whose bytes have changed.
func TestWithoutQuarantineTheNextIsInstalled(t *testing.T) {
	q := newQuarantined(t, true)
	q.give(0, q.three, 3)
	q.installed(q.three)
	if got := string(must(os.ReadFile(q.file))); got != "9.0\n" {
		t.Errorf("the kept release says %q", got)
	}
}

// A person's signed order ends the quarantine that it names, and no other; nobody else's does.
func TestQuarantineEndsByAnOrder(t *testing.T) {
	q := newQuarantined(t, false)
	q.give(0, q.three, 3)
	id := q.held(q.three).Quarantined.ID
	release := func(id string) func(*order.Order) { return func(o *order.Order) { o.Quarantine = id } }
	kept := func() int { return len(must(os.ReadDir(filepath.Join(q.members[0].state, "orders")))) }
	for i, c := range []struct {
		what string
		d    trust.Signed
		kept int
	}{
		{"of a stranger", q.order(key(t, "stranger"), q.one, order.Release, 6, release(id)), 1},
		{"of the seeder", q.order(q.rosterKey, q.one, order.Release, 7, release(id)), 1},
		{"for another quarantine", q.order(q.operator, q.one, order.Release, 8, release("00112233445566ff")), 2},
		{"for a neighbour", q.order(q.operator, q.one, order.Release, 9, func(o *order.Order) { o.Quarantine, o.Targets.Nodes = id, []string{"n01"} }), 3},
	} {
		tell(q.puppet, q.session, uint64(6+i), c.d)
		q.puppet.fence(q.session, q.roster)
		if got := kept(); got != c.kept {
			t.Errorf("%s: %d orders kept", c.what, got)
		}
		q.held(q.three)
	}
	tell(q.puppet, q.session, 10, q.order(q.operator, q.one, order.Release, 10, release(id)))
	q.installed(q.three)
	q.await(0, "said", func(status.Node) bool { return slices.Contains(q.words(), id+" order 10") })
	// The rollback that was ordered before is not undone or redone by it, and the executor heard nothing of the release.
	if s := q.said(0); strings.Contains(s, " 10") {
		t.Errorf("%s", s)
	}
}

// Under quarantine the way back is open; and what is asked for no more holds nothing up.
func TestQuarantineLetsANodeGoBack(t *testing.T) {
	s := newSite(t, 2)
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	q := &quarantined{site: s}
	one, two := s.bundle("1.0", 1, map[string][]byte{"f": []byte("1.0\n")}), s.bundle("2.0", 2, map[string][]byte{"f": []byte("2.0\n")})
	three := s.bundle("3.0", 3, map[string][]byte{"f": []byte("3.0\n")})
	s.give(0, one, 1)
	q.installed(one)
	s.give(0, two, 2)
	q.installed(two)
	// A policy that calls 3.0 by the name of 9.0.
	text := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: all}\nspec:\n  bundleRef: {name: app, version: \"9.0\", checksum: %q}\n"+
		"  targets: {selector: {matchLabels: {role: pos}}}\n", three.Digest)
	s.hand(0, three, s.sign(s.operator, must(must(policy.NewDocument([]byte(text), 3, s.now)).Encode())))
	s.await(0, "under quarantine", func(st status.Node) bool { return st.Phase == status.Quarantined && st.Quarantined != nil })
	q.connect()
	tell(q.puppet, q.session, 5, s.order(s.operator, two, order.Rollback, 5, nil))
	st := s.await(0, "back", func(st status.Node) bool { return len(st.Installed) == 1 && st.Installed[0].Checksum == one.Digest })
	if got := s.current(s.members[0], "f"); got != "1.0\n" || st.Quarantined == nil {
		t.Errorf("%q in force: %+v", got, st)
	}
	s.give(0, three, 4)
	q.installed(three)
}

// A chunk rots between staging and the install. The executor finds it, the node holds itself, gets the chunk from a
// neighbour, is checked, and goes on.
func TestQuarantineOverADamagedChunk(t *testing.T) {
	s := newSite(t, 2)
	bin, config := s.realInstaller(s.members[0], "")
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(50, 1<<20)})
	chunk := filepath.Join(s.members[0].state, "chunks", store.Name(b.Index.Files[0].Chunks[0].ID))
	s.script(fmt.Sprintf("test -e spoilt || { touch spoilt; printf x | dd of=%s bs=1 seek=1000 conv=notrunc 2>/dev/null; }\nexec %s \"$@\"\n", chunk, bin[0]))
	s.installConfig = config
	s.start(0)
	real := s.installer
	s.installer = nil
	s.start(1)
	s.installer = real
	s.give(1, b, 1)
	q := &quarantined{site: s}
	q.installed(b)
	s.await(0, "said", func(status.Node) bool { return len(q.words()) == 2 })
	if got := q.words(); !strings.HasSuffix(got[1], " check") || !strings.Contains(s.said(0), "verification_failure ChunkCorrupt") {
		t.Errorf("%q\n%s", got, s.said(0))
	}
}
