// Package wire is the language that nodes speak with each other and with the seeder: typed frames on persistent
// streams. A frame is one byte of type, four bytes of length (big endian) and that many bytes of payload. Every
// type has a limit in bytes, every list in it one in entries, and both are checked before anything is allocated.
//
// Hot messages (Get, Data, Have) are binary and have one spelling. The others are JSON objects: a field that is not
// known is ignored, because a site is brought up to date one node at a time and newer software says more; anything
// behind the object is an error. Nothing here is signed or decides about genuineness, so a repeated or oddly spelled
// key does no harm. What Append writes, Next reads, and Append refuses what Next would.
//
// The package is pure: it turns messages into bytes and back. Values are not safe for concurrent use; a Reader
// belongs to one goroutine, Buffers may be shared.
package wire

import (
	"fmt"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Version of the language; both ends must say the same in Hello.
const Version = 1

// Type is the first byte of a frame.
type Type byte

// The types. Numbers are never reused.
const (
	TypeHello        Type = 1
	TypePing         Type = 2
	TypePong         Type = 3
	TypeDocs         Type = 4
	TypeGetDoc       Type = 5
	TypeDoc          Type = 6
	TypeHave         Type = 7
	TypeHaveAdd      Type = 8
	TypeGet          Type = 9
	TypeData         Type = 10
	TypeRefuse       Type = 11
	TypeStatus       Type = 12
	TypeReport       Type = 13
	TypeReportAck    Type = 14
	TypeUplink       Type = 15
	TypeLeaseAsk     Type = 16
	TypeLeaseGrant   Type = 17
	TypeLeaseRefuse  Type = 18
	TypeLeaseRenew   Type = 19
	TypeLeaseRelease Type = 20
	TypeSiteState    Type = 21
)

// HeaderBytes is the size of a frame's header.
const HeaderBytes = 5

// Limits inside messages.
const (
	MaxDocs       = 1024
	MaxHaveAdd    = 4096
	MaxHaveChunks = 1 << 24 // chunks of one bundle: 4 TiB at the default size
	MaxSiteNodes  = 512     // statements, and names, in one SiteState; a roster has no more nodes
	MaxListed     = 64      // installed bundles, and alarms, in one statement
	maxDocBytes   = manifest.MaxManifestBytes
	maxSigBytes   = 16 << 10 // armoured; how much of it may be a signature is for package trust to say
)

// limits in bytes of payload; a type that is missing here is unknown.
var limits = map[Type]uint32{
	TypeHello:        4 << 10,
	TypePing:         8,
	TypePong:         8,
	TypeDocs:         512 << 10,
	TypeGetDoc:       256,
	TypeDoc:          512 << 10, // the largest document and signature, in base64
	TypeHave:         MaxHaveChunks/8 + 64,
	TypeHaveAdd:      32 + 4*MaxHaveAdd,
	TypeGet:          4 + 32,
	TypeData:         dataHead + chunk.MaxSize + 1024,
	TypeRefuse:       5,
	TypeStatus:       16 << 10,
	TypeReport:       status.MaxReportBody/3*4 + 4<<10, // the largest body in base64, signature and names
	TypeReportAck:    512,
	TypeUplink:       1 << 10,
	TypeLeaseAsk:     1 << 10,
	TypeLeaseGrant:   1 << 10,
	TypeLeaseRefuse:  1 << 10,
	TypeLeaseRenew:   1 << 10,
	TypeLeaseRelease: 1 << 10,
	TypeSiteState:    2 << 20,
}

// Message is anything that fits a frame.
type Message interface {
	Type() Type
	appendPayload(b []byte) ([]byte, error)
	parsePayload(b []byte) error
}

// Hello opens every stream, in both directions.
type Hello struct {
	Version  int    `json:"version"`
	Site     string `json:"site"`
	Name     string `json:"name"` // node name, or "seeder"
	Software string `json:"software"`
	Clock    int64  `json:"clock,omitempty"` // what the sender's clock shows, in Unix milliseconds; 0: not said
}

// Ping asks for a Pong with the same nonce: liveness and round-trip time.
type Ping struct{ Nonce uint64 }

// Pong answers a Ping.
type Pong struct{ Nonce uint64 }

// DocKind says what a signed document is.
type DocKind string

// The kinds of signed documents that nodes pass on.
const (
	DocRoster   DocKind = "roster"
	DocPolicy   DocKind = "policy"
	DocManifest DocKind = "manifest"
	DocOrder    DocKind = "order"
	DocGrant    DocKind = "grant"

	DocRevocations DocKind = "revocations" // which bundles are revoked: one list for all sites
	DocBack        DocKind = "back"        // an order of the seeder to go back, under the policy that the entry names
)

// DocEntry announces a signed document. The revision orders documents of one kind and name; it is a hint until
// the document itself has been verified.
type DocEntry struct {
	Kind     DocKind         `json:"kind"`
	Name     string          `json:"name"`
	Revision uint64          `json:"revision"`
	Digest   manifest.Digest `json:"digest"` // sha256 of the document's bytes
}

// Docs is the whole list of documents the sender holds; it replaces the list sent before.
type Docs struct {
	Entries []DocEntry `json:"entries"`
}

// GetDoc asks for a document by its digest.
type GetDoc struct {
	Digest manifest.Digest `json:"digest"`
}

// Doc carries a document and its detached signature.
type Doc struct {
	Kind DocKind `json:"kind"`
	Doc  []byte  `json:"doc"`
	Sig  []byte  `json:"sig"`
}

// Have says which chunks of a bundle the sender holds, by their numbers in the catalog. It replaces what was said
// before for the bundle. Wants: the sender needs the whole bundle (a relaying uplink does not).
type Have struct {
	Bundle manifest.Digest
	Wants  bool
	Total  uint32 // chunks in the sender's catalog: grows when the index becomes known
	Bitmap []byte // bit i of byte i/8, least significant first; ceil(Total/8) bytes
}

// HaveAdd adds chunks to the last Have of the bundle.
type HaveAdd struct {
	Bundle  manifest.Digest
	Numbers []uint32
}

// Get asks for a chunk. Req is chosen by the asker and comes back in Data or Refuse.
type Get struct {
	Req uint32
	ID  chunk.ID
}

// Data answers a Get. Encoding says how Payload holds the chunk (package encoding); the plain bytes hash to its ID.
// Payload of a parsed message is valid until the next call of Reader.Next.
type Data struct {
	Req      uint32
	Encoding byte
	Payload  []byte
}

// Reason says why a Get was refused.
type Reason byte

// The reasons.
const (
	ReasonNotHeld Reason = 1 // the chunk is not here (any more)
	ReasonBusy    Reason = 2 // too many requests wait
	ReasonNoLease Reason = 3 // the seeder serves chunks to the lease holder only
	ReasonDenied  Reason = 4
	ReasonPaused  Reason = 5 // nothing may be sent to the site now; the LeaseGrant that came before says until when
)

// String names the reason.
func (r Reason) String() string {
	switch r {
	case ReasonNotHeld:
		return "not held"
	case ReasonBusy:
		return "busy"
	case ReasonNoLease:
		return "no lease"
	case ReasonDenied:
		return "denied"
	case ReasonPaused:
		return "paused"
	}
	return fmt.Sprintf("reason %d", byte(r))
}

// Refuse answers a Get that is not served.
type Refuse struct {
	Req    uint32
	Reason Reason
}

// Status is the sender's statement about itself, for its neighbours.
type Status struct{ status.Node }

// Report hands on a report towards the seeder.
type Report struct{ status.Report }

// ReportAck says that the seeder holds the report durably.
type ReportAck struct {
	Site string `json:"site"`
	Node string `json:"node"`
	Seq  uint64 `json:"seq"`
}

// Uplink tells the neighbours who the sender believes is the uplink. Only the holder speaks for itself: Holder is
// the sender, or empty when it gave the lease back.
type Uplink struct {
	Holder string `json:"holder"`
	Split  bool   `json:"split"` // a second lease, granted because the LAN is split
}

// LeaseAsk asks the seeder for the site's uplink lease.
type LeaseAsk struct {
	Nonce uint64 `json:"nonce"`
	// Active: there is something to fetch; asks for the short lease.
	Active bool `json:"active"`
	// Unreachable is the peer ID of the holder that a refusal named and that the asker, having tried, cannot reach
	// over its LAN, neither directly nor through a neighbour. It is how a split site gets a second lease.
	Unreachable string `json:"unreachable,omitempty"`
}

// LeaseGrant answers LeaseAsk and LeaseRenew with their nonce. One that was not asked for has the nonce 0: what the site
// may use has changed. Its terms are what is left of the lease, and the holder renews at once.
type LeaseGrant struct {
	Nonce             uint64 `json:"nonce"`
	Lease             uint64 `json:"lease"`
	TTLMillis         int64  `json:"ttlMillis"`
	RenewMillis       int64  `json:"renewMillis"`
	Split             bool   `json:"split"`
	CapBytesPerSecond int64  `json:"capBytesPerSecond"` // 0: none
	// PauseMillis: chunks are not to be asked for before so many milliseconds have passed; 0: at once. Why says in a
	// few words, for people, what limits the site now, at most 160 bytes of it.
	PauseMillis int64  `json:"pauseMillis,omitempty"`
	Why         string `json:"why,omitempty"`
}

// LeaseRefuse answers LeaseAsk, and LeaseRenew of a lease that has ended.
type LeaseRefuse struct {
	Nonce       uint64 `json:"nonce"`
	Holder      string `json:"holder"` // peer ID, empty when nobody holds it
	RetryMillis int64  `json:"retryMillis"`
	Reason      string `json:"reason"`
	PauseMillis int64  `json:"pauseMillis,omitempty"` // as in LeaseGrant, and so is Why
	Why         string `json:"why,omitempty"`
}

// LeaseRenew keeps a lease.
type LeaseRenew struct {
	Nonce      uint64 `json:"nonce"`
	Lease      uint64 `json:"lease"`
	Active     bool   `json:"active"`
	SeesHolder bool   `json:"seesHolder"` // a split lease is no longer needed
}

// LeaseRelease gives a lease back.
type LeaseRelease struct {
	Lease uint64 `json:"lease"`
}

// SiteState is what the uplink tells the seeder about its neighbours: statements that changed, and who is alive.
type SiteState struct {
	Nodes []status.Node `json:"nodes"`
	Alive []string      `json:"alive"` // node names heard from recently
}
