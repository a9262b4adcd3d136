package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// Access is what a client needs to reach a seeder. "seeder serve" writes one for its administrator.
type Access struct {
	URLs  []string `json:"urls"`  // unix:///path or https://host:port, tried in order
	Pin   string   `json:"pin"`   // the seeder's peer ID; needed for https
	Token string   `json:"token"` // of the administrator; not needed on the unix socket, nor to enrol
}

// ReadAccess reads an Access from a JSON file.
func ReadAccess(name string) (Access, error) {
	b, err := durable.ReadFile(name, maxAccessBytes)
	if err == nil {
		var a Access
		if a, err = parseAccess(b); err == nil {
			return a, nil
		}
	}
	return Access{}, problem.New(problem.InvalidFile, "configuration %s", name).Because(err)
}

// maxAccessBytes bounds the file.
const maxAccessBytes = 64 << 10

func parseAccess(b []byte) (Access, error) {
	var a Access
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return Access{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Access{}, errors.New("something follows the document")
	}
	return a, nil
}

// Client speaks to a seeder. Every error is a *problem.Error, or wraps the cause of the context's end. Calls that may be
// repeated safely are, a few times, when the connection is lost or the seeder is busy.
type Client struct{ caller }

// NewClient makes a client. It connects when it is first used.
func NewClient(a Access) (*Client, error) {
	if len(a.URLs) == 0 {
		return nil, problem.New(problem.Usage, "no address of a seeder is given")
	}
	c := &Client{caller{
		token: a.Token, unreachable: problem.SeederUnreachable, sleep: sleep,
		next: "check that the seeder runs and that the address and port are right; the sites go on without it",
	}}
	for _, u := range a.URLs {
		e, err := newEndpoint(u, a.Pin)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, e)
	}
	return c, nil
}

func get(path string, q url.Values) call {
	return call{method: http.MethodGet, path: path, query: q, repeat: true}
}

// Status returns the whole fleet.
func (c *Client) Status(ctx context.Context) (status.Fleet, error) {
	return ask[status.Fleet](ctx, &c.caller, get(PathStatus, nil), nil)
}

// Sites lists the sites in the order of their names.
func (c *Client) Sites(ctx context.Context) ([]SiteInfo, error) {
	return ask[[]SiteInfo](ctx, &c.caller, get(PathSites, nil), nil)
}

// Site returns one site with its nodes.
func (c *Client) Site(ctx context.Context, site string) (status.Site, error) {
	return ask[status.Site](ctx, &c.caller, get(fill(PathSite, site), nil), nil)
}

// CreateSite makes a site. The same name twice is problem.NameTaken.
func (c *Client) CreateSite(ctx context.Context, s SiteSpec) (SiteInfo, error) {
	return ask[SiteInfo](ctx, &c.caller, call{method: http.MethodPost, path: PathSites}, s)
}

// SiteWAN returns a site's WAN profile.
func (c *Client) SiteWAN(ctx context.Context, site string) (wanprofile.Document, error) {
	return ask[wanprofile.Document](ctx, &c.caller, get(fill(PathSiteWAN, site), nil), nil)
}

// PutSiteWAN replaces a site's WAN profile and returns it as it is in force.
func (c *Client) PutSiteWAN(ctx context.Context, site string, d wanprofile.Document) (wanprofile.Document, error) {
	return ask[wanprofile.Document](ctx, &c.caller, call{method: http.MethodPut, path: fill(PathSiteWAN, site), repeat: true}, d)
}

// PutSiteZone gives a site another time zone.
func (c *Client) PutSiteZone(ctx context.Context, site, zone string) (SiteZone, error) {
	return ask[SiteZone](ctx, &c.caller, call{method: http.MethodPut, path: fill(PathSiteZone, site), repeat: true}, SiteZone{zone})
}

// CreateToken makes a join token for one node.
func (c *Client) CreateToken(ctx context.Context, site string, s TokenSpec) (TokenReply, error) {
	return ask[TokenReply](ctx, &c.caller, call{method: http.MethodPost, path: fill(PathTokens, site)}, s)
}

// Enrol redeems a token. It may be repeated: the same node gets its enrolment again. Check the answer's trust set
// against the token's pins before use.
func (c *Client) Enrol(ctx context.Context, r enrol.Request) (enrol.Enrolment, error) {
	return ask[enrol.Enrolment](ctx, &c.caller, call{method: http.MethodPost, path: PathEnrol, repeat: true}, r)
}

// RemoveNode takes a node off the roster; its connections end.
func (c *Client) RemoveNode(ctx context.Context, site, node string) error {
	return c.json(ctx, call{method: http.MethodDelete, path: fill(PathNode, site, node)}, nil, nil)
}

// Bundles lists the bundles, newest first within a name.
func (c *Client) Bundles(ctx context.Context) ([]BundleInfo, error) {
	return ask[[]BundleInfo](ctx, &c.caller, get(PathBundles, nil), nil)
}

// Bundle returns one bundle with its signed documents.
func (c *Client) Bundle(ctx context.Context, d manifest.Digest) (BundleDetail, error) {
	return ask[BundleDetail](ctx, &c.caller, get(fill(PathBundle, d.String()), nil), nil)
}

// BeginBundle starts or resumes an upload and returns what is still missing.
func (c *Client) BeginBundle(ctx context.Context, u BundleUpload) (BundleMissing, error) {
	return ask[BundleMissing](ctx, &c.caller, call{method: http.MethodPost, path: PathBundles, repeat: true}, u)
}

// PutChunk uploads the plain bytes of a chunk of a bundle that was begun.
func (c *Client) PutChunk(ctx context.Context, id chunk.ID, plain []byte) error {
	_, err := c.do(ctx, call{
		method: http.MethodPut, path: fill(PathChunk, id.String()), body: plain,
		contentType: "application/octet-stream", repeat: true, limit: MaxBody,
	})
	return err
}

// CommitBundle publishes a complete upload.
func (c *Client) CommitBundle(ctx context.Context, d manifest.Digest) (BundleInfo, error) {
	return ask[BundleInfo](ctx, &c.caller, call{method: http.MethodPost, path: fill(PathBundleCommit, d.String()), repeat: true}, nil)
}

// Policies lists the newest revision of every policy.
func (c *Client) Policies(ctx context.Context) ([]PolicyInfo, error) {
	return ask[[]PolicyInfo](ctx, &c.caller, get(PathPolicies, nil), nil)
}

// PutPolicy submits a signed policy document.
func (c *Client) PutPolicy(ctx context.Context, d trust.Signed) (PolicyInfo, error) {
	return ask[PolicyInfo](ctx, &c.caller, call{method: http.MethodPost, path: PathPolicies, repeat: true}, d)
}

// Orders lists the newest orders, in the order of their sequences.
func (c *Client) Orders(ctx context.Context) ([]OrderInfo, error) {
	return ask[[]OrderInfo](ctx, &c.caller, get(PathOrders, nil), nil)
}

// PutOrder submits a signed order.
func (c *Client) PutOrder(ctx context.Context, d trust.Signed) (OrderInfo, error) {
	return ask[OrderInfo](ctx, &c.caller, call{method: http.MethodPost, path: PathOrders, repeat: true}, d)
}

// Reports returns a page of reports.
func (c *Client) Reports(ctx context.Context, q ReportQuery) (ReportPage, error) {
	v := url.Values{}
	if q.Site != "" {
		v.Set("site", q.Site)
	}
	if q.Node != "" {
		v.Set("node", q.Node)
	}
	if q.After != 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Newest {
		v.Set("newest", "1")
	}
	return ask[ReportPage](ctx, &c.caller, get(PathReports, v), nil)
}

// GetChunk returns the verified plain bytes of a chunk.
func (c *Client) GetChunk(ctx context.Context, id chunk.ID) ([]byte, error) { return c.chunk(ctx, id) }
