package node

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// report puts a change of phase into the outbox.
func (n *Node) report(name string, l *Life) {
	n.rec.Report++
	body := status.ReportBody{Site: n.e.Site, Node: n.e.Node, Seq: n.rec.Report, Occurred: n.cfg.now().UTC(), Phase: l.Phase,
		Outcome: l.Outcome, Reason: l.Reason, Code: string(l.Code), Bundle: name, Detail: l.Detail}
	if !Final(l.Phase) && l.Phase != status.Deferred {
		body.Outcome = ""
	}
	if t := l.Target; t != nil {
		body.Policy, body.Revision, body.Version, body.Checksum = t.Policy, t.Revision, t.Version, t.Checksum
	}
	r, err := n.out.seal(body)
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return n.out.write(r)
	}, func(err error) {
		if err != nil {
			n.log.Error("report is not durable; it is sent all the same", "err", err)
			n.alarm(string(problem.CodeOf(err)), "a report could not be kept on disk: %v", err)
		}
		n.out.keep(r)
	})
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

// maxRelayed bounds the reports of neighbours whose acknowledgement is awaited.
const maxRelayed = 4096

// relay hands on a neighbour's report. Nothing is kept: the neighbour sends it again until it is acknowledged.
func (n *Node) relay(from *xfer.Session, m *wire.Report) {
	if !n.sw.Leads() || n.seederS == nil || m.Site != n.e.Site {
		return
	}
	if len(n.relayed) >= maxRelayed {
		clear(n.relayed)
	}
	n.relayed[relayKey{m.Node, m.Seq}] = from.Peer()
	n.seederS.Send(m)
}

// onAck forgets our own report, or hands the acknowledgement back to whose it is.
func (n *Node) onAck(m *wire.ReportAck) {
	if m.Node == n.e.Node {
		if n.out.acked(m.Seq) {
			n.disk.add(func() error { return n.out.forget(m.Seq) }, nil)
		}
		return
	}
	k := relayKey{m.Node, m.Seq}
	to, ok := n.relayed[k]
	if !ok {
		return
	}
	delete(n.relayed, k)
	if nb := n.nb[to]; nb != nil {
		nb.s.Send(m)
	}
}

// alarm raises or refreshes something an operator should see.
func (n *Node) alarm(code, format string, args ...any) {
	a, ok := n.alarms[code]
	if !ok {
		a = status.Alarm{Code: code, Since: n.cfg.now().UTC()}
	}
	a.Message = fmt.Sprintf(format, args...)
	n.alarms[code] = a
}

func (n *Node) clearAlarm(code string) { delete(n.alarms, code) }
