package node

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// Ticks of the loop while something is to be fetched, and otherwise.
const (
	tickActive = 100 * time.Millisecond
	tickIdle   = time.Second
	saveEvery  = 2 * time.Second
	actBatch   = 128 // functions run before the consequences are sent
	lateAfter  = 500 * time.Millisecond
)

// loop owns the node's state. It runs what others post and lets time pass.
func (n *Node) loop(ctx context.Context) error {
	t := time.NewTicker(tickActive)
	defer t.Stop()
	fast := true
	n.began = time.Now()
	n.traffic.Since = n.cfg.now().UTC()
	n.calm, n.showed = time.Now(), reading{n.cfg.now().Round(0), time.Now()}
	n.expect()
	n.retarget()
	n.readResults()
	for {
		var began time.Time
		select {
		case f := <-n.do:
			began = time.Now()
			f()
			for range actBatch {
				select {
				case f := <-n.do:
					f()
					continue
				default:
				}
				break
			}
		case <-t.C:
			began = time.Now()
			n.tick()
		case <-ctx.Done():
			n.save(nil)
			return nil
		}
		n.settle()
		if d := time.Since(began); d > lateAfter {
			n.log.Warn("the loop was held up: the disk may be slow", "for", d.Round(time.Millisecond))
		}
		if n.active != fast {
			fast = n.active
			if fast {
				t.Reset(tickActive)
			} else {
				t.Reset(tickIdle)
			}
		}
	}
}

func (n *Node) tick() {
	now := time.Now()
	n.step(swarm.Tick{})
	n.tellUplink(false)
	n.watchProgress(now)
	n.pollSeeder()
	n.dialNeighbours(now)
	n.resync(now)
	n.askAround(now)
	n.fade(now)
	n.housekeep(now)
	n.watchSeeder(now)
	n.giveBack(now)
	n.watchSilence(now)
	n.resumeReceipts(now)
	n.showOverdue()
	if n.dirty && !n.saving && now.Sub(n.saved) >= saveEvery {
		n.saving = true
		n.save(func(error) { n.saving = false })
	}
}

// settle brings about what the last events led to: further events, phases, and what others are to hear.
func (n *Node) settle() {
	for len(n.steps) > 0 {
		ev := n.steps[0]
		n.steps = n.steps[1:]
		n.step(ev)
	}
	n.steps = nil
	n.carryOut()
	n.giveNotice()
	n.watchQuarantine()
	n.live()
	n.announce()
	n.tellNeighbours()
	n.sendReports()
	if a := n.sw.Active(); a != n.active {
		n.active, n.calm = a, time.Now()
		for _, b := range n.nb {
			b.s.SetActive(a)
		}
		if n.seederS != nil {
			n.seederS.SetActive(a)
		}
	}
}

// save writes state.json as it is now; then, if not nil, runs on the loop once it is durable, or could not be made so.
func (n *Node) save(then func(error)) {
	n.dirty, n.saved = false, time.Now()
	b, err := json.Marshal(n.rec)
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return durable.WriteFile(n.d.path("state.json"), b, 0o600)
	}, func(err error) {
		if err != nil {
			n.log.Error("state cannot be saved", "err", err)
			n.saves.failed(n, err, "state cannot be saved")
			n.dirty = true
		} else {
			n.saves.worked(n)
		}
		if then != nil {
			then(err)
		}
	})
}

// step gives the swarm an event and carries out what it decides.
func (n *Node) step(ev swarm.Event) {
	for _, a := range n.sw.Step(time.Now(), ev) {
		n.act(a)
	}
}

func (n *Node) act(a swarm.Action) {
	switch a := a.(type) {
	case swarm.Fetch:
		n.fetch(a)
	case swarm.Cancel:
		n.pend.cancel(a.Req)
	case swarm.Announce:
		n.news[a.Bundle] = append(n.news[a.Bundle], a.Numbers...)
	case swarm.Complete:
		n.complete(a.Bundle)
	case swarm.Strike:
		n.struck(a)
	case swarm.DialWAN:
		n.dialWAN(a.Within)
	case swarm.HangUpWAN:
		if n.seederS != nil {
			n.seederS.End(errNotUplink)
		}
	case swarm.AskLease:
		n.toSeeder(&wire.LeaseAsk{Active: a.Active, Unreachable: string(a.Unreachable)})
	case swarm.RenewLease:
		n.toSeeder(&wire.LeaseRenew{Lease: a.Lease, Active: a.Active})
		n.tellSeeder(true)
	case swarm.Withdraw:
		for _, b := range n.list() {
			for _, nb := range n.nb {
				n.sendHave(nb, b)
			}
		}
	case swarm.MayLeave:
		close(n.leaving.may)
	case swarm.ReleaseLease:
		n.toSeeder(&wire.LeaseRelease{Lease: a.Lease})
	case swarm.TellUplink:
		n.tellUplink(true)
	}
}

// decodePeer turns a swarm.Peer, which is a peer ID in text, back.
func decodePeer(p swarm.Peer) peer.ID {
	id, err := peer.Decode(string(p))
	if err != nil {
		return ""
	}
	return id
}

func (n *Node) toSeeder(m wire.Message) {
	if n.seederS != nil {
		n.seederS.Send(m)
	}
}

func (n *Node) fetch(a swarm.Fetch) {
	b := n.bundles[a.Bundle]
	if b == nil || a.Number >= len(b.catalog.Chunks) {
		n.steps = append(n.steps, swarm.Failed{Req: a.Req, Why: swarm.WhyLocal})
		return
	}
	ref := b.catalog.Chunks[a.Number]
	if n.store.Has(ref.ID) { // another bundle brought it meanwhile
		n.steps = append(n.steps, swarm.Stored{Req: a.Req})
		return
	}
	s := n.seederS
	if a.From != swarm.WAN {
		s = nil
		if nb := n.nb[decodePeer(a.From)]; nb != nil {
			s = nb.s
		}
	}
	if s == nil {
		n.steps = append(n.steps, swarm.Failed{Req: a.Req, Why: swarm.WhyGone})
		return
	}
	n.pend.add(a.Req, want{from: s.Peer(), bundle: a.Bundle, number: a.Number, ref: ref})
	s.Send(&wire.Get{Req: a.Req, ID: ref.ID})
}

func (n *Node) dialWAN(within time.Duration) {
	n.group.Go(func() error {
		named, cancel := context.WithTimeout(n.ctx, within/2) // or the addresses of the last time
		addrs := n.resolve(named)
		cancel()
		ctx, cancel := context.WithTimeout(n.ctx, within)
		defer cancel()
		err := n.host.Dial(ctx, n.seeder, addrs...)
		n.post(func() {
			switch {
			case err != nil:
				n.log.Debug("seeder cannot be reached", "err", err)
				n.step(swarm.WANDown{})
			case n.seederS != nil:
				n.step(swarm.WANUp{})
			}
		})
		return nil
	})
}

// dialNeighbours dials who is on the roster and not connected.
func (n *Node) dialNeighbours(now time.Time) {
	f := n.inForce.Load()
	if f == nil {
		return
	}
	for _, r := range f.r.Nodes {
		id, err := peer.Decode(r.PeerID)
		if err != nil || id == n.self || n.nb[id] != nil {
			continue
		}
		c := n.contact(id)
		if c.due(now, n.self.String() < id.String()) {
			c.dialing = true
			addrs := slices.Clone(c.addrs) // learn changes them in place
			n.group.Go(func() error {
				ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second)
				defer cancel()
				err := n.host.Dial(ctx, id, addrs...)
				n.post(func() {
					c.dialing = false
					c.failed(time.Now()) // forgotten when the session is up
					if err != nil {
						n.log.Debug("neighbour cannot be reached", "node", n.nameOf(id), "err", err)
					}
				})
				return nil
			})
		}
	}
}

func (n *Node) contact(id peer.ID) *contact {
	c := n.contacts[id]
	if c == nil {
		c = &contact{since: time.Now()}
		n.contacts[id] = c
	}
	return c
}

// nameOf returns a node's name for logs and tables.
func (n *Node) nameOf(id peer.ID) string {
	switch id {
	case "":
		return ""
	case n.self:
		return n.e.Node
	case n.seeder:
		return "seeder"
	}
	if m := n.allowed.Load(); m != nil {
		if name, ok := (*m)[id]; ok {
			return name
		}
	}
	return id.String()
}

func (n *Node) roleOf(id peer.ID) roster.WAN {
	if f := n.inForce.Load(); f != nil {
		if r, ok := f.r.ByPeer(id.String()); ok {
			return r.WAN
		}
	}
	return roster.WANNever
}

// lost: a chunk on disk was damaged and dropped.
func (n *Node) lost(id chunkID) {
	n.event(problem.ChunkCorrupt, "chunk %s was damaged on disk; it was dropped and is fetched again", id)
	n.missing(id)
}

// missing: a chunk is not on disk any more.
func (n *Node) missing(id chunkID) {
	if n.store.Has(id) {
		return // it came again meanwhile
	}
	for _, b := range n.list() {
		if i, ok := b.catalog.Position(id); ok && n.sw.Holds(b.digest, i) {
			b.staged = false
			n.step(swarm.Lost{Bundle: b.digest, Number: i})
			for _, nb := range n.nb {
				n.sendHave(nb, b)
			}
		}
	}
}
