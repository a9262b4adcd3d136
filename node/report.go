package node

import (
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// report puts a change of phase into the outbox, if it is news.
func (n *Node) report(name string, l *Life) {
	t := n.rec.Told[name]
	if t == nil {
		t = &told{}
		n.rec.Told[name] = t
	}
	if !t.news(n.cfg.now(), l) {
		l.answer = nil
		return
	}
	n.rec.Report++
	body := status.ReportBody{Site: n.e.Site, Node: n.e.Node, Seq: n.rec.Report, Occurred: n.cfg.now().UTC(), Phase: l.Phase,
		Outcome: l.Outcome, Reason: l.Reason, Code: string(l.Code), Bundle: name, Detail: l.Detail, Order: l.Order}
	if !Final(l.Phase) && l.Phase != status.Deferred {
		body.Outcome = ""
	}
	if t := l.Target; t != nil {
		body.Policy, body.Revision, body.Version, body.Checksum = t.Policy, t.Revision, t.Version, t.Checksum
	}
	if l.Phase == status.Staged {
		body.Seconds, l.took = int64(l.took/time.Second), 0
	}
	if (l.Phase == status.Deferred || l.Phase == status.Scheduled) && !l.Next.IsZero() {
		at := l.Next.UTC().Truncate(time.Second)
		body.Next = &at
	}
	if l.Phase == status.Installed && l.inForce() && body.Outcome == "" { // it was asked for again, and is there
		body.Outcome = string(install.Success)
	}
	final := Final(l.Phase) && body.Outcome != ""
	if final {
		n.stub(&body, l.answer, l.Installed)
		if t := l.Target; t != nil {
			body.Receipt.Commit = t.Commit
		}
	}
	if r := l.answer; r != nil {
		body.Packages, body.Seconds, body.Snapshot, body.Reboot, body.Log = r.Changes, r.Seconds, r.Snapshot, r.Reboot, r.Log
		body.Detail = detailOf(*r)
		l.answer = nil
	}
	hash := n.file(body)
	if final && l.inForce() {
		l.Installed.Receipt = hash.String()
	}
}

// file signs a report, puts it into the outbox, and names it. A receipt is sent once it is durable in the chain as well;
// another report is sent even if the disk refuses it.
func (n *Node) file(body status.ReportBody) manifest.Digest {
	if n.quarantine.held() && body.Quarantine == nil {
		body.Quarantine = n.quarantine.say()
	}
	r, err := n.out.seal(body.Fit())
	if err != nil { // a time beyond the year 9999
		n.event(problem.Internal, "a report could not be signed: %v", err)
		return manifest.Digest{}
	}
	if l, err := status.NewLink(r); err == nil {
		n.chain.extend(l)
		n.unwritten = append(n.unwritten, l)
		n.writeReceipts(len(n.unwritten) - 1)
		return l.Hash
	}
	n.disk.add(func() error { return n.out.write(r) }, func(err error) {
		if err != nil {
			n.log.Error("report is not durable; it is sent all the same", "err", err)
			n.event(diskCode(err), "a report could not be kept on disk: %v", err)
		}
		n.enqueue(r)
	})
	return manifest.DigestOf(r.Body)
}

// writeReceipts queues for the disk what is left of the chain, in its order. What the disk refuses is tried again some
// ticks later.
func (n *Node) writeReceipts(from int) {
	for _, l := range n.unwritten[from:] {
		n.writing++
		n.disk.add(func() error { return n.chain.put(n.out, l) }, func(err error) {
			n.writing--
			if err != nil {
				n.retryReceipts = time.Now().Add(resendAfter)
				n.log.Error("receipt is not durable; it is not sent", "number", l.Body.Receipt.Number, "err", err)
				n.event(diskCode(err), "a receipt could not be kept on disk: %v", err)
				return
			}
			n.unwritten = n.unwritten[1:] // they succeed in order
			n.enqueue(l.Signed)
		})
	}
}

// resumeReceipts tries again what the disk refused.
func (n *Node) resumeReceipts(now time.Time) {
	if n.writing == 0 && len(n.unwritten) > 0 && now.After(n.retryReceipts) {
		n.writeReceipts(0)
	}
}

// enqueue makes a report one to send.
func (n *Node) enqueue(r status.Report) {
	n.out.keep(r)
	gone, lost := n.out.compact()
	for _, seq := range gone {
		n.disk.add(func() error { return n.out.forget(seq) }, nil)
	}
	if lost > 0 {
		n.event(problem.SeederUnreachable, "%d reports that the seeder never had were dropped: %d are the most that are kept", lost, maxOutbox)
	}
}

// sendReports sends what is due towards the seeder: there if we are the uplink, else through the uplink.
func (n *Node) sendReports() {
	if len(n.out.waiting) == 0 {
		return
	}
	s := n.nextHop()
	if s == nil {
		return
	}
	n.reportsTo = s.Peer()
	for _, r := range n.out.due(time.Now()) {
		s.Send(&wire.Report{Report: r})
	}
}

// nextHop is the session towards the seeder, nil when there is no way.
func (n *Node) nextHop() *xfer.Session {
	if n.sw.Leads() {
		return n.seederS
	}
	holder, _ := n.sw.Near()
	if nb := n.nb[decodePeer(holder)]; nb != nil {
		return nb.s
	}
	return nil
}

// relay hands on a neighbour's own report, not too many and not too often. Nothing is kept: the neighbour sends it
// again until it is acknowledged.
func (n *Node) relay(from *xfer.Session, m *wire.Report) {
	nb, now := n.nb[from.Peer()], time.Now()
	if nb == nil || m.Node != nb.name || m.Site != n.e.Site || !n.sw.Leads() || n.seederS == nil {
		return
	}
	at, known := nb.relaying[m.Seq]
	if known && now.Sub(at) < resendAfter/2 || !known && len(nb.relaying) >= maxBurst {
		return
	}
	nb.relaying[m.Seq] = now
	n.seederS.Send(m)
}

// onAck forgets our own report, or hands the seeder's acknowledgement back to whose report it is. An acknowledgement
// counts from the seeder, and from the neighbour that our reports go through.
func (n *Node) onAck(from *xfer.Session, m *wire.ReportAck) {
	if m.Site != n.e.Site {
		return
	}
	if m.Node == n.e.Node {
		if (from.Peer() == n.seeder || from.Peer() == n.reportsTo) && n.out.acked(m.Seq) {
			n.disk.add(func() error { return n.out.forget(m.Seq) }, nil)
		}
		return
	}
	if from.Peer() != n.seeder {
		return
	}
	for _, nb := range n.nb {
		if _, ok := nb.relaying[m.Seq]; ok && nb.name == m.Node {
			delete(nb.relaying, m.Seq)
			nb.s.Send(m)
		}
	}
}
