package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/node/swarm"
)

type chunkID = chunk.ID

var errNotUplink = errors.New("not the uplink")

var _ xfer.Handler = (*Node)(nil)

// SessionUp implements xfer.Handler.
func (n *Node) SessionUp(s *xfer.Session) {
	n.post(func() {
		s.SetActive(n.active)
		if s.Peer() == n.seeder {
			n.seederS, n.seederDocs, n.seederAt = s, shelf{}, readingOf(s.Hello().Clock)
			n.polled(s)
			n.step(swarm.WANUp{})
			return
		}
		if !n.allow(s.Peer()) { // the roster changed while it was connecting
			s.End(problem.New(problem.PeerNotOnRoster, "%s is not on the roster", s.Peer()))
			return
		}
		if !n.comes(s) {
			return
		}
		nb := &neighbour{s: s, name: n.nameOf(s.Peer()), relaying: map[uint64]time.Time{}, clock: readingOf(s.Hello().Clock)}
		n.nb[s.Peer()] = nb
		c := n.contact(s.Peer())
		c.hurry()
		n.log.Info("neighbour connected", "node", nb.name)
		// What we have goes out before anything that makes them choose.
		s.Send(n.docList())
		for _, b := range n.list() {
			n.sendHave(nb, b)
		}
		s.Send(n.saying())
		n.step(swarm.PeerUp{Peer: swarm.Peer(s.Peer().String()), Role: n.roleOf(s.Peer())})
		holder, split := n.sw.Near()
		s.Send(&wire.Uplink{Holder: string(holder), Split: split})
	})
}

// SessionDown implements xfer.Handler.
func (n *Node) SessionDown(s *xfer.Session, err error) {
	n.post(func() {
		n.pend.leave(s.Peer())
		n.fault(s.Peer(), err)
		if s.Peer() == n.seeder {
			if n.seederS == s {
				n.seederS = nil
				if !errors.Is(err, errNotUplink) {
					n.log.Info("session with the seeder ended", "err", err)
				}
				n.step(swarm.WANDown{})
			}
			return
		}
		nb := n.nb[s.Peer()]
		if nb == nil || nb.s != s {
			return
		}
		n.log.Info("neighbour gone", "node", nb.name, "err", err)
		delete(n.nb, s.Peer())
		c := n.contact(s.Peer())
		c.since = time.Now()
		c.failed(c.since)
		if st := n.byName[nb.name]; st != nil {
			st.heard = time.Now()
		}
		n.step(swarm.PeerDown{Peer: swarm.Peer(s.Peer().String())})
	})
}

// Message implements xfer.Handler.
func (n *Node) Message(s *xfer.Session, m wire.Message) error {
	fromSeeder := s.Peer() == n.seeder
	from := swarm.Peer(s.Peer().String())
	switch m := m.(type) {
	case *wire.Data:
		return n.data(s, m)
	case *wire.Refuse:
		w, ok, _ := n.pend.take(s.Peer(), m.Req)
		if !ok || w.given {
			return nil
		}
		why := swarm.WhyNotHeld
		switch m.Reason {
		case wire.ReasonBusy, wire.ReasonPaused: // the pause itself came with a grant, before
			why = swarm.WhyBusy
		case wire.ReasonNoLease:
			why = swarm.WhyNoLease
		}
		n.post(func() { n.step(swarm.Failed{Req: m.Req, Why: why}) })
	case *wire.Docs:
		n.post(func() { n.onDocs(s, m.Entries) })
	case *wire.GetDoc:
		n.post(func() {
			if d, ok := n.docs[m.Digest]; ok {
				s.Send(&wire.Doc{Kind: d.kind, Doc: d.s.Doc, Sig: d.s.Sig})
			}
		})
	case *wire.Doc:
		n.post(func() { n.onDoc(s, m) })
	default:
		if fromSeeder {
			return n.seederMessage(s, m)
		}
		return n.neighbourMessage(s, from, m)
	}
	return nil
}

func (n *Node) neighbourMessage(s *xfer.Session, from swarm.Peer, m wire.Message) error {
	switch m := m.(type) {
	case *wire.Have:
		n.post(func() {
			n.step(swarm.PeerHave{Peer: from, Bundle: m.Bundle, Wants: m.Wants, Total: int(m.Total), Bitmap: m.Bitmap})
		})
	case *wire.HaveAdd:
		n.post(func() { n.step(swarm.PeerHaveAdd{Peer: from, Bundle: m.Bundle, Numbers: m.Numbers}) })
	case *wire.Uplink:
		n.post(func() { n.step(swarm.PeerUplink{Peer: from, Holder: swarm.Peer(m.Holder), Split: m.Split}) })
	case *wire.Status:
		n.post(func() { n.onStatus(s, m) })
	case *wire.Report:
		n.post(func() { n.relay(s, m) })
	case *wire.ReportAck:
		n.post(func() { n.onAck(s, m) })
	default:
		return &xfer.FaultError{Fault: xfer.FaultProtocol, Err: fmt.Errorf("a neighbour sent a message of type %d", m.Type())}
	}
	return nil
}

func (n *Node) seederMessage(s *xfer.Session, m wire.Message) error {
	switch m := m.(type) {
	case *wire.LeaseGrant:
		n.post(func() {
			var rtt time.Duration
			if n.seederS != nil {
				rtt = n.seederS.RTT()
			}
			first := !n.sw.Leads()
			n.wanSaid.heard(m.CapBytesPerSecond, m.PauseMillis, m.Why)
			n.step(swarm.LeaseGranted{Lease: m.Lease, TTL: millis(m.TTLMillis), Renew: millis(m.RenewMillis), Split: m.Split, RTT: rtt, Pause: millis(m.PauseMillis)})
			if n.seederS != nil { // who waits has no need of quick probes
				n.seederS.SetActive(n.active && m.PauseMillis == 0)
			}
			if first {
				for _, st := range n.byName {
					st.fresh = true
				}
				n.tellSeeder(true)
			}
		})
	case *wire.LeaseRefuse:
		n.post(func() {
			n.wanSaid.heard(0, m.PauseMillis, m.Why)
			n.step(swarm.LeaseRefused{Holder: swarm.Peer(m.Holder), Retry: millis(m.RetryMillis), Pause: millis(m.PauseMillis)})
		})
	case *wire.ReportAck:
		n.post(func() { n.onAck(s, m) })
	default:
		return fmt.Errorf("the seeder sent a message of type %d", m.Type())
	}
	return nil
}

func millis(v int64) time.Duration {
	return time.Duration(min(max(v, 0), 3_600_000)) * time.Millisecond
}

// data takes a chunk: decodes it within the signed size, hashes it, writes it. It runs in the session's reader, so a
// slow disk slows the sender down.
func (n *Node) data(s *xfer.Session, m *wire.Data) error {
	w, ok, asked := n.pend.take(s.Peer(), m.Req)
	if !asked {
		n.post(func() { n.unasked(s.Peer()) })
	}
	if !ok {
		return nil
	}
	size := int64(len(m.Payload))
	plain, err := encoding.Decode(encoding.Kind(m.Encoding), w.ref.Size, m.Payload)
	var added bool
	if err == nil {
		added, err = n.store.Put(w.ref.ID, plain)
	} else {
		err = &store.CorruptError{Want: w.ref.ID}
	}
	var corrupt *store.CorruptError
	why := swarm.WhyLocal
	if errors.As(err, &corrupt) {
		why = swarm.WhyCorrupt
	}
	wan := s.Peer() == n.seeder
	n.post(func() {
		switch {
		case err == nil:
			n.arrived(w, m.Req, wan, added, size)
		default:
			n.spoilt(w, size, wan, why)
			if why == swarm.WhyLocal {
				n.storing.failed(n, err, "a chunk could not be stored")
			}
			n.log.Warn("chunk not kept", "chunk", w.ref.ID.String(), "from", n.nameOf(w.from), "err", err)
			if !w.given {
				n.step(swarm.Failed{Req: m.Req, Why: why})
			}
		}
	})
	return nil
}

// arrived accounts a good chunk and tells the swarm.
func (n *Node) arrived(w want, req uint32, wan, added bool, payload int64) {
	c := n.rec.Transfer[w.bundle.String()]
	switch {
	case wan:
		c.FromWAN += w.ref.Size
		c.WANPayload += payload
		n.traffic.FromWAN += w.ref.Size
		n.traffic.WANPayload += payload
	default:
		c.FromLAN += w.ref.Size
		n.traffic.FromLAN += w.ref.Size
	}
	switch {
	case !added:
		c.Wasted += w.ref.Size
		n.traffic.Twice += w.ref.Size
	case !wan:
		n.traffic.Avoided += w.ref.Size
	}
	n.rec.Transfer[w.bundle.String()], n.dirty = c, true
	n.storing.worked(n)
	n.flush()
	n.step(swarm.Stored{Req: req})
	// The swarm may have given the request up while the chunk was being written.
	if w.given && !wan {
		n.step(swarm.Late{Peer: swarm.Peer(w.from.String()), Bundle: w.bundle, Number: w.number})
	}
	n.step(swarm.Gained{Bundle: w.bundle, Number: w.number})
}

// spoilt accounts bytes that came for a chunk and could not be kept, and why.
func (n *Node) spoilt(w want, bytes int64, wan bool, why swarm.Why) {
	n.traffic.Spoilt += bytes
	switch {
	case why != swarm.WhyCorrupt:
	case wan:
		n.traffic.BadWAN++
	default:
		n.traffic.BadLAN++
	}
	c := n.rec.Transfer[w.bundle.String()]
	c.Spoilt += bytes
	n.rec.Transfer[w.bundle.String()], n.dirty = c, true
}

// Chunk implements xfer.Handler: it serves any verified chunk to any node of the site.
func (n *Node) Chunk(_ context.Context, s *xfer.Session, id chunk.ID) (xfer.Served, error) {
	if s.Peer() == n.seeder {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonDenied}
	}
	b, release, err := n.store.Borrow(id)
	if errors.Is(err, store.ErrNotFound) {
		n.post(func() { n.missing(id) }) // evicted: who asks believes us to hold it, and so does the swarm
	}
	if corrupt := (*store.CorruptError)(nil); errors.Is(err, store.ErrNotFound) || errors.As(err, &corrupt) {
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
	}
	if err != nil { // no file to be had, say: we did not lie
		n.log.Warn("chunk cannot be read now", "chunk", id.String(), "err", err)
		return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonBusy}
	}
	return xfer.Served{Encoding: byte(encoding.Plain), Payload: b, Release: func(sent bool) {
		release()
		if sent {
			n.servedB.Add(int64(len(b)))
		}
	}}, nil
}
