package seeder

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// maxIntake is how many reports one commit takes: the fsync is shared, the wait stays short.
const maxIntake = 256

// intake brings reports to disk and acknowledges each after the commit that holds it.
type intake struct {
	db      *fleet.Store
	members *members
	log     *slog.Logger
	queue   chan arrival
}

type arrival struct {
	report fleet.Report
	from   *xfer.Session
}

func newIntake(db *fleet.Store, m *members, log *slog.Logger) *intake {
	return &intake{db: db, members: m, log: log, queue: make(chan arrival, maxIntake)}
}

// verify finds the key that signed a report among those that the node's name has had, and checks what it says of itself.
func (in *intake) verify(ctx context.Context, r status.Report, now time.Time) (fleet.Report, error) {
	out := fleet.Report{Report: r, Recorded: now}
	if _, err := reportBody(r); err != nil {
		return out, err
	}
	signed := func(peer string) bool {
		key, err := api.ParsePeerID(peer)
		return err == nil && ed25519.Verify(key, r.Body, r.Sig)
	}
	present, ok := in.members.named(r.Site, r.Node)
	if ok && signed(present.PeerID) { // mostly it is the one in force
		out.Peer = present.PeerID
		return out, nil
	}
	peers, err := in.db.PeersOf(ctx, r.Site, r.Node)
	if err != nil {
		return out, err
	}
	for _, p := range peers {
		if p != present.PeerID && signed(p) {
			out.Peer = p
			return out, nil
		}
	}
	return out, fmt.Errorf("report %d of %s/%s: no key of that node made the signature", r.Seq, r.Site, r.Node)
}

// reportBody decodes what a report says and checks it against its envelope. A node may be newer than we are: fields that
// are not known are kept as they were signed, and passed over.
func reportBody(r status.Report) (status.ReportBody, error) {
	var b status.ReportBody
	d := json.NewDecoder(bytes.NewReader(r.Body))
	if err := d.Decode(&b); err != nil {
		return b, fmt.Errorf("report %d of %s/%s: %w", r.Seq, r.Site, r.Node, err)
	}
	if d.More() || b.Site != r.Site || b.Node != r.Node || b.Seq != r.Seq || r.Seq == 0 || r.Seq > math.MaxInt64 {
		return b, fmt.Errorf("report %d of %s/%s: its body is of report %d of %s/%s", r.Seq, r.Site, r.Node, b.Seq, b.Site, b.Node)
	}
	return b, nil
}

// run commits what arrives until ctx ends. A session whose reports could not be kept ends: the node sends again.
func (in *intake) run(ctx context.Context) error {
	for {
		var batch []arrival
		select {
		case a := <-in.queue:
			batch = append(batch, a)
		case <-ctx.Done():
			return nil
		}
		for len(batch) < maxIntake && len(in.queue) > 0 {
			batch = append(batch, <-in.queue)
		}
		list := make([]fleet.Report, len(batch))
		for i, a := range batch {
			list[i] = a.report
		}
		conflicts, err := in.db.AddReports(ctx, list)
		if err != nil {
			in.log.Error("reports not recorded", "count", len(list), "err", err)
			for _, a := range batch {
				a.from.End(fmt.Errorf("reports not recorded: %w", err))
			}
			continue
		}
		for _, c := range conflicts {
			in.log.Warn("a node signed two different reports with one number; the first stays", "site", c.Site, "node", c.Node, "seq", c.Seq)
		}
		for _, a := range batch {
			a.from.Send(&wire.ReportAck{Site: a.report.Site, Node: a.report.Node, Seq: a.report.Seq})
		}
	}
}
