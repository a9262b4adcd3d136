package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// Reports that nobody acknowledged survive a restart and are sent again, as they were; those that were acknowledged
// are not; and no number is used twice, even if the daemon is killed right after an acknowledgement.
func TestReportsSurviveARestart(t *testing.T) {
	s := newSite(t, 1)
	p := s.playSeeder()
	s.start(0)
	s.staged(s.bundle("1.0", 1, map[string][]byte{"f": random(10, 1000)}), 1, 0)
	p.await("reports", func() bool { return len(heard[*wire.Report](p)) >= 3 })
	sent := map[uint64][]byte{}
	note := func() {
		for _, r := range heard[*wire.Report](p) {
			if old, ok := sent[r.Seq]; ok && !bytes.Equal(old, r.Body) {
				t.Errorf("report %d says two things", r.Seq)
			}
			sent[r.Seq] = r.Body
		}
	}
	p.change(note)
	first := len(sent)
	s.members[0].stop()
	p.change(func() { note(); p.heard = nil })
	grant := p.answer
	last := uint64(0)
	p.answer = func(se *xfer.Session, m wire.Message) {
		grant(se, m)
		if r, ok := m.(*wire.Report); ok {
			last = max(last, r.Seq)
			se.Send(&wire.ReportAck{Site: r.Site, Node: r.Node, Seq: r.Seq})
		}
	}
	s.start(0)
	s.await(0, "rid of its reports", func(st status.Node) bool {
		return st.Outbox == 0 && st.Phase == status.Deferred && st.Transfer.Chunks > 0
	})
	var rec struct{ Report uint64 }
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(s.members[0].state, "state.json"))), &rec); err != nil {
		t.Fatal(err)
	}
	p.change(func() {
		note()
		if len(heard[*wire.Report](p)) < first {
			t.Errorf("%d reports came after the restart, %d were not acknowledged before", len(heard[*wire.Report](p)), first)
		}
		if rec.Report < last {
			t.Errorf("report %d is acknowledged and the state on disk says %d: a crash would use its number twice", last, rec.Report)
		}
	})
}

// Only the way that reports go can acknowledge them: a neighbour cannot make them vanish.
func TestNeighbourCannotAcknowledge(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	s.staged(s.bundle("1.0", 1, map[string][]byte{"f": random(11, 1000)}), 1, 0)
	liar := s.puppet(s.members[1].key, "n01")
	se := liar.dial(s.members[0].id, s.members[0].addr)
	before := s.await(0, "reporting", func(st status.Node) bool { return st.Outbox >= 3 }).Outbox
	acks := func() {
		for seq := range uint64(50) {
			se.Send(&wire.ReportAck{Site: "s1", Node: "n00", Seq: seq})
		}
		liar.fence(se, s.roster)
	}
	acks()
	if st := must(s.client(0).Node(t.Context())); st.Outbox < before {
		t.Errorf("%d reports are left of %d", st.Outbox, before)
	}
	// Positive control: the node that says it is the uplink gets the reports, and its word is taken.
	se.Send(&wire.Uplink{Holder: s.members[1].id.String()})
	liar.await("reports", func() bool { return len(heard[*wire.Report](liar)) >= 3 })
	acks()
	s.await(0, "rid of its reports", func(st status.Node) bool { return st.Outbox == 0 })
}

// The uplink hands on what a neighbour reports of itself, not what it says for others, and not without a bound.
func TestRelayIsForOwnReports(t *testing.T) {
	s := newSite(t, 2)
	p := s.playSeeder()
	s.start(0)
	s.await(0, "uplink", func(st status.Node) bool { return st.Uplink })
	liar := s.puppet(s.members[1].key, "n01")
	se := liar.dial(s.members[0].id, s.members[0].addr)
	report := func(node string, seq uint64) *wire.Report {
		return &wire.Report{Report: status.Report{Site: "s1", Node: node, Seq: seq, Body: []byte("{}"), Sig: []byte("x")}}
	}
	se.Send(report("n00", 7))
	for seq := range uint64(1000) {
		se.Send(report("n01", seq+1))
	}
	se.Send(report("n02", 8))
	liar.fence(se, s.roster)
	p.await("a report", func() bool { return len(heard[*wire.Report](p)) > 0 })
	p.change(func() {
		rs := heard[*wire.Report](p)
		if len(rs) > 64 {
			t.Errorf("%d reports were handed on without an acknowledgement", len(rs))
		}
		for _, r := range rs {
			if r.Node != "n01" {
				t.Errorf("a report of %s came from n01", r.Node)
			}
		}
	})
}

// A report that the disk spoilt does not keep the daemon from starting; the others are sent, and its number stays used.
func TestDamagedReport(t *testing.T) {
	s := newSite(t, 1)
	s.start(0)
	s.staged(s.bundle("1.0", 1, map[string][]byte{"f": random(12, 1000)}), 1, 0)
	before := s.await(0, "reporting", func(st status.Node) bool { return st.Outbox >= 3 })
	s.members[0].stop()
	box := filepath.Join(s.members[0].state, "outbox")
	es := must(os.ReadDir(box))
	name := filepath.Join(box, es[len(es)-1].Name())
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(0)
	st := s.await(0, "told", func(st status.Node) bool { return len(st.Alarms) > 0 })
	if st.Alarms[0].Code != "E4103" || st.Outbox < before.Outbox-1 {
		t.Errorf("%d reports, alarms %+v", st.Outbox, st.Alarms)
	}
	var seqs []string
	s.members[0].stop()
	for _, e := range must(os.ReadDir(box)) {
		seqs = append(seqs, e.Name())
	}
	if want := fmt.Sprintf("%.20s.damaged", filepath.Base(name)); !bytes.Contains([]byte(fmt.Sprint(seqs)), []byte(want)) {
		t.Errorf("%s is not kept: %v", want, seqs)
	}
}

// reportBody reads a report in an outbox: version, phase, reason.
func reportBody(t *testing.T, name string) string {
	t.Helper()
	b := bodyOf(t, name)
	return fmt.Sprintf("%s %s %s", b.Version, b.Phase, b.Reason)
}

func bodyOf(t *testing.T, name string) status.ReportBody {
	t.Helper()
	var r status.Report
	var body status.ReportBody
	if err := json.Unmarshal(must(os.ReadFile(name)), &r); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(r.Body, &body); err != nil {
		t.Fatal(err)
	}
	return body
}
