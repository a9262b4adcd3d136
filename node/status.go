package node

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/node/turn"
)

// How often a changing statement is sent on, to neighbours and to the seeder.
const (
	tellEvery    = time.Second
	tellWANEvery = 2 * time.Second
)

// maxTold bounds the statements in one SiteState: that many of the largest size fit its frame.
const maxTold = 64

// describe says what state this node is in.
func (n *Node) describe() status.Node {
	st := status.Node{APIVersion: status.APIVersion, Kind: "NodeStatus", Site: n.e.Site, Node: n.e.Node, PeerID: n.self.String(),
		Software: build.Software("meshd"), Uplink: n.sw.Leads(), Phase: status.Pending, Reason: "NoPolicy",
		Installed: []status.InstalledItem{}, Alarms: []status.Alarm{}, Outbox: len(n.out.waiting), Noted: n.strikes.noted(n.cfg.now())}
	var show *Life
	for _, name := range slices.Sorted(maps.Keys(n.rec.Lives)) {
		l := n.rec.Lives[name]
		if l.Installed != nil && len(st.Installed) < wire.MaxListed {
			st.Installed = append(st.Installed, n.shown(*l.Installed))
		}
		if l.Target != nil && (show == nil || l.urgency() > show.urgency()) {
			show = l
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.rec.Lives)) {
		if l := n.rec.Lives[name]; l.Target != nil && l != show && len(st.Beside) < wire.MaxListed {
			st.Beside = append(st.Beside, l.beside(name))
		}
	}
	if show != nil {
		st.Phase, st.Reason, st.Code, st.Detail, st.Desired = show.Phase, show.Reason, string(show.Code), show.Detail, show.Target
		if !show.claimed.IsZero() {
			st.Phase, st.Reason = status.Scheduled, turn.Starting
		}
		st.Snapshot, st.Reboot = show.Snapshot, show.Reboot
		st.Missed = show.Missed
		if !Final(show.Phase) && !show.Next.IsZero() {
			at := show.Next.UTC().Truncate(time.Second)
			st.NextAttempt = &at
		}
		if h := n.grantOf(show); h != nil {
			st.Grant = h.g.Serial
			if i, ok := h.g.Place(n.e.Node); ok {
				st.Batch = h.g.Starts[i].Batch
			}
		}
		st.Transfer = n.transfer(show.Target.Checksum)
		if st.Uplink {
			st.Transfer.Rarest = n.sw.Rarest(show.Target.Checksum)
		}
		n.wanSaid.explain(&st, !n.sw.Paused().IsZero(), time.Now())
		wait(&st, n.byName[n.nameOf(decodePeer(n.sw.Uplink()))])
	}
	if st.Phase == status.Pending && st.NextAttempt == nil && !n.poll.next.IsZero() && n.roleOf(n.self) != roster.WANNever {
		at := n.poll.next.UTC().Truncate(time.Second) // a policy, or a manifest, may come at any time; then it is asked for
		st.NextAttempt = &at
	}
	if st.Desired == nil && len(n.conflicts) > 0 || st.Desired != nil && n.conflicts[st.Desired.Bundle] != nil {
		st.Reason, st.Code = reasonConflict, string(problem.PolicyConflict) // the alarm says which
	}
	n.describeQuarantine(&st)
	st.Order = n.standing()
	st.Transfer.Peers = len(n.nb)
	st.Transfer.ToLAN = n.servedB.Load()
	st.Traffic = n.moved()
	st.SkewSeconds = n.skewWord()
	for _, code := range slices.Sorted(maps.Keys(n.alarms)) {
		st.Alarms = append(st.Alarms, n.alarms[code].Alarm)
	}
	return st
}

// urgency orders the bundles of a node by what there is to say: what it is at, what is not settled yet, and the rest.
func (l *Life) urgency() int {
	switch {
	case l.Phase == status.Installing:
		return 3
	case !l.claimed.IsZero():
		return 2
	case !Final(l.Phase):
		return 1
	}
	return 0
}

// beside is what is said of a bundle when another one is the one to show.
func (l *Life) beside(name string) status.Standing {
	s := status.Standing{Bundle: name, Checksum: l.Target.Checksum, Phase: l.Phase, Reason: l.Reason}
	if !Final(l.Phase) && !l.Next.IsZero() {
		at := l.Next.UTC().Truncate(time.Second)
		s.NextAttempt = &at
	}
	return s
}

func (n *Node) transfer(d manifest.Digest) status.Transfer {
	c := n.rec.Transfer[d.String()]
	t := status.Transfer{FromWAN: c.FromWAN, WANPayload: c.WANPayload, FromLAN: c.FromLAN, Wasted: c.Wasted + c.Spoilt}
	if b := n.bundles[d]; b != nil {
		t.Chunks, t.Bytes = len(b.catalog.Chunks), b.catalog.Bytes()
		for _, r := range b.catalog.Chunks {
			if n.store.Has(r.ID) {
				t.ChunksHave++
				t.BytesHave += r.Size
			}
		}
	}
	// What is here and was not brought: earlier bundles, a stick, or a transfer before a crash took the count.
	t.Reused = max(0, t.BytesHave-c.FromWAN-c.FromLAN+c.Wasted)
	return t
}

// tellNeighbours sends our statement when it has changed, not too often.
func (n *Node) tellNeighbours() {
	now := time.Now()
	if urgent := n.urgent; urgent || now.Sub(n.looked) >= tellEvery/2 {
		n.looked, n.urgent = now, false
		st := fit(n.describe())
		old := n.mine
		old.At, old.Seq = st.At, st.Seq
		if !reflect.DeepEqual(st, old) && (urgent || now.Sub(n.told) >= tellEvery || st.Phase != old.Phase) {
			n.told = now
			n.rec.Status++
			n.dirty = true
			st.Seq, st.At = n.rec.Status, n.cfg.now().UTC()
			n.mine, n.showed = st, reading{n.cfg.now().Round(0), now}
			self := n.statement(n.e.Node)
			self.st, self.fresh = st, true
			for _, nb := range n.nb {
				nb.s.Send(&wire.Status{Node: st})
			}
		}
	}
	n.tellClock(now)
	n.tellSeeder(false)
}

// tellSeeder sends, as uplink, the statements that changed and who is alive.
func (n *Node) tellSeeder(always bool) {
	now := time.Now()
	if n.seederS == nil || !n.sw.Leads() || !always && now.Sub(n.toldWAN) < tellWANEvery {
		return
	}
	news, alive := []status.Node{}, []string{n.e.Node}
	for _, st := range n.byName {
		if st.fresh {
			news, st.fresh = append(news, st.st), false
		}
	}
	if len(news) == 0 && !always {
		return
	}
	for _, nb := range n.nb {
		alive = append(alive, nb.name)
	}
	slices.Sort(alive)
	n.toldWAN = now
	for {
		k := min(len(news), maxTold)
		n.seederS.Send(&wire.SiteState{Nodes: news[:k], Alive: alive})
		if news = news[k:]; len(news) == 0 {
			return
		}
	}
}

func (n *Node) statement(name string) *statement {
	st := n.byName[name]
	if st == nil {
		st = &statement{}
		n.byName[name] = st
	}
	return st
}

// onStatus takes a neighbour's statement about itself, and about nobody else.
func (n *Node) onStatus(s *xfer.Session, m *wire.Status) {
	nb := n.nb[s.Peer()]
	if nb == nil || m.Node.Node != nb.name || m.Site != n.e.Site || m.PeerID != s.Peer().String() {
		return
	}
	st := n.statement(nb.name)
	if m.Seq < nb.said { // counted by session: a node that was set up anew begins anew
		return
	}
	nb.clock = reading{m.At, time.Now()}
	if !nb.spoke || !same(st.st, m.Node) {
		st.since = time.Now()
	}
	st.st, st.heard, st.fresh = m.Node, time.Now(), st.fresh || !nb.spoke || m.Seq > nb.said // or only the clock is news
	nb.said, nb.spoke = m.Seq, true
}

// site is the site as this node sees it.
func (n *Node) site() status.Site {
	f := n.inForce.Load()
	now := n.cfg.now().UTC()
	out := status.Site{APIVersion: status.APIVersion, Kind: "SiteStatus", Site: n.e.Site, Timezone: f.r.Timezone, AsOf: now,
		Source: n.e.Node, Roster: f.r.Version, Uplink: n.nameOf(decodePeer(n.sw.Uplink())), Nodes: []status.Seen{}, Bundles: []status.SiteWant{}}
	mine := n.describe()
	mine.Seq, mine.At = n.mine.Seq, now
	connected := map[string]bool{n.e.Node: true}
	for _, nb := range n.nb {
		connected[nb.name] = true
	}
	for _, r := range f.r.Nodes {
		seen := status.Seen{Node: status.Node{APIVersion: status.APIVersion, Kind: "NodeStatus", Site: n.e.Site, Node: r.Name, PeerID: r.PeerID,
			Phase: status.Pending, Reason: "NeverHeard", Installed: []status.InstalledItem{}, Alarms: []status.Alarm{}}, Silent: !connected[r.Name], Labels: r.Labels}
		if r.Name == n.e.Node {
			seen.Node, seen.LastSeen = mine, now
		} else if st := n.byName[r.Name]; st != nil {
			if st.st.Node != "" {
				seen.Node = st.st
			}
			if seen.LastSeen = st.heard; connected[r.Name] {
				seen.LastSeen = now
			}
		}
		seen.Node.Explain(cmp.Or(seen.LastSeen, now))
		seen.Strikes = n.strikes.against(r.Name)
		out.WAN.Payload += seen.Transfer.WANPayload
		out.WAN.Plain += seen.Transfer.FromWAN
		out.Nodes = append(out.Nodes, seen)
	}
	status.Accuse(out.Nodes)
	for _, b := range n.list() {
		w := status.SiteWant{Bundle: b.m.Name, Version: b.m.Version, Checksum: b.digest, Bytes: b.catalog.Bytes()}
		for _, s := range out.Nodes {
			if s.Desired != nil && s.Desired.Checksum == b.digest {
				w.Wanted++
				if s.Transfer.Chunks > 0 && s.Transfer.Chunks == s.Transfer.ChunksHave {
					w.Holders++
				}
			}
		}
		if w.Wanted > 0 {
			out.Bundles = append(out.Bundles, w)
			out.WAN.Needed += w.Bytes
		}
	}
	// What a node can say without the seeder: by the nodes' own reports, and at least this much came twice.
	out.WAN.Needed = min(out.WAN.Needed, out.WAN.Plain)
	out.WAN.Duplicate = out.WAN.Plain - out.WAN.Needed
	n.wanSaid.show(&out.WAN, out.Uplink, n.sw.Leads(), time.Now())
	return out
}
