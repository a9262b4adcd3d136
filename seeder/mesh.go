package seeder

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

// mesh is the seeder as its sessions see it: it implements xfer.Handler.
type mesh struct{ *Seeder }

var errForeign = errors.New("peer is not on the roster of the site it names")

// SessionUp implements xfer.Handler.
func (m mesh) SessionUp(s *xfer.Session) {
	n, ok := m.members.peer(s.Peer().String())
	if h := s.Hello(); !ok || h.Site != n.Site || h.Name != n.Name {
		m.log.Warn("peer refused: it names another site or node", "peer", s.Peer().String(), "site", h.Site, "node", h.Name)
		s.End(errForeign)
		return
	}
	m.log.Debug("session up", "site", n.Site, "node", n.Name)
	m.sessions.add(n.Site, s)
	if !m.allow(s.Peer()) { // removed between the gate and here; the removal did not see the session
		s.End(errForeign)
		return
	}
	m.presence.seen(n.PeerID, m.now())
	m.sendBoard(n.Site, s)
}

// SessionDown implements xfer.Handler.
func (m mesh) SessionDown(s *xfer.Session, err error) {
	id := s.Peer().String()
	site, ok := m.sessions.remove(s)
	if !ok {
		return
	}
	m.log.Debug("session down", "site", site, "peer", id, "err", err)
	m.yield.gone(site, s)
	m.leases.step(lease.Gone{Site: site, Peer: id})
}

// Message implements xfer.Handler.
func (m mesh) Message(s *xfer.Session, msg wire.Message) error {
	n, ok := m.members.peer(s.Peer().String())
	if !ok {
		return errForeign
	}
	switch msg := msg.(type) {
	case *wire.LeaseAsk:
		m.leases.step(lease.Ask{Site: n.Site, Peer: n.PeerID, Nonce: msg.Nonce, Active: m.fetches(n.Site, msg.Active), Unreachable: msg.Unreachable, Never: !mayUplink(n) || m.spent(n) || m.accused(n)})
	case *wire.LeaseRenew:
		m.presence.seen(n.PeerID, m.now())
		m.yield.look(n.Site, s)
		m.leases.step(lease.Renew{Site: n.Site, Peer: n.PeerID, Nonce: msg.Nonce, Lease: msg.Lease, Active: m.fetches(n.Site, msg.Active), SeesHolder: msg.SeesHolder})
	case *wire.LeaseRelease:
		m.leases.step(lease.Release{Site: n.Site, Peer: n.PeerID, Lease: msg.Lease})
	case *wire.GetDoc:
		if b := m.boards.site(n.Site); b != nil && b.docs[msg.Digest] != nil {
			s.Send(b.docs[msg.Digest])
		}
	case *wire.Status:
		m.statement(n, n, msg.Node)
	case *wire.SiteState:
		m.siteState(n, msg)
	case *wire.Report:
		return m.report(s, n, msg.Report)
	case *wire.Docs, *wire.Doc, *wire.Have, *wire.HaveAdd, *wire.Uplink:
		// What neighbours tell each other; the seeder's documents come over the API only.
	default:
		return fmt.Errorf("message of type %d is not for a seeder", msg.Type())
	}
	return nil
}

// fetches: who wants to fetch and may. While a site is paused its lease is that of one who only reports.
func (m mesh) fetches(site string, wants bool) bool { return wants && !m.pace.terms(site).Paused }

// spent: the node has had its share of the site's WAN for today.
func (m mesh) spent(n fleet.Node) bool {
	_, over := m.budget.over(n.PeerID, m.pace.terms(n.Site).day)
	return over
}

// accused: the node is under quarantine as a source.
func (m mesh) accused(n fleet.Node) bool {
	_, ok := m.quarantine.at(suspect{api.QuarantineSource, n.Site, n.Name})
	return ok
}

// statement takes what one node says of itself, or an uplink says of a neighbour.
func (m mesh) statement(from, about fleet.Node, n status.Node) {
	if n.Site != about.Site || n.Node != about.Name || n.PeerID != about.PeerID {
		m.log.Warn("statement refused: it is not of the node that it names", "site", from.Site, "from", from.Name, "about", about.Name)
		return
	}
	if was, newer := m.presence.said(about.PeerID, n, m.now()); newer {
		m.metrics.traffic.add(about.Site, n.Traffic.Beyond(was.Traffic))
		if e, ok := nodeEvent(was, n); ok {
			m.events.publish(e)
		}
	}
}

// siteState takes an uplink's news of its neighbours. Without a lease a node speaks for itself only.
func (m mesh) siteState(from fleet.Node, st *wire.SiteState) {
	holder := m.leases.holds(from.Site, from.PeerID)
	for _, n := range st.Nodes {
		if about, ok := m.members.named(from.Site, n.Node); ok && (holder || about.PeerID == from.PeerID) {
			m.statement(from, about, n)
		}
	}
	now := m.now()
	for _, name := range st.Alive {
		if about, ok := m.members.named(from.Site, name); ok && (holder || about.PeerID == from.PeerID) {
			m.presence.seen(about.PeerID, now)
		}
	}
}

// report queues a verified report. One that is not genuine is never acknowledged; its uplink is not to blame.
func (m mesh) report(s *xfer.Session, from fleet.Node, r status.Report) error {
	if r.Site != from.Site {
		return fmt.Errorf("report of site %q from a node of %s", r.Site, from.Site)
	}
	v, err := m.intake.verify(m.ctx, r, m.now())
	if err != nil {
		if m.ctx.Err() != nil {
			return err
		}
		m.log.Warn("report refused", "site", from.Site, "uplink", from.Name, "err", err)
		return nil
	}
	select {
	case m.intake.queue <- arrival{v, s}:
		return nil
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	}
}

// Chunk implements xfer.Handler: the lease holder gets chunks of published bundles at the site's pace.
func (m mesh) Chunk(ctx context.Context, s *xfer.Session, id chunk.ID) (xfer.Served, error) {
	n, ok := m.members.peer(s.Peer().String())
	if !ok {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonDenied}
	}
	if !m.leases.holds(n.Site, n.PeerID) {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNoLease}
	}
	c, ok := m.library.chunk(id)
	if !ok || !c.published {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	terms := m.pace.terms(n.Site)
	if terms.Paused {
		m.pace.tell(n.Site)
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonPaused}
	}
	if ok, first := m.budget.may(n.PeerID, terms.day, m.now()); !ok {
		if first {
			m.log.Warn("node had its share of the WAN for today and more; it is not the uplink until tomorrow", "site", n.Site, "node", n.Name)
		}
		m.leases.step(lease.Gone{Site: n.Site, Peer: n.PeerID})
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNoLease}
	}
	x, err := m.shelf.take(id)
	var corrupt *store.CorruptError
	if errors.Is(err, store.ErrNotFound) || errors.As(err, &corrupt) {
		m.log.Error("chunk of a published bundle is missing; push the bundle again", "chunk", id.String())
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	if err != nil {
		return xfer.Served{}, err
	}
	p, err := m.ledger.take(ctx, n.Site, terms.day, onWire(len(x.payload)), terms.perDay)
	if err != nil {
		m.shelf.give(x)
		if !errors.Is(err, errDayFull) {
			return xfer.Served{}, err
		}
		m.pace.fill(n.Site, terms.day)
		m.pace.tell(n.Site)
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonPaused}
	}
	paced := 0
	return xfer.Served{
		Encoding: byte(x.kind),
		Payload:  x.payload,
		Pace: func(ctx context.Context, bytes int) error {
			paced += bytes
			if err := m.yield.wait(ctx, n.Site, s, bytes); err != nil {
				return err
			}
			return m.pace.wait(ctx, n.Site, bytes)
		},
		Slice: func() int { return m.yield.slice(n.Site, s) },
		Release: func(sent bool) {
			m.shelf.give(x)
			if sent {
				m.budget.sent(n.PeerID, terms.day, c.number, int64(len(x.payload)))
				m.ledger.sent(p, c.number, int64(len(x.payload)), c.size)
			} else {
				m.budget.lost(n.PeerID, terms.day, int64(min(paced, len(x.payload))))
				m.ledger.partial(p, int64(min(paced, len(x.payload))), onWire(paced))
			}
		},
	}, nil
}

// allow is the gater: only who is on a roster gets as far as a stream.
func (m mesh) allow(id peer.ID) bool {
	_, ok := m.members.peer(id.String())
	return ok
}

func (s *Seeder) sendBoard(site string, to *xfer.Session) {
	if b := s.boards.site(site); b != nil {
		to.Send(&wire.Docs{Entries: b.entries})
	}
}

// publish computes the documents of sites anew and tells who is connected.
func (s *Seeder) publish(ctx context.Context, sites ...string) error {
	for _, site := range sites {
		if err := s.boards.post(ctx, site); err != nil {
			return err
		}
		for _, x := range s.sessions.of(site) {
			s.sendBoard(site, x)
		}
	}
	return nil
}
