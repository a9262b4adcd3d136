// Package chunk holds the identity of a chunk: CIDv1, raw codec, sha2-256 of the plain bytes. How a chunk is
// encoded on the wire or on disk never changes its identity. The package is pure; its values may be copied and
// used from any goroutine.
package chunk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

const (
	// MaxSize is the largest chunk in bytes, plain. It bounds every buffer that holds one.
	MaxSize = 1 << 20
	// DefaultSize is the size in bytes at which files are cut at fixed offsets.
	DefaultSize = 256 << 10
)

// ID is the sha2-256 of a chunk's plain bytes: the digest inside its CID.
type ID [sha256.Size]byte

// Sum returns the identity of plain bytes.
func Sum(plain []byte) ID { return sha256.Sum256(plain) }

// CID returns the CIDv1 (raw, sha2-256).
func (id ID) CID() cid.Cid {
	h, err := mh.Encode(id[:], mh.SHA2_256)
	if err != nil { // only for an unknown code or a wrong length, neither possible here
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

// String returns the CID in its usual base32 form.
func (id ID) String() string { return id.CID().String() }

// Hex returns the digest as lower-case hex, the way sha256sum prints it.
func (id ID) Hex() string { return hex.EncodeToString(id[:]) }

// Parse reads a CID and accepts only CIDv1, raw, sha2-256 in the canonical base32 form.
func Parse(s string) (ID, error) {
	if len(s) > 80 {
		return ID{}, fmt.Errorf("chunk id of %d characters is too long", len(s))
	}
	c, err := cid.Decode(s)
	if err != nil {
		return ID{}, fmt.Errorf("chunk id %q: %w", s, err)
	}
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return ID{}, fmt.Errorf("chunk id %q: %w", s, err)
	}
	if c.Version() != 1 || c.Type() != cid.Raw || d.Code != mh.SHA2_256 || d.Length != sha256.Size || c.String() != s {
		return ID{}, fmt.Errorf("chunk id %q is not a CIDv1, raw, sha2-256 in base32", s)
	}
	return ID(d.Digest), nil
}

// MarshalText writes the CID.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads a CID as Parse does.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err == nil {
		*id = v
	}
	return err
}
