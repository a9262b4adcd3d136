// Package manifest holds the nouns of a bundle: the signed manifest, the index it names, and the catalog of
// chunks that follows from the two. It knows nothing of signatures (internal/trust), disks (chunker) or networks.
//
// Both documents are JSON in one canonical form: what Encode writes. Parse accepts only bytes that Encode would
// have written, which refuses unknown, repeated and differently spelled keys, trailing bytes and odd spacing in
// one rule. All functions are pure and safe for concurrent use.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// Limits. Nothing larger is parsed.
const (
	MaxManifestBytes = 256 << 10
	MaxIndexBytes    = 64 << 20
	MaxFiles         = 1 << 20
	MaxTotalBytes    = 1 << 42 // 4 TiB
	MaxPathBytes     = 1024
)

// Schema identifiers; they are part of the signed bytes, so that a document of one kind is never taken for another.
const (
	SchemaManifest = "patchmesh.io/manifest/v1"
	SchemaIndex    = "patchmesh.io/index/v1"
)

// Format says what a bundle's directory is.
type Format string

// The formats.
const (
	FormatFiles Format = "files" // a plain tree, switched by symlink
	FormatDeb   Format = "deb"   // a flat apt repository
	FormatRPM   Format = "rpm"   // a dnf repository
)

// Any matches every value of a target field.
const Any = "any"

// Target says which machines a bundle is for. Every field is required; Any matches all.
type Target struct {
	OS      string `json:"os"`      // ID of os-release, e.g. "debian"
	Release string `json:"release"` // VERSION_ID of os-release, e.g. "12"
	Arch    string `json:"arch"`    // Go's names: "amd64", "arm64"
	Format  Format `json:"format"`
}

// String is the form "os-release/arch format".
func (t Target) String() string {
	return fmt.Sprintf("%s-%s/%s %s", t.OS, t.Release, t.Arch, t.Format)
}

// Facts are what a node knows about itself.
type Facts struct {
	OS      string `json:"os"`
	Release string `json:"release"`
	Arch    string `json:"arch"`
}

// Matches reports whether a machine with these facts may install the bundle.
func (t Target) Matches(f Facts) bool {
	is := func(want, have string) bool { return want == Any || want == have }
	return is(t.OS, f.OS) && is(t.Release, f.Release) && is(t.Arch, f.Arch)
}

// ChunkRef names a chunk and its plain size in bytes (1..chunk.MaxSize).
type ChunkRef struct {
	ID   chunk.ID `json:"cid"`
	Size int64    `json:"size"`
}

// IndexRef names the index. The index itself travels as chunks like any file.
type IndexRef struct {
	ID     chunk.ID   `json:"cid"` // of the whole index bytes
	Size   int64      `json:"size"`
	Chunks []ChunkRef `json:"chunks"`
}

// Manifest is the one signed document of a bundle.
type Manifest struct {
	Schema     string    `json:"schema"`
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Cycle      string    `json:"cycle"`
	Sequence   uint64    `json:"sequence"` // grows with every release of a name; never 0
	Target     Target    `json:"target"`
	Created    time.Time `json:"created"` // UTC, whole seconds
	Expires    time.Time `json:"expires"` // an alarm, never a reason not to go forward
	Supersedes []string  `json:"supersedes"`
	Files      int       `json:"files"`
	TotalBytes int64     `json:"totalBytes"` // of all files, each counted as often as it stands in the index
	Index      IndexRef  `json:"index"`
}

// Digest is the sha256 of the exact manifest bytes: the bundle's checksum as a policy writes it.
type Digest [sha256.Size]byte

// DigestOf returns the digest of manifest bytes.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// String is "sha256:" and 64 hex digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// Short is the first 12 hex digits, for names and tables.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// MarshalText writes the String form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the String form.
func (d *Digest) UnmarshalText(b []byte) error {
	v, err := ParseDigest(string(b))
	if err == nil {
		*d = v
	}
	return err
}

// ParseDigest reads the String form.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(h)
	if !ok || err != nil || len(b) != sha256.Size || h != strings.ToLower(h) {
		return Digest{}, fmt.Errorf("checksum %.80q is not sha256: and 64 hex digits", s)
	}
	return Digest(b), nil
}

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)
	versionRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.+~_:-]{0,62}[A-Za-z0-9])?$`)
)

// ValidName reports whether s may name a bundle, a site or a node: lower-case letters, digits, and . _ - inside; 1 to 64 bytes.
func ValidName(s string) bool { return nameRE.MatchString(s) && !strings.Contains(s, "..") }

// ValidVersion reports whether s may be a version or a cycle.
func ValidVersion(s string) bool { return versionRE.MatchString(s) && !strings.Contains(s, "..") }

// Encode writes the canonical bytes.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return EncodeCanonical(m)
}

// Validate checks every rule that does not need the index.
func (m *Manifest) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("manifest: "+f, a...) }
	switch {
	case m.Schema != SchemaManifest:
		return bad("schema %q is not %q", m.Schema, SchemaManifest)
	case !ValidName(m.Name):
		return bad("name %q: want lower-case letters, digits, . _ -, at most 64", m.Name)
	case !ValidVersion(m.Version):
		return bad("version %q: want letters, digits, . + ~ _ : -, at most 64", m.Version)
	case m.Cycle != "" && !ValidVersion(m.Cycle):
		return bad("cycle %q: want letters, digits, . + ~ _ : -, at most 64", m.Cycle)
	case m.Sequence == 0:
		return bad("sequence must be at least 1")
	case !ValidName(m.Target.OS) || !ValidName(m.Target.Release) || !ValidName(m.Target.Arch):
		return bad("target %q: os, release and arch are required, %q matches all", m.Target, Any)
	case m.Target.Format != FormatFiles && m.Target.Format != FormatDeb && m.Target.Format != FormatRPM:
		return bad("format %q is not files, deb or rpm", m.Target.Format)
	case m.Created.IsZero() || !canonicalTime(m.Created) || !canonicalTime(m.Expires):
		return bad("created and expires must be UTC and whole seconds")
	case !m.Expires.After(m.Created):
		return bad("expires %s is not after created %s", m.Expires, m.Created)
	case m.Supersedes == nil || len(m.Supersedes) > 64:
		return bad("supersedes must be a list of at most 64 versions")
	case m.Files < 1 || m.Files > MaxFiles:
		return bad("%d files: want 1 to %d", m.Files, MaxFiles)
	case m.TotalBytes < 0 || m.TotalBytes > MaxTotalBytes:
		return bad("total of %d bytes is out of range", m.TotalBytes)
	case m.Index.Size < 1 || m.Index.Size > MaxIndexBytes:
		return bad("index of %d bytes: want 1 to %d", m.Index.Size, MaxIndexBytes)
	}
	for _, v := range m.Supersedes {
		if !ValidVersion(v) {
			return bad("supersedes %q is not a version", v)
		}
	}
	return sizesAddUp("manifest: index", m.Index.Size, m.Index.Chunks)
}

func canonicalTime(t time.Time) bool {
	return t.Location() == time.UTC && t.Nanosecond() == 0 && t.Year() >= 1970 && t.Year() <= 9999
}

func sizesAddUp(what string, size int64, chunks []ChunkRef) error {
	if chunks == nil {
		return fmt.Errorf("%s: the list of chunks is missing", what)
	}
	var sum int64
	for i, c := range chunks {
		if c.Size < 1 || c.Size > chunk.MaxSize {
			return fmt.Errorf("%s: chunk %d has %d bytes: want 1 to %d", what, i, c.Size, chunk.MaxSize)
		}
		sum += c.Size
	}
	if sum != size {
		return fmt.Errorf("%s: chunks have %d bytes together, size says %d", what, sum, size)
	}
	return nil
}

// Parse reads canonical manifest bytes. Verify the signature over the same bytes first (internal/trust does both).
func Parse(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("manifest of %d bytes: at most %d", len(b), MaxManifestBytes)
	}
	m := new(Manifest)
	if err := DecodeCanonical("manifest", b, m); err != nil {
		return nil, err
	}
	return m, m.Validate()
}
