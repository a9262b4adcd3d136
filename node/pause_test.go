package node_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// While the seeder says that the site is paused no chunk is asked for, and the node says why and until when it waits; a
// grant that nobody asked for ends the pause at once.
func TestPausedSite(t *testing.T) {
	s := newSite(t, 1)
	p := s.playSeeder()
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(40, 600<<10)})
	policyDoc := s.policy(b, 1)
	var paused atomic.Bool
	paused.Store(true)
	const pause = 7 * 60 * 60 * 1000
	grant := func(nonce, lease uint64) *wire.LeaseGrant {
		g := &wire.LeaseGrant{Nonce: nonce, Lease: lease, TTLMillis: 60_000, RenewMillis: 20_000, Why: "cap of 6Mbit"}
		if paused.Load() {
			g.PauseMillis, g.Why = pause, "blackout until 20:00 America/Chicago"
		}
		return g
	}
	p.answer = func(se *xfer.Session, m wire.Message) {
		switch m := m.(type) {
		case *wire.LeaseAsk:
			se.Send(grant(m.Nonce, 1))
		case *wire.LeaseRenew:
			se.Send(grant(m.Nonce, m.Lease))
		case *wire.GetDoc:
			if m.Digest == b.Digest {
				se.Send(&wire.Doc{Kind: wire.DocManifest, Doc: b.Signed.Doc, Sig: b.Signed.Sig})
			} else {
				se.Send(&wire.Doc{Kind: wire.DocPolicy, Doc: policyDoc.Doc, Sig: policyDoc.Sig})
			}
		}
	}
	var early atomic.Int64
	p.chunk = func(_ context.Context, _ *xfer.Session, id chunk.ID) (xfer.Served, error) {
		if paused.Load() {
			early.Add(1)
			return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonPaused}
		}
		for _, r := range append(append([]manifest.ChunkRef{}, b.Manifest.Index.Chunks...), b.Catalog().Chunks...) {
			if r.ID == id {
				body, err := b.ReadChunk(r)
				return plain(body), err
			}
		}
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	s.start(0)
	p.await("a session", func() bool { return p.session != nil })
	p.change(func() {
		p.session.Send(&wire.Docs{Entries: []wire.DocEntry{entry(wire.DocPolicy, "all", 1, policyDoc), entry(wire.DocManifest, "app", 1, b.Signed)}})
	})
	st := s.await(0, "waiting for the end of the pause", func(st status.Node) bool { return strings.HasPrefix(st.Reason, "WANPaused: ") })
	if st.Phase != status.Staging || st.Reason != "WANPaused: blackout until 20:00 America/Chicago" || st.NextAttempt == nil ||
		time.Until(*st.NextAttempt).Round(time.Hour) != 7*time.Hour {
		t.Errorf("%s %s, next attempt %v", st.Phase, st.Reason, st.NextAttempt)
	}
	paused.Store(false)
	p.change(func() { p.session.Send(grant(0, 1)) })
	st = s.await(0, "all chunks", func(st status.Node) bool {
		return st.Transfer.Chunks > 1 && st.Transfer.ChunksHave == st.Transfer.Chunks
	})
	if early.Load() != 0 || strings.HasPrefix(st.Reason, "WANPaused") {
		t.Errorf("%d chunks were asked for in the pause; then %s %s", early.Load(), st.Phase, st.Reason)
	}
}
