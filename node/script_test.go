package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// script makes an installer of a shell script. It runs in the test's directory.
func (s *site) script(text string) {
	s.t.Helper()
	name := filepath.Join(s.dir, "installer.sh")
	if err := os.WriteFile(name, []byte("#!/bin/sh\ncd "+s.dir+"\n"+text), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.installer = []string{"/bin/sh", name} // not the file itself: it may still be open for writing in a child
}

func result(fields string) string {
	return fmt.Sprintf(`{"apiVersion":"meshctl.io/v1","kind":"InstallResult",%s}`, fields)
}

// An installer that names a chunk which is whole by the time we look does not leave the bundle staging for ever.
func TestInstallerNamesAGoodChunk(t *testing.T) {
	s := newSite(t, 1)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(30, 1<<20)})
	s.script("echo '" + result(fmt.Sprintf(`"outcome":"deferred","phase":"Deferred","reason":"NotStaged","chunk":%q`, b.Index.Files[0].Chunks[0].ID)) + "'\n")
	s.start(0)
	s.give(0, b, 1)
	calm := 0 // looks in a row; staging would go on for ever
	s.await(0, "waiting for the next attempt", func(st status.Node) bool {
		if calm++; st.Outbox < 4 || st.Phase != status.Staged && st.Phase != status.Deferred || st.NextAttempt == nil || st.NextAttempt.Before(time.Now()) {
			calm = 0
		}
		return calm == 5
	})
}

// What the installer did counts for what it was asked for, even if the target has changed meanwhile.
func TestTargetChangesWhileInstalling(t *testing.T) {
	s := newSite(t, 1)
	one := s.bundle("1.0", 1, map[string][]byte{"f": random(31, 1000)})
	two := s.bundle("2.0", 2, map[string][]byte{"f": random(32, 1000)})
	// The first call blocks until told and then dies without an answer; the second one defers.
	s.script("if mkdir called 2>/dev/null; then while [ ! -e go ]; do sleep 0.05; done; exit 1; fi\n" +
		"touch second; while [ ! -e end ]; do sleep 0.05; done\n" +
		"echo '" + result(`"outcome":"rolled_back","phase":"RolledBack","reason":"HealthCheck"`) + "'\n")
	s.start(0)
	t.Cleanup(func() { // before the node is stopped, which waits for the script
		for _, name := range []string{"go", "end"} {
			_ = os.WriteFile(filepath.Join(s.dir, name), nil, 0o644)
		}
	})
	s.give(0, one, 1)
	s.await(0, "installing", func(st status.Node) bool {
		_, err := os.Stat(filepath.Join(s.dir, "called")) // the phase is said before the script runs
		return err == nil && st.Phase == status.Installing
	})
	s.give(0, two, 2)
	s.await(0, "queued", func(st status.Node) bool { return desired(st) == 2 && st.Phase == status.Staged })
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	touch("go")
	st := s.await(0, "installing the second", func(st status.Node) bool {
		_, err := os.Stat(filepath.Join(s.dir, "second"))
		return err == nil && st.Phase == status.Installing
	})
	if st.Desired.Version != "2.0" {
		t.Errorf("%+v", st)
	}
	touch("end")
	s.await(0, "rolled back", func(st status.Node) bool { return desired(st) == 2 && st.Phase == status.RolledBack })
	var said []string
	for _, e := range must(os.ReadDir(filepath.Join(s.members[0].state, "outbox"))) {
		said = append(said, reportBody(t, filepath.Join(s.members[0].state, "outbox", e.Name())))
	}
	all := strings.Join(said, "\n")
	if !strings.Contains(all, "1.0 Deferred Interrupted") || strings.Contains(all, "2.0 Deferred") {
		t.Errorf("reports:\n%s", all)
	}
}

// A chunk that comes after its request was given up is kept: its bytes were paid for.
func TestLateChunkIsKept(t *testing.T) {
	s := newSite(t, 1)
	p := s.playSeeder()
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(33, 600<<10)})
	manifestDoc, policyDoc := b.Signed, s.policy(b, 1)
	grant := p.answer
	p.answer = func(se *xfer.Session, m wire.Message) {
		grant(se, m)
		q, ok := m.(*wire.GetDoc)
		switch {
		case !ok:
		case q.Digest == b.Digest:
			se.Send(&wire.Doc{Kind: wire.DocManifest, Doc: manifestDoc.Doc, Sig: manifestDoc.Sig})
		default:
			se.Send(&wire.Doc{Kind: wire.DocPolicy, Doc: policyDoc.Doc, Sig: policyDoc.Sig})
		}
	}
	wanted := make(chan chunk.ID, 64)
	release := make(chan struct{})
	chunks := map[chunk.ID]manifest.ChunkRef{}
	for _, r := range b.Manifest.Index.Chunks {
		chunks[r.ID] = r
	}
	p.chunk = func(ctx context.Context, _ *xfer.Session, id chunk.ID) (xfer.Served, error) {
		wanted <- id
		select {
		case <-release:
		case <-ctx.Done():
			return xfer.Served{}, ctx.Err()
		}
		body, err := b.ReadChunk(chunks[id])
		return plain(body), err
	}
	s.start(0)
	p.await("a session", func() bool { return p.session != nil })
	p.change(func() {
		p.session.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocPolicy, "all", 1, policyDoc), entry(wire.DocManifest, "app", 1, manifestDoc)}})
	})
	<-wanted // the index
	// The lease ends: what was asked for is given up. No other one is granted.
	p.answer = nil
	p.change(func() { p.session.Send(&wire.LeaseRefuse{RetryMillis: 3_600_000}) })
	s.await(0, "no uplink", func(st status.Node) bool { return !st.Uplink })
	close(release)
	st := s.await(0, "told of the index", func(st status.Node) bool { return st.Transfer.Chunks > 1 })
	if st.Transfer.ChunksHave == 0 || st.Transfer.FromWAN == 0 || st.Transfer.Wasted != 0 {
		t.Errorf("what came late: %+v", st.Transfer)
	}
}

// What an executor says of another bundle, whose transaction it cannot end yet, is not taken for ours: neither is that
// one's release in force here, nor is ours over with it.
func TestAnotherBundleComesFirst(t *testing.T) {
	s := newSite(t, 1)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(33, 1000)})
	other := manifest.DigestOf([]byte("other"))
	s.script("echo '" + result(fmt.Sprintf(`"outcome":"rollback_failed","exit":5,"phase":"InstallFailed","reason":"RollbackFailed","code":"E3004","detail":"no room",`+
		`"bundle":"os","version":"7","checksum":%q,"installed":{"bundle":"os","version":"6","sequence":99,"checksum":%q,"format":"files","dir":"6"}`, other, other)) + "'\n")
	s.start(0)
	s.give(0, b, 1)
	st := s.await(0, "waiting", func(st status.Node) bool { return st.Phase == status.Deferred && st.NextAttempt != nil })
	if len(st.Installed) != 0 || st.Reason != "RollbackFailed" || !strings.Contains(st.Detail, "os 7 comes first: no room") {
		t.Errorf("%+v", st)
	}
}
