package node

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// What an outbox full of the largest reports sends, and sends again for an hour because nobody acknowledges it, a
// neighbour lets pass; and each fits its frame.
func TestLargeReportsPass(t *testing.T) {
	body := status.ReportBody{Site: "s1", Node: "n00", Seq: 1, Phase: status.Installed, Reason: "Installed"}
	for len(body.Packages) < status.MaxReportPackages {
		body.Packages = append(body.Packages, packages.Change{Name: "libsomething-with-a-long-name-1", Arch: "amd64", From: "1:2.5.0-1+deb12u2~bpo11+1.2.3", To: "1:2.5.0-1+deb12u5~bpo11+1.2.3"})
	}
	body = body.Fit()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &outbox{key: key, sent: map[uint64]time.Time{}}
	for seq := range uint64(maxOutbox) {
		body.Seq = seq + 1
		r, err := o.seal(body)
		if err != nil {
			t.Fatal(err)
		}
		o.keep(r)
	}
	if n := len(o.waiting[0].Body); n < status.MaxReportBody*3/4 {
		t.Fatalf("the largest report has only %d bytes", n)
	}
	due := xfer.NodeToll()[wire.TypeReport]
	level, most, sent := 0.0, 0.0, 0
	now := time.Unix(0, 0)
	for range 3600 {
		level = max(0, level-due.Rate)
		for _, r := range o.due(now) {
			b, err := wire.Append(nil, &wire.Report{Report: r})
			if err != nil {
				t.Fatal(err)
			}
			level += 1 + float64(len(b))/1024
			most = max(most, level)
			sent++
		}
		now = now.Add(time.Second)
	}
	if most > due.Burst/2 || sent < 360 {
		t.Errorf("%d reports sent in an hour, %.0f units at most of %.0f", sent, most, due.Burst)
	}
	t.Logf("%d reports of %d bytes sent in an hour, %.0f units at most of %.0f", sent, len(o.waiting[0].Body), most, due.Burst)
}
