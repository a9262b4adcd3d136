// Package revocation is the list of bundles that operators have taken out of use: no node starts to install one, no
// policy may name one, and nothing goes back to one by order. It is one signed document for the whole fleet, signed with
// the keys that sign policies and orders: the keys of releases cannot stop what they have published.
//
// The list as a whole is signed, so nobody can leave a line out of it, and numbered by a sequence, so none from before
// takes its place. What was revoked stays so: whoever has read a list adds what is in it to what it knew (Merge), and a
// later list that does not name a bundle does not bring it back. What somebody withholds from a node altogether, it
// cannot know: then the seeder is what still refuses. A list is bounded; a full one forgets the oldest line.
//
// Pure; values may be read by many at once.
package revocation

import (
	"fmt"
	"math"
	"slices"
	"time"
	"unicode"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Schema identifies the document inside the signed bytes.
const Schema = "patchmesh.io/revocations/v1"

// Limits.
const (
	MaxBytes   = manifest.MaxManifestBytes // of a document
	MaxBundles = 256
	MaxReason  = 200 // bytes

	// MaxAhead is by how many a sequence may be above the second in which the list was made: one mistake must not use the
	// numbers up, and a clock that was ahead for a while may be put right. It is 30 days.
	MaxAhead = 30 * 86400
)

// List is the document: canonical JSON, all fields present.
type List struct {
	Schema   string   `json:"schema"`
	Sequence uint64   `json:"sequence"` // see Add
	Created  string   `json:"created"`  // RFC 3339, UTC, whole seconds
	Bundles  []Bundle `json:"bundles"`  // in the order in which they were revoked, each once
}

// Bundle is one revoked bundle. Its checksum counts; name and version are for people.
type Bundle struct {
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"` // of its manifest
	Revoked  string          `json:"revoked"`  // when, as Created
	Reason   string          `json:"reason"`   // one line, for people
}

// Timestamp is how times are written.
func Timestamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// Time reads what Timestamp wrote; the zero time for anything else, which no valid list holds.
func Time(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || Timestamp(t) != s {
		return time.Time{}
	}
	return t
}

// Find returns the line about a bundle, nil if it is not revoked. A nil list holds nothing.
func (l *List) Find(d manifest.Digest) *Bundle {
	if l == nil {
		return nil
	}
	if i := slices.IndexFunc(l.Bundles, func(b Bundle) bool { return b.Checksum == d }); i >= 0 {
		return &l.Bundles[i]
	}
	return nil
}

// Refuse is nil unless the bundle is revoked.
func (l *List) Refuse(d manifest.Digest) *problem.Error {
	b := l.Find(d)
	if b == nil {
		return nil
	}
	return problem.New(problem.BundleRevoked, "bundle %s %s %s was revoked on %s: %s", b.Bundle, b.Version, b.Checksum, b.Revoked, b.Reason).
		WithNext("name another bundle; to ship this content again, build it under another version and a higher sequence")
}

// Covers reports whether every bundle of other is revoked by l too.
func (l *List) Covers(other *List) bool {
	return other == nil || !slices.ContainsFunc(other.Bundles, func(b Bundle) bool { return l.Find(b.Checksum) == nil })
}

// Add is the list that follows l, nil for the first, with one line more: one about a bundle that is revoked already
// changes nothing but the sequence. That is the time of day where it is higher than the next number, so that lists are
// accepted after a seeder has lost its memory. A full list forgets its oldest line.
func (l *List) Add(b Bundle, now time.Time) *List {
	out := &List{Schema: Schema, Sequence: uint64(max(now.Unix(), 1)), Created: Timestamp(now), Bundles: []Bundle{}}
	if l != nil {
		out.Sequence = max(out.Sequence, l.Sequence+1)
		out.Bundles = append(out.Bundles, l.Bundles...)
	}
	if out.Find(b.Checksum) == nil {
		out.Bundles = append(out.Bundles, b)
	}
	out.Bundles = out.Bundles[max(0, len(out.Bundles)-MaxBundles):]
	return out
}

// Follows refuses a list that cannot take the place of old: an older one, or one that was made without knowing old and
// would bring bundles back. Of a full list the oldest lines may be missing.
func (l *List) Follows(old *List) error {
	if old == nil {
		return nil
	}
	if l.Sequence <= old.Sequence {
		return problem.New(problem.ChangedMeanwhile, "the revocation list in force has the sequence %d, this one has %d", old.Sequence, l.Sequence).
			WithDone("the list in force stays").WithNext("revoke again: that is done to the newest list")
	}
	kept := false
	for _, b := range old.Bundles {
		switch l.Find(b.Checksum) {
		case nil:
			if kept || len(l.Bundles) < MaxBundles {
				return problem.New(problem.ChangedMeanwhile, "the list does not name bundle %s %s, which is revoked", b.Bundle, b.Version).
					WithDone("the list in force stays").WithNext("revoke again: that is done to the newest list")
			}
		default:
			kept = true
		}
	}
	return nil
}

// Merge is what is known after next has come to what was known before: nothing that was revoked comes back. Either may
// be nil. Where both together are too many, the oldest lines that only known has are forgotten.
func Merge(known, next *List) *List {
	if known == nil || next == nil {
		if known == nil {
			return next
		}
		return known
	}
	if next.Sequence < known.Sequence {
		known, next = next, known
	}
	out := &List{Schema: Schema, Sequence: next.Sequence, Created: next.Created, Bundles: []Bundle{}}
	for _, b := range known.Bundles {
		if next.Find(b.Checksum) == nil {
			out.Bundles = append(out.Bundles, b)
		}
	}
	out.Bundles = append(out.Bundles[max(0, len(out.Bundles)+len(next.Bundles)-MaxBundles):], next.Bundles...)
	return out
}

// Encode writes the canonical bytes, which are what is signed.
func (l *List) Encode() ([]byte, error) {
	if err := l.validate(); err != nil {
		return nil, invalid(err)
	}
	b, err := manifest.EncodeCanonical(l)
	if err == nil && len(b) > MaxBytes {
		err = invalid(fmt.Errorf("%d bytes: at most %d", len(b), MaxBytes))
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Open verifies a list's signature, for the role of policies, and parses it. at is the trusted time, as for
// trust.Set.Verify. Whether it is new is for the caller to say.
func Open(set *trust.Set, s trust.Signed, at time.Time) (*List, error) {
	if len(s.Doc) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(s.Doc), MaxBytes))
	}
	v, err := set.Verify(trust.RolePolicy, s, at)
	if err != nil {
		return nil, err
	}
	l, err := Parse(s.Doc)
	if err != nil {
		return nil, err
	}
	return l, v.CheckCreated(Time(l.Created))
}

// Parse reads the bytes of a list whose signature was verified, now or before.
func Parse(b []byte) (*List, error) {
	if len(b) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(b), MaxBytes))
	}
	l := new(List)
	if err := manifest.DecodeCanonical("revocation list", b, l); err != nil {
		return nil, invalid(err)
	}
	if err := l.validate(); err != nil {
		return nil, invalid(err)
	}
	return l, nil
}

func (l *List) validate() error {
	created := Time(l.Created)
	switch {
	case l.Schema != Schema:
		return fmt.Errorf("schema %q is not %q", l.Schema, Schema)
	case created.IsZero():
		return fmt.Errorf("created %q is not a UTC time with whole seconds", l.Created)
	case l.Sequence == 0 || l.Sequence > math.MaxInt64 || int64(l.Sequence) > max(created.Unix(), 1)+MaxAhead:
		return fmt.Errorf("sequence %d is out of range for a list of %s", l.Sequence, l.Created)
	case l.Bundles == nil || len(l.Bundles) > MaxBundles:
		return fmt.Errorf("%d bundles: at most %d", len(l.Bundles), MaxBundles)
	}
	seen := make(map[manifest.Digest]bool, len(l.Bundles))
	for _, b := range l.Bundles {
		switch {
		case !manifest.ValidName(b.Bundle) || !manifest.ValidVersion(b.Version):
			return fmt.Errorf("bundle %q version %q is not well named", b.Bundle, b.Version)
		case b.Checksum == manifest.Digest{}:
			return fmt.Errorf("bundle %s %s: the checksum is missing", b.Bundle, b.Version)
		case seen[b.Checksum]:
			return fmt.Errorf("bundle %s %s stands twice", b.Bundle, b.Version)
		case Time(b.Revoked).IsZero():
			return fmt.Errorf("bundle %s %s: revoked %q is not a UTC time with whole seconds", b.Bundle, b.Version, b.Revoked)
		case !line(b.Reason):
			return fmt.Errorf("bundle %s %s: reason of %d bytes: want one line of 1 to %d", b.Bundle, b.Version, len(b.Reason), MaxReason)
		}
		seen[b.Checksum] = true
	}
	return nil
}

// line: text for a person, with nothing in it that moves a cursor.
func line(s string) bool {
	if s == "" || len(s) > MaxReason {
		return false
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func invalid(err error) error {
	return problem.New(problem.InvalidRevocation, "the revocation list is not valid").Because(err).WithDone("the list in force stays")
}
