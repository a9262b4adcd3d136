// Package api holds the HTTP interfaces of seeder and node: paths, documents, the problem+json form of errors, the
// clients that speak them, and the few pieces both servers share (chunk gateway, hardened server, pinned TLS). What the
// seeder and the node do when they are asked lives in their own rooms.
//
// The seeder's API is served on a unix socket, where the file's permissions are the credential, and on TLS, where the
// certificate is the seeder's mesh identity (clients pin its peer ID) and administrators show a bearer token. The node's
// API is served on a unix socket only.
//
// Requests are decoded strictly. Answers are decoded leniently, so that fields may be added. Clients and handlers may be
// used from any goroutine.
package api

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Paths of the seeder's API, as net/http patterns without the method.
const (
	PathHealth       = "/healthz"
	PathStatus       = "/api/v1/status"
	PathSites        = "/api/v1/sites"
	PathSite         = "/api/v1/sites/{site}"
	PathSiteWAN      = "/api/v1/sites/{site}/wan"
	PathSiteZone     = "/api/v1/sites/{site}/timezone"
	PathTokens       = "/api/v1/sites/{site}/tokens"
	PathNode         = "/api/v1/sites/{site}/nodes/{node}"
	PathEnrol        = "/api/v1/enrol"
	PathBundles      = "/api/v1/bundles"
	PathBundle       = "/api/v1/bundles/{digest}"
	PathBundleCommit = "/api/v1/bundles/{digest}/commit"
	PathChunk        = "/api/v1/chunks/{cid}"
	PathPolicies     = "/api/v1/policies"
	PathOrders       = "/api/v1/orders"
	PathReports      = "/api/v1/reports"
	PathGateway      = "/ipfs/{cid}"
)

// Paths of the node's API, beside PathHealth and PathGateway.
const (
	PathLocalStatus = "/v1/status"
	PathLocalNode   = "/v1/node"
	PathLocalImport = "/v1/import"
)

// Limits of bodies, in bytes.
const (
	MaxBody       = 1 << 20  // of a request, unless said otherwise
	MaxEnrolBody  = 16 << 10 // of a request that shows no credential but the one inside
	MaxUploadBody = 96 << 20 // of BundleUpload: the largest index in base64, and the rest
	maxAnswer     = 128 << 20
)

// SiteSpec asks for a new site.
type SiteSpec struct {
	Name              string `json:"name"`
	Timezone          string `json:"timezone"`          // IANA name; empty: not known, and what a policy says in the time zone of the site does not begin
	CapBytesPerSecond int64  `json:"capBytesPerSecond"` // of the site's link, overhead included; 0: no cap
}

// SiteZone is a site's time zone, an IANA name.
type SiteZone struct {
	Timezone string `json:"timezone"`
}

// SiteInfo is a site as the list shows it.
type SiteInfo struct {
	SiteSpec
	RosterVersion uint64 `json:"rosterVersion"`
	Nodes         int    `json:"nodes"`
}

// TokenSpec asks for a join token.
type TokenSpec struct {
	TTLSeconds int64             `json:"ttlSeconds"` // 0: one hour; at most 24 hours
	Labels     map[string]string `json:"labels"`     // of the node that redeems it
	WAN        roster.WAN        `json:"wan"`        // of the node that redeems it; empty: allow
}

// TokenReply carries the token as one word, for "meshd join".
type TokenReply struct {
	Site    string    `json:"site"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// BundleState says how far an upload is.
type BundleState string

// The states. Only a committed bundle may be named by a policy or reaches a site.
const (
	BundleUploading BundleState = "uploading"
	BundleCommitted BundleState = "committed"
)

// BundleUpload begins or resumes an upload. The seeder cuts the index into its chunks itself.
type BundleUpload struct {
	Manifest trust.Signed `json:"manifest"`
	Index    []byte       `json:"index"`
	Sums     trust.Signed `json:"sums"` // SHA256SUMS and its signature
}

// BundleMissing answers BundleUpload.
type BundleMissing struct {
	Digest  manifest.Digest `json:"digest"`
	State   BundleState     `json:"state"`
	Missing []chunk.ID      `json:"missing"` // still to be PUT before the commit
}

// BundleInfo is a bundle as the list shows it.
type BundleInfo struct {
	Digest   manifest.Digest `json:"digest"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Cycle    string          `json:"cycle"`
	Sequence uint64          `json:"sequence"`
	Target   manifest.Target `json:"target"`
	State    BundleState     `json:"state"`
	Files    int             `json:"files"`
	Bytes    int64           `json:"bytes"`  // of all files
	Chunks   int             `json:"chunks"` // distinct, the index's among them
	Distinct int64           `json:"distinct"`
	Created  time.Time       `json:"created"`
	Revoked  string          `json:"revoked,omitempty"` // why; empty: it is not
}

// BundleDetail is one bundle with its signed documents.
type BundleDetail struct {
	BundleInfo
	Manifest trust.Signed `json:"manifest"`
	Sums     trust.Signed `json:"sums"`
}

// PolicyInfo is the newest revision of a policy.
type PolicyInfo struct {
	Name     string          `json:"name"`
	Revision uint64          `json:"revision"`
	Created  time.Time       `json:"created"`
	Deleted  bool            `json:"deleted"`
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Document trust.Signed    `json:"document"`
}

// OrderInfo is an operator's order.
type OrderInfo struct {
	Order    order.Order  `json:"order"`
	Nodes    int          `json:"nodes"` // for which it is, by the rosters now
	Recorded time.Time    `json:"recorded"`
	Document trust.Signed `json:"document"`
}

// ReportQuery selects reports. Empty fields select all.
type ReportQuery struct {
	Site   string
	Node   string
	After  int64 // cursor of the last page; 0 is the beginning
	Limit  int   // 1 to 1000; 0 is 100
	Newest bool  // of more than Limit the newest, in the same order
}

// ReportPage is a page of reports in the order in which the seeder recorded them.
type ReportPage struct {
	Reports []RecordedReport `json:"reports"`
	Next    int64            `json:"next"` // cursor for ReportQuery.After
}

// RecordedReport is a report and when it arrived. It is in the seeder's database exactly once.
type RecordedReport struct {
	Recorded time.Time         `json:"recorded"`
	Body     status.ReportBody `json:"body"`
	Signed   status.Report     `json:"signed"`
}

// ImportResult is the node's answer to a stick file.
type ImportResult struct {
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Chunks   int             `json:"chunks"`   // distinct chunks of the bundle
	Added    int             `json:"added"`    // of them new to this node
	Bytes    int64           `json:"bytes"`    // of the new ones
	Policies int             `json:"policies"` // accepted from the stick
	Grants   int             `json:"grants"`   // on the stick for this site
}
