package node

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/status"
)

// outbox keeps the reports that the seeder has not acknowledged, one file each, and says which to send when. A
// report leaves only on the seeder's acknowledgement; sent twice, it is stored once, by node and number. Owned by
// the loop.
type outbox struct {
	d       dir
	key     crypto.PrivKey
	waiting []status.Report
	sent    map[uint64]time.Time
	damaged int // reports that could not be read
}

// resendAfter is how long an acknowledgement may take before a report is sent again.
const resendAfter = 10 * time.Second

// Bounds of what awaits an acknowledgement at a time: reports, and bytes of them. The bytes of the largest reports, sent
// again and again, stay within what a neighbour lets pass (xfer.NodeToll).
const (
	maxBurst      = 64
	maxBurstBytes = 256 << 10
)

func openOutbox(d dir, key crypto.PrivKey) (*outbox, uint64, error) {
	o := &outbox{d: d, key: key, sent: map[uint64]time.Time{}}
	es, err := os.ReadDir(d.path("outbox"))
	if err != nil {
		return nil, 0, err
	}
	var last uint64
	for _, e := range es {
		name, kind, _ := strings.Cut(e.Name(), ".")
		seq, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			continue
		}
		if last = max(last, seq); kind != "json" {
			continue
		}
		var r status.Report
		if err := readJSON(d.path("outbox", e.Name()), &r); err != nil || r.Seq != seq {
			// One report that the disk spoilt is no reason not to start. Its number stays used.
			if err := durable.Rename(d.path("outbox", e.Name()), d.path("outbox", name+".damaged")); err != nil {
				return nil, 0, err
			}
			o.damaged++
			continue
		}
		o.waiting = append(o.waiting, r)
	}
	slices.SortFunc(o.waiting, func(a, b status.Report) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return o, last, nil
}

func (o *outbox) file(seq uint64) string { return o.d.path("outbox", fmt.Sprintf("%020d.json", seq)) }

// seal signs a statement.
func (o *outbox) seal(body status.ReportBody) (status.Report, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return status.Report{}, err
	}
	sig, err := o.key.Sign(b)
	return status.Report{Site: body.Site, Node: body.Node, Seq: body.Seq, Body: b, Sig: sig}, err
}

// write makes a report durable, forget removes it again; both run beside the loop. A removal that a crash undoes is
// harmless: the report is sent and acknowledged again.
func (o *outbox) write(r status.Report) error { return writeJSON(o.file(r.Seq), r, 0o600) }
func (o *outbox) forget(seq uint64) error     { return durable.Remove(o.file(seq)) }

// keep makes a durable report one to send.
func (o *outbox) keep(r status.Report) { o.waiting = append(o.waiting, r) }

// acked: the seeder holds the report. It reports whether we still had it.
func (o *outbox) acked(seq uint64) bool {
	delete(o.sent, seq)
	n := len(o.waiting)
	o.waiting = slices.DeleteFunc(o.waiting, func(r status.Report) bool { return r.Seq == seq })
	return len(o.waiting) < n
}

// due returns the reports to send now, oldest first, and notes them as sent.
func (o *outbox) due(now time.Time) (out []status.Report) {
	for _, r := range o.burst() {
		if at, ok := o.sent[r.Seq]; ok && now.Sub(at) < resendAfter {
			continue
		}
		o.sent[r.Seq] = now
		out = append(out, r)
	}
	return out
}

// burst is the reports that may be under way, oldest first.
func (o *outbox) burst() []status.Report {
	bytes := 0
	for i, r := range o.waiting {
		if bytes += len(r.Body); i == maxBurst || i > 0 && bytes > maxBurstBytes {
			return o.waiting[:i]
		}
	}
	return o.waiting
}

// retry makes all reports due again: the way to the seeder has changed.
func (o *outbox) retry() { clear(o.sent) }
