package node

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// tally counts something that an honest neighbour does too, but seldom: it runs empty with time. Pure.
type tally struct {
	level float64
	at    time.Time
}

// add counts one more and says whether that is too many: more than most at once and rate a second.
func (t *tally) add(now time.Time, most, rate float64) (over bool) {
	t.level = max(0, t.level-rate*now.Sub(t.at).Seconds()) + 1
	t.at = now
	return t.level > most
}

// manners is what is counted of a neighbour before it is held against it. It outlives a session.
type manners struct {
	sessions tally
	unasked  tally
	spurious tally
	avoided  time.Time // until then nothing is asked of it
}

// How much of it may happen: at once, and a second.
const (
	maxSessions  = 20 // a link that flaps; a daemon that dies and is started again each second
	sessionRate  = 0.2
	maxUnasked   = 4 // there is no honest way to it that we know of
	unaskedRate  = 1. / 3600
	maxSpurious  = 8 // documents that are not valid here: a neighbour may trust a key a little longer than we do
	spuriousRate = 1. / 600
)

func (n *Node) mannersOf(id peer.ID) *manners {
	m := n.manners[id]
	if m == nil {
		if m = new(manners); n.allow(id) { // the roster bounds how many are kept
			n.manners[id] = m
		}
	}
	return m
}

// comes says whether a neighbour's new session may stay.
func (n *Node) comes(s *xfer.Session) bool {
	if !n.admit(s.Peer()) { // shut out since the handshake
		s.End(errShutOut)
		return false
	}
	if n.mannersOf(s.Peer()).sessions.add(time.Now(), maxSessions, sessionRate) && !n.cfg.off[status.StrikeFlood] {
		s.End(errShutOut)
		n.strike(s.Peer(), status.StrikeFlood, "begins one session after the other")
		return false
	}
	return true
}

// unasked: a neighbour sent an answer to nothing.
func (n *Node) unasked(id peer.ID) {
	if n.mannersOf(id).unasked.add(time.Now(), maxUnasked, unaskedRate) {
		n.strike(id, status.StrikeUnsolicited, "sends what nobody asked for")
	}
}

// spurious: a neighbour offered a document that is not valid.
func (n *Node) spurious(id peer.ID) {
	if n.mannersOf(id).spurious.add(time.Now(), maxSpurious, spuriousRate) {
		n.strike(id, status.StrikeLie, "offers documents that are not genuine")
	}
}

// fault notes that a session ended by the peer's fault.
func (n *Node) fault(id peer.ID, err error) {
	var f *xfer.FaultError
	if !errors.As(err, &f) {
		return
	}
	switch f.Fault {
	case xfer.FaultFlood:
		n.strike(id, status.StrikeFlood, f.Error())
	case xfer.FaultProtocol:
		n.strike(id, status.StrikeProtocol, f.Error())
	}
}

// struck is the swarm's word that a neighbour misbehaved.
func (n *Node) struck(a swarm.Strike) {
	id, kind := decodePeer(a.Peer), a.Kind
	if nb := n.nb[id]; nb != nil && kind == status.StrikeStall && nb.s.Begun() {
		kind = status.StrikeDrip
	}
	if a.Ban > 0 {
		n.strike(id, kind, a.Why)
	}
}

var errShutOut = errors.New("shut out for misbehaviour")

// strike notes what a neighbour did, on disk, and then avoids it.
func (n *Node) strike(id peer.ID, kind status.StrikeKind, why string) {
	name := n.nameOf(id)
	if n.cfg.off[kind] {
		return
	}
	if id == n.seeder || !n.allow(id) { // it has no neighbour's place; what it sends is refused all the same
		n.log.Warn("peer misbehaved", "peer", name, "kind", kind, "why", why)
		return
	}
	d := n.strikes.add(id, name, kind, n.cfg.now())
	n.log.Warn("neighbour misbehaved", "node", name, "kind", kind, "why", why, "avoided_for", d.Round(time.Second))
	n.event(problem.PeerMisbehaves, "%s: %s: %s; it is avoided for %v", name, kind, why, d.Round(time.Second))
	b, err := json.Marshal(n.strikes)
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return durable.WriteFile(n.d.path("strikes.json"), b, 0o600)
	}, func(err error) {
		if err != nil {
			n.log.Error("strikes.json cannot be written", "err", err)
		}
		n.avoid()
	})
}

// avoid puts the strikes into force.
func (n *Node) avoid() {
	now := n.cfg.now()
	banned, shut := n.strikes.avoided(now)
	mono := time.Now()
	for id, til := range shut {
		shut[id] = mono.Add(til.Sub(now))
		if nb := n.nb[id]; nb != nil {
			nb.s.End(errShutOut)
		}
	}
	n.shut.Store(&shut)
	for id, til := range banned {
		if m := n.mannersOf(id); m != nil {
			m.avoided = mono.Add(til.Sub(now))
		}
	}
	for id, til := range banned {
		n.steps = append(n.steps, swarm.Banned{Peer: swarm.Peer(id.String()), For: til.Sub(now)})
	}
}

// loadStrikes reads what is known from before. A file that cannot be read bans nobody.
func (n *Node) loadStrikes() {
	var list []offence
	if err := readJSON(n.d.path("strikes.json"), &list); err == nil {
		n.strikes.restore(list, n.cfg.now())
	}
}

// admit says whether a session with a peer may be had. Called from any goroutine.
func (n *Node) admit(id peer.ID) bool {
	if !n.allow(id) {
		return false
	}
	shut := n.shut.Load()
	return shut == nil || !time.Now().Before((*shut)[id])
}

// toll is what a neighbour may send; the seeder may send what it likes.
func (n *Node) toll(id peer.ID) xfer.Toll {
	if id == n.seeder || n.cfg.off[status.StrikeFlood] {
		return nil
	}
	return xfer.NodeToll()
}

// Bounds of how often neighbours are told whom this node sees as uplink: at once, and a second. One of them may claim to
// be the uplink and not to be, as fast as it can; what we say of it must stay within what the others allow us.
const (
	maxUplinkTold  = 32
	uplinkToldRate = 2
)

// tellUplink tells all neighbours whom this node sees as uplink, when that has changed, now or as soon as may be.
func (n *Node) tellUplink(changed bool) {
	if n.uplinkNews = n.uplinkNews || changed; !n.uplinkNews {
		return
	}
	if t := n.uplinkTold; t.add(time.Now(), maxUplinkTold, uplinkToldRate) {
		return
	}
	n.uplinkTold.add(time.Now(), maxUplinkTold, uplinkToldRate)
	n.uplinkNews = false
	n.out.retry()
	holder, split := n.sw.Near()
	for _, b := range n.nb {
		b.s.Send(&wire.Uplink{Holder: string(holder), Split: split})
	}
	n.log.Info("uplink", "holder", n.nameOf(decodePeer(holder)), "split", split)
}

// watchProgress tells the swarm how much neighbours have sent, of chunks that are not whole too.
func (n *Node) watchProgress(now time.Time) {
	if !n.active || now.Sub(n.watched) < time.Second {
		return
	}
	n.watched = now
	if n.seederS != nil {
		n.step(swarm.Progress{Peer: swarm.WAN, Bytes: n.seederS.DataIn()})
	}
	for id, nb := range n.nb {
		n.step(swarm.Progress{Peer: swarm.Peer(id.String()), Bytes: nb.s.DataIn()})
	}
}

// banOf is the swarm's first ban; zero is its own default.
func (c *Config) banOf() time.Duration {
	for _, k := range []status.StrikeKind{status.StrikeWrongBytes, status.StrikeStall, status.StrikeDrip, status.StrikeLie} {
		if c.off[k] {
			return 1
		}
	}
	return 0
}
