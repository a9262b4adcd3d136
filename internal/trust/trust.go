// Package trust decides whether a document is genuine. It is the signature policy layer: OpenPGP detached
// signatures verified with ProtonMail/go-crypto openpgp/v2 under exact settings, and on top of it the rules that
// neither that library nor gpg enforce: size caps before parsing, binary signatures only, strong hashes, keys
// allowed by fingerprint for one role, no revoked or expired key, distinct signers >= threshold.
//
// A signature file holds good signatures only: one bad or unknown signature refuses the whole, as the documented
// check with stock gpgv does. What this package accepts, gpgv accepts; the reverse is not so.
//
// Parsing of a document comes after its verification, always over the same bytes. Time is handed in: no function
// here reads a clock, a file or a network. All functions are safe for concurrent use.
package trust

import (
	"slices"
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

// Roles returns every role, in a fixed order.
func Roles() []Role { return []Role{RoleRelease, RolePolicy, RoleRoster} }

// Caps applied before anything is parsed. The cost of verification grows with packets times bytes.
const (
	MaxSignatureBytes   = 8 << 10
	MaxSignaturePackets = 4
	MaxKeyringBytes     = 64 << 10
	MaxKeys             = 16 // of one role
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
	Keyring      []byte   `json:"keyring"`      // binary OpenPGP public keys, concatenated: what gpgv --keyring reads
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

// Newest is the newest time at which one of the signers signed; the zero time without signers.
func (v Verdict) Newest() time.Time { return Floor(v.Times...) }

// Floor is the newest of the given times. A node's trusted time is the floor of the build time of its program, the
// floor it has persisted and the times of the signatures it has verified. It only grows and never comes from the
// node's clock, so a dead battery cannot make a key look unexpired that was seen to be past its end, and a clock
// in the future cannot make a good key look expired.
func Floor(times ...time.Time) time.Time {
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MaxFunc(times, time.Time.Compare)
}

// Keys returns the keys of a role; the zero value, which refuses everything, for a role that does not exist.
func (s *Set) Keys(role Role) RoleKeys {
	switch role {
	case RoleRelease:
		return s.Release
	case RolePolicy:
		return s.Policy
	case RoleRoster:
		return s.Roster
	}
	return RoleKeys{}
}
