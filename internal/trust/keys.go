package trust

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// MaxSetBytes bounds a trust set file: three keyrings in base64, and their fingerprints.
const MaxSetBytes = 4 * MaxKeyringBytes * 3 / 2

// maxKeyPackets bounds a keyring; a usual key has three to eight packets.
const maxKeyPackets = 512

// Key is one OpenPGP public key: a primary key with its user IDs and subkeys.
type Key struct {
	Fingerprint string    // of the primary key, 40 upper-case hex digits
	UserID      string    // the first one
	Created     time.Time // UTC
	Expires     time.Time // UTC; zero: never
	Raw         []byte    // the packets as read
}

// ReadKeys reads public keys, armoured or binary. It refuses secret keys, anything that is not part of a key,
// and a key that occurs twice. Whether a key may be used is decided by NewRoleKeys.
func ReadKeys(b []byte) ([]Key, error) {
	if len(b) > MaxKeyringBytes {
		return nil, fmt.Errorf("keyring of %d bytes: at most %d", len(b), MaxKeyringBytes)
	}
	if len(b) > 0 && b[0]&0x80 == 0 {
		var err error
		if b, err = unarmour(b, "PGP PUBLIC KEY BLOCK"); err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
	}
	raws, err := splitKeys(b)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	var keys []Key
	for i, raw := range raws {
		e, err := readEntity(raw)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %d: %w", i+1, err)
		}
		k := Key{
			Fingerprint: fingerprint(e.PrimaryKey),
			Created:     e.PrimaryKey.CreationTime.UTC(),
			Expires:     keyEnd(e),
			Raw:         raw,
		}
		if _, id := e.PrimaryIdentity(time.Time{}, config()); id != nil {
			k.UserID = id.Name
		}
		if slices.ContainsFunc(keys, func(o Key) bool { return o.Fingerprint == k.Fingerprint }) {
			return nil, fmt.Errorf("keyring: key %s occurs twice", k.Fingerprint)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("keyring: there is no key in it")
	}
	return keys, nil
}

// splitKeys cuts a binary keyring into the packets of each key.
func splitKeys(b []byte) ([][]byte, error) {
	frames, err := split(b, maxKeyPackets)
	if err != nil {
		return nil, err
	}
	var raws [][]byte
	for i, f := range frames {
		switch f.tag {
		case tagPublicKey:
			if len(raws) == MaxKeys {
				return nil, fmt.Errorf("more than %d keys", MaxKeys)
			}
			raws = append(raws, slices.Clone(f.raw))
		case tagPublicSubkey, tagUserID, tagAttribute, tagSignature:
			if len(raws) == 0 {
				return nil, fmt.Errorf("packet %d with tag %d stands before any key", i+1, f.tag)
			}
			raws[len(raws)-1] = append(raws[len(raws)-1], f.raw...)
		case 5, 7:
			return nil, errors.New("it holds a secret key: give the public key only")
		default:
			return nil, fmt.Errorf("packet %d has tag %d, which is no part of a public key", i+1, f.tag)
		}
	}
	return raws, nil
}

// readEntity parses the packets of one key. The result caches what it has checked, so it is never shared.
func readEntity(raw []byte) (*openpgp.Entity, error) {
	r := packet.NewReader(bytes.NewReader(raw))
	e, err := openpgp.ReadEntity(r)
	if err != nil {
		return nil, err
	}
	if e.PrimaryKey.Version != 4 {
		return nil, fmt.Errorf("key of version %d: stock gpg reads version 4 only", e.PrimaryKey.Version)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes after the end of the key")
	}
	// The library passes over signatures that it cannot read or does not expect where they stand. A revocation
	// among them must not be lost.
	seen := len(e.Revocations)
	for _, s := range e.Subkeys {
		seen += len(s.Revocations)
	}
	if n, err := countRevocations(raw); err != nil || n != seen {
		return nil, fmt.Errorf("%d revocations, of which %d can be read", n, seen)
	}
	return e, nil
}

// countRevocations counts the signature packets that revoke the key or a subkey, whatever else is in them.
func countRevocations(raw []byte) (n int, err error) {
	frames, err := split(raw, maxKeyPackets)
	if err != nil {
		return 0, err
	}
	for _, f := range frames {
		if f.tag != tagSignature {
			continue
		}
		_, _, body, err := header(f.raw)
		if err != nil {
			return 0, err
		}
		at := 1 // where the type stands
		if len(body) > 0 && body[0] < 4 {
			at = 2
		}
		if len(body) <= at {
			return 0, errors.New("a signature is cut off")
		}
		if t := packet.SignatureType(body[at]); t == packet.SigTypeKeyRevocation || t == packet.SigTypeSubkeyRevocation {
			n++
		}
	}
	return n, nil
}

// NewRoleKeys makes the keys of a role. A key given twice counts once. A key that Verify would refuse for ever,
// because it is revoked, weak or cannot sign, is refused here, where somebody can still choose another.
func NewRoleKeys(threshold int, keys ...Key) (RoleKeys, error) {
	rk := RoleKeys{Threshold: threshold, Fingerprints: []string{}}
	for _, k := range keys {
		e, err := readEntity(k.Raw)
		if err != nil {
			return RoleKeys{}, fmt.Errorf("key %s: %w", k.Fingerprint, err)
		}
		if err := usable(e); err != nil {
			return RoleKeys{}, fmt.Errorf("key %s: %w", k.Fingerprint, err)
		}
		fp := fingerprint(e.PrimaryKey)
		if slices.Contains(rk.Fingerprints, fp) {
			continue
		}
		rk.Fingerprints = append(rk.Fingerprints, fp)
		rk.Keyring = append(rk.Keyring, k.Raw...)
	}
	if _, err := rk.entities(); err != nil {
		return RoleKeys{}, err
	}
	return rk, nil
}

// ValidFingerprint reports whether s is 40 upper-case hex digits.
func ValidFingerprint(s string) bool { return fingerprintRE.MatchString(s) }

var fingerprintRE = regexp.MustCompile(`^[0-9A-F]{40}$`)

// entities checks the rules of RoleKeys and returns the listed keys, freshly parsed.
func (k *RoleKeys) entities() (openpgp.EntityList, error) {
	switch n := len(k.Fingerprints); {
	case k.Threshold < 1:
		return nil, ErrKeys.because("threshold %d is below 1", k.Threshold)
	case n > MaxKeys:
		return nil, ErrKeys.because("%d fingerprints: at most %d", n, MaxKeys)
	case k.Threshold > n:
		return nil, ErrKeys.because("threshold %d is above the number of keys, %d", k.Threshold, n)
	case len(k.Keyring) > MaxKeyringBytes:
		return nil, ErrKeys.because("keyring of %d bytes: at most %d", len(k.Keyring), MaxKeyringBytes)
	}
	raws, err := splitKeys(k.Keyring)
	if err != nil {
		return nil, ErrKeys.because("keyring: %w", err)
	}
	byPrint := make(map[string]*openpgp.Entity, len(raws))
	for _, raw := range raws {
		e, err := readEntity(raw)
		if err != nil {
			return nil, ErrKeys.because("keyring: %w", err)
		}
		fp := fingerprint(e.PrimaryKey)
		if byPrint[fp] != nil {
			return nil, ErrKeys.because("key %s occurs twice in the keyring", fp)
		}
		byPrint[fp] = e
	}
	var list openpgp.EntityList
	for i, fp := range k.Fingerprints {
		switch {
		case !ValidFingerprint(fp):
			return nil, ErrKeys.because("fingerprint %.60q is not 40 upper-case hex digits", fp)
		case slices.Contains(k.Fingerprints[:i], fp):
			return nil, ErrKeys.because("fingerprint %s is listed twice", fp)
		case byPrint[fp] == nil:
			return nil, ErrKeys.because("key %s is not in the keyring", fp)
		}
		list = append(list, byPrint[fp])
	}
	if len(list) != len(byPrint) {
		return nil, ErrKeys.because("the keyring holds keys whose fingerprints are not listed")
	}
	return list, nil
}

// List lists the keys of the role.
func (k *RoleKeys) List() ([]Key, error) {
	if _, err := k.entities(); err != nil {
		return nil, err
	}
	return ReadKeys(k.Keyring)
}

// Validate checks the keys of every role. No role may be empty.
func (s *Set) Validate() error {
	for _, role := range Roles() {
		k := s.Keys(role)
		if _, err := k.entities(); err != nil {
			return fmt.Errorf("trust set: role %s: %w", role, err)
		}
	}
	return nil
}

// Encode writes the trust set file.
func (s *Set) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return manifest.EncodeCanonical(s)
}

// ParseSet reads a trust set file: the bytes that Encode writes and no others.
func ParseSet(b []byte) (*Set, error) {
	if len(b) > MaxSetBytes {
		return nil, fmt.Errorf("trust set of %d bytes: at most %d", len(b), MaxSetBytes)
	}
	s := new(Set)
	if err := manifest.DecodeCanonical("trust set", b, s); err != nil {
		return nil, err
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

func fingerprint(k *packet.PublicKey) string {
	return strings.ToUpper(hex.EncodeToString(k.Fingerprint))
}
