// Package trust decides whether a document is genuine. It is the signature policy layer: OpenPGP detached
// signatures verified with ProtonMail/go-crypto openpgp/v2 under exact settings, and on top of it the rules that
// neither that library nor gpg enforce: size caps before parsing, binary signatures only, strong hashes, keys
// allowed by fingerprint for one role, no revoked or expired key, distinct signers >= threshold.
//
// Parsing of a document comes after its verification, always over the same bytes. Time is handed in: no function
// here reads a clock, a file or a network. All functions are safe for concurrent use.
package trust

import (
	"time"
)

// Role names who may sign what.
type Role string

// The roles.
const (
	RoleRelease Role = "release" // bundle manifests and SHA256SUMS: build servers
	RolePolicy  Role = "policy"  // desired state: operators
	RoleRoster  Role = "roster"  // a site's roster: the seeder
)

// Caps applied before anything is parsed. The cost of verification grows with packets times bytes.
const (
	MaxSignatureBytes   = 8 << 10
	MaxSignaturePackets = 4
	MaxKeyringBytes     = 64 << 10
)

// MaxSkewFromCreated is how far a signature's own time may lie from the created time in the document it signs.
const MaxSkewFromCreated = 48 * time.Hour

// Signed is a document and its detached signature, binary or armoured, exactly as received.
type Signed struct {
	Doc []byte `json:"doc"`
	Sig []byte `json:"sig"`
}

// RoleKeys are the keys of one role: only primary keys whose fingerprint is listed count, and Threshold of them
// must have signed. A threshold below 1 is an error, never "no check".
type RoleKeys struct {
	Threshold    int      `json:"threshold"`
	Fingerprints []string `json:"fingerprints"` // of primary keys, 40 upper-case hex digits
	Keyring      []byte   `json:"keyring"`      // binary OpenPGP public keys, concatenated
}

// Set holds the keys of every role. It is what a node pins when it joins.
type Set struct {
	Release RoleKeys `json:"release"`
	Policy  RoleKeys `json:"policy"`
	Roster  RoleKeys `json:"roster"`
}

// Verdict says who signed and when; Signers are the distinct primary fingerprints that counted.
type Verdict struct {
	Signers []string
	Times   []time.Time // creation times of the signatures that counted, same order
}
