package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// keptReceipts is how many of the newest receipts stay on the node, whether the seeder has them or not.
const keptReceipts = 64

// receipts is the end of the chain of receipts, in files whose names say number and hash: a file that the disk spoils
// still says how the chain goes on. A receipt is written to the outbox first and then here, and is not sent before both
// are durable. So whatever instant a crash comes at, the head is the newest of what is in either place, and nobody has
// seen a receipt that is in neither: the chain cannot fork. Owned by the loop.
type receipts struct {
	d      dir
	number uint64          // of the head; 0: there is none
	hash   manifest.Digest // of the head

	written uint64   // of the newest on disk; like kept, of whoever writes
	kept    []string // names, oldest first
}

// openReceipts finds the head, and copies what a crash left in the outbox only. It returns the highest number of a report
// that was used for a receipt.
func openReceipts(d dir, waiting []status.Report) (*receipts, uint64, error) {
	c := &receipts{d: d}
	es, err := os.ReadDir(d.path("receipts"))
	if err != nil {
		return nil, 0, err
	}
	var last uint64
	for _, e := range es {
		number, hash, ok := parseReceiptName(e.Name())
		if !ok {
			continue
		}
		c.kept = append(c.kept, e.Name()) // in the order of their names, which is that of the numbers
		if number > c.number {
			c.number, c.hash = number, hash
		}
		var r status.Report
		if err := readJSON(d.path("receipts", e.Name()), &r); err == nil {
			last = max(last, r.Seq)
		}
	}
	for _, r := range waiting {
		l, err := status.NewLink(r)
		if err != nil || l.Body.Receipt.Number <= c.number { // no receipt, or one that we have
			continue
		}
		if err := c.write(l); err != nil {
			return nil, 0, err
		}
		c.extend(l)
	}
	c.written = c.number
	return c, last, nil
}

func receiptName(number uint64, hash manifest.Digest) string {
	return fmt.Sprintf("%020d-%s.json", number, hex.EncodeToString(hash[:]))
}

func parseReceiptName(name string) (number uint64, hash manifest.Digest, ok bool) {
	digits, rest, found := strings.Cut(name, "-")
	text, isJSON := strings.CutSuffix(rest, ".json")
	number, err := strconv.ParseUint(digits, 10, 64)
	if !found || !isJSON || err != nil || number == 0 {
		return 0, hash, false
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(hash) {
		return 0, hash, false
	}
	return number, manifest.Digest(b), true
}

// next fills in where in the chain a receipt stands.
func (c *receipts) next(r *status.Receipt) {
	r.Number = c.number + 1
	if c.number > 0 {
		hash := c.hash
		r.Previous = &hash
	}
}

// extend makes a receipt that was signed the head.
func (c *receipts) extend(l status.Link) { c.number, c.hash = l.Body.Receipt.Number, l.Hash }

// errEarlier: a receipt is not written before the one that it names.
var errEarlier = errors.New("an earlier receipt is not on disk yet")

// put makes a receipt durable, in the outbox and then here, and removes the oldest that is one too many. It runs beside
// the loop, one call at a time.
func (c *receipts) put(o *outbox, l status.Link) error {
	number := l.Body.Receipt.Number
	if number != c.written+1 {
		return errEarlier
	}
	if err := o.write(l.Signed); err != nil {
		return err
	}
	if err := c.write(l); err != nil {
		return err
	}
	c.written = number
	return nil
}

// write makes a receipt durable here. That an old one cannot be removed does no harm.
func (c *receipts) write(l status.Link) error {
	name := receiptName(l.Body.Receipt.Number, l.Hash)
	if err := writeJSON(c.d.path("receipts", name), l.Signed, 0o600); err != nil {
		return err
	}
	c.kept = append(c.kept, name)
	for len(c.kept) > keptReceipts && durable.Remove(c.d.path("receipts", c.kept[0])) == nil {
		c.kept = c.kept[1:]
	}
	return nil
}

// stub makes the report of a final outcome a receipt. r is what the executor said; nil: it was not asked.
func (n *Node) stub(body *status.ReportBody, r *install.Result, inForce *status.InstalledItem) {
	ahead := n.skew()
	now := n.cfg.now().UTC().Add(ahead).Truncate(time.Millisecond)
	c := &status.Receipt{Started: now, Ended: now, Clock: ahead.Milliseconds(), Software: build.Software("meshd"), Zoneinfo: zoneinfo()}
	if r != nil {
		if !r.Started.IsZero() && !r.Ended.IsZero() {
			c.Started, c.Ended = r.Started.UTC().Add(ahead), r.Ended.UTC().Add(ahead)
		}
		c.From, c.Packages = receiptBundle(r.Before), r.PackageSet
	}
	if inForce != nil {
		c.Now = &status.ReceiptBundle{Version: inForce.Version, Checksum: inForce.Checksum}
	}
	if r == nil || r.Before == nil && r.Reason == install.ReasonNothingToDo {
		c.From = c.Now // nothing was changed
	}
	n.chain.next(c)
	body.Receipt = c
}

func receiptBundle(r *ledger.Release) *status.ReceiptBundle {
	if r == nil {
		return nil
	}
	return &status.ReceiptBundle{Version: r.Version, Checksum: r.Checksum}
}
