package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

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
