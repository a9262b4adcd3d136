package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Paths of receipts and of what they say.
const (
	PathReceipts   = "/api/v1/receipts"
	PathCompliance = "/api/v1/compliance"
	PathLegacy     = "/api/report" // of the scripts that came before: {host, status, bundle}
)

// ComplianceQuery asks what each node ran at one time, by what was known at another. Zero times: now.
type ComplianceQuery struct {
	AsOf, KnownAt time.Time
	Site          string
	Policy        string
	Bundle        string
	Selector      string // labels, KEY=VALUE, joined by ','
	After         string // cursor of the last page
	Limit         int    // 1 to 1000; 0 is 500
}

// CompliancePage is a page in the order of site, node, bundle.
type CompliancePage struct {
	AsOf    time.Time       `json:"asOf"`
	KnownAt time.Time       `json:"knownAt"`
	Rows    []ComplianceRow `json:"rows"`
	Next    string          `json:"next,omitempty"`
}

// ComplianceRow is one node and bundle. A node of which nothing is known has a row as well.
type ComplianceRow struct {
	Site      string           `json:"site"`
	Node      string           `json:"node"`
	PeerID    string           `json:"peerId"`
	Bundle    string           `json:"bundle"`
	Version   string           `json:"version"` // in force; empty: nothing, or not known
	Checksum  *manifest.Digest `json:"checksum,omitempty"`
	Since     *time.Time       `json:"since,omitempty"`
	Policy    string           `json:"policy"`
	Revision  uint64           `json:"revision,omitempty"`
	Commit    string           `json:"commit"`
	SignedBy  string           `json:"signedBy"` // fingerprints of the primary keys that signed the policy's revision, joined by '+'
	Snapshot  string           `json:"snapshot"`
	Outcome   string           `json:"outcome"`
	Reason    string           `json:"reason"`
	Receipt   *manifest.Digest `json:"receipt,omitempty"`
	Occurred  *time.Time       `json:"occurredAt,omitempty"`
	Recorded  *time.Time       `json:"recordedAt,omitempty"`
	LastKnown bool             `json:"lastKnown"` // the node was silent at that time: this is the last that is known
	Source    string           `json:"source"`    // receipt; unsigned, of an old script; none
	Gap       bool             `json:"gap"`       // receipts of the node's chain are missing
	Revoked   bool             `json:"revoked"`   // the bundle had been revoked by then, as far as was known: not compliant
}

// ReceiptQuery selects receipts. Empty fields select all.
type ReceiptQuery struct {
	Site, Node string
	After      int64
	Limit      int
}

// ReceiptPage is a page of receipts in the order in which they were recorded.
type ReceiptPage struct {
	Receipts []RecordedReceipt `json:"receipts"`
	Next     int64             `json:"next"`
}

// RecordedReceipt is a receipt with all that a stranger needs to verify it: the node's public key is its peer ID.
type RecordedReceipt struct {
	Hash     manifest.Digest   `json:"hash"`
	PeerID   string            `json:"peerId"`
	Recorded time.Time         `json:"recordedAt"`
	Body     status.ReportBody `json:"body"`
	Signed   status.Report     `json:"signed"`
}

// LegacyReport is what the old scripts send.
type LegacyReport struct {
	Host   string `json:"host"`
	Status string `json:"status"`
	Bundle string `json:"bundle"`
}

// Compliance returns a page of what each node ran. A walk over all pages gives the times of the first page with each
// further one, so that all are of the same moment.
func (c *Client) Compliance(ctx context.Context, q ComplianceQuery) (CompliancePage, error) {
	v := url.Values{}
	for name, t := range map[string]time.Time{"asOf": q.AsOf, "knownAt": q.KnownAt} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	for name, s := range map[string]string{"site": q.Site, "policy": q.Policy, "bundle": q.Bundle, "selector": q.Selector, "after": q.After} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return ask[CompliancePage](ctx, &c.caller, get(PathCompliance, v), nil)
}

// Receipts returns a page of receipts, in the order in which they were recorded.
func (c *Client) Receipts(ctx context.Context, q ReceiptQuery) (ReceiptPage, error) {
	v := url.Values{}
	for name, s := range map[string]string{"site": q.Site, "node": q.Node} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if q.After != 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return ask[ReceiptPage](ctx, &c.caller, get(PathReceipts, v), nil)
}

// PutLegacy sends what an old script has to say.
func (c *Client) PutLegacy(ctx context.Context, r LegacyReport) error {
	return c.json(ctx, call{method: http.MethodPost, path: PathLegacy}, r, nil)
}
