// Package enrol holds the join token and the enrolment: what an operator hands to a new node, and what the node
// gets for it. The token pins the seeder's identity and the fingerprints of every signing key, so that a node
// never has to trust the network it joins over. Peer IDs are strings here: the package knows no network library.
// Pure; safe for concurrent use.
package enrol

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Limits of what travels.
const (
	MaxTokenBytes     = 4 << 10
	MaxRequestBytes   = 16 << 10
	MaxEnrolmentBytes = 1 << 20
	SecretBytes       = 16
	GossipKeyBytes    = 32
	maxAddrs          = 16
	maxPeerID         = 128
)

// Token is what "meshctl site create" prints, encoded as one word. The secret works once and expires.
type Token struct {
	Site    string              `json:"site"`
	URLs    []string            `json:"urls"`    // https API addresses of the seeder
	Seeder  string              `json:"seeder"`  // libp2p peer ID: the pin of both the API certificate and the mesh connection
	Secret  string              `json:"secret"`  // 128 random bits, hex; the seeder stores only its sha256
	Expires int64               `json:"expires"` // Unix time, seconds
	Pins    map[trust.Role]Pins `json:"pins"`
}

// Pins are the fingerprints and the threshold of a role.
type Pins struct {
	Threshold    int      `json:"threshold"`
	Fingerprints []string `json:"fingerprints"`
}

// PinsOf are the pins of a trust set.
func PinsOf(set trust.Set) map[trust.Role]Pins {
	pins := make(map[trust.Role]Pins)
	for _, role := range trust.Roles() {
		k := set.Keys(role)
		pins[role] = Pins{Threshold: k.Threshold, Fingerprints: slices.Sorted(slices.Values(k.Fingerprints))}
	}
	return pins
}

// CheckSet checks that a trust set, as the seeder sent it, has exactly the keys that the token pins. The set's
// fingerprints are computed from its keyring, not believed.
func (t Token) CheckSet(set trust.Set) error {
	if err := set.Validate(); err != nil {
		return err
	}
	for role, have := range PinsOf(set) {
		want := t.Pins[role]
		if have.Threshold != want.Threshold || !slices.Equal(have.Fingerprints, slices.Sorted(slices.Values(want.Fingerprints))) {
			return fmt.Errorf("trust set: role %s has the keys %v with threshold %d, the token pins %v with threshold %d",
				role, have.Fingerprints, have.Threshold, want.Fingerprints, want.Threshold)
		}
	}
	return nil
}

// Validate checks the form of a token.
func (t Token) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("join token: "+f, a...) }
	switch {
	case !manifest.ValidName(t.Site):
		return bad("site %q is not a name", t.Site)
	case !validPeerID(t.Seeder):
		return bad("seeder %q is not a peer ID", t.Seeder)
	case !validSecret(t.Secret):
		return bad("the secret is not %d hex digits", 2*SecretBytes)
	case t.Expires <= 0:
		return bad("the expiry time is missing")
	case len(t.Pins) != len(trust.Roles()):
		return bad("pins of %d roles, %d are needed", len(t.Pins), len(trust.Roles()))
	}
	if err := validURLs(t.URLs); err != nil {
		return bad("%w", err)
	}
	for _, role := range trust.Roles() {
		p, ok := t.Pins[role]
		if !ok || p.Threshold < 1 || p.Threshold > len(p.Fingerprints) || len(p.Fingerprints) > trust.MaxKeys {
			return bad("role %s: threshold %d of %d keys", role, p.Threshold, len(p.Fingerprints))
		}
		for i, fp := range p.Fingerprints {
			if !trust.ValidFingerprint(fp) || slices.Contains(p.Fingerprints[:i], fp) {
				return bad("role %s: fingerprint %.60q is not 40 upper-case hex digits or is listed twice", role, fp)
			}
		}
	}
	return nil
}

// Expired reports whether the token is past its end. Only the seeder, whose clock decides, refuses for it: a new
// node may not know the time yet.
func (t Token) Expired(now time.Time) bool { return now.Unix() >= t.Expires }

// Request is what a node sends to redeem a token.
type Request struct {
	Secret string   `json:"secret"`
	Name   string   `json:"name"`
	PeerID string   `json:"peerId"`
	Proof  []byte   `json:"proof"` // signature by the node's key over ProofMessage: the name is not taken for somebody else's key
	Addrs  []string `json:"addrs"` // host:port of the gossip listener, a hint for neighbours
}

// ProofMessage is what a node signs with its identity key to show that the key is its own. Every field is
// prefixed with its length, so that no two requests share a message.
func ProofMessage(secret, name, peerID string) []byte {
	b := []byte("patchmesh.io/enrol/v1\n")
	for _, s := range []string{secret, name, peerID} {
		b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
		b = append(append(b, s...), '\n')
	}
	return b
}

// Validate checks the form of a request. VerifyProof comes after it, with the key that the peer ID stands for.
func (r *Request) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("enrolment request: "+f, a...) }
	switch {
	case !validSecret(r.Secret):
		return bad("the secret is not %d hex digits", 2*SecretBytes)
	case !manifest.ValidName(r.Name):
		return bad("node name %q: want lower-case letters, digits, . _ -, at most 64", r.Name)
	case !validPeerID(r.PeerID):
		return bad("%.140q is not a peer ID", r.PeerID)
	case len(r.Proof) != ed25519.SignatureSize:
		return bad("the proof has %d bytes, want %d", len(r.Proof), ed25519.SignatureSize)
	}
	if err := validAddrs(r.Addrs); err != nil {
		return bad("%w", err)
	}
	return nil
}

// VerifyProof checks the proof with the node's public key. That the peer ID is the key's is for the caller to see
// to, by deriving the key from it.
func (r *Request) VerifyProof(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, ProofMessage(r.Secret, r.Name, r.PeerID), r.Proof) {
		return errors.New("enrolment request: the proof is not by the key of the peer ID")
	}
	return nil
}

// Enrolment is what the node gets and keeps.
type Enrolment struct {
	Site        string       `json:"site"`
	Node        string       `json:"node"`
	Seeder      string       `json:"seeder"`
	SeederAddrs []string     `json:"seederAddrs"` // host:port of the seeder's mesh listener
	SeederURLs  []string     `json:"seederUrls"`
	GossipKey   []byte       `json:"gossipKey"` // 32 bytes, secret, one per site
	Trust       trust.Set    `json:"trust"`
	Roster      trust.Signed `json:"roster"`
}

// Validate checks the form of an enrolment, as read from disk.
func (e *Enrolment) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("enrolment: "+f, a...) }
	switch {
	case !manifest.ValidName(e.Site):
		return bad("site %q is not a name", e.Site)
	case !manifest.ValidName(e.Node):
		return bad("node %q is not a name", e.Node)
	case !validPeerID(e.Seeder):
		return bad("seeder %q is not a peer ID", e.Seeder)
	case len(e.GossipKey) != GossipKeyBytes:
		return bad("the gossip key has %d bytes, want %d", len(e.GossipKey), GossipKeyBytes)
	case len(e.SeederAddrs) == 0:
		return bad("there is no address of the seeder")
	case len(e.Roster.Doc) == 0 || len(e.Roster.Sig) == 0:
		return bad("the roster is missing")
	}
	if err := validAddrs(e.SeederAddrs); err != nil {
		return bad("%w", err)
	}
	if err := validURLs(e.SeederURLs); err != nil {
		return bad("%w", err)
	}
	if err := e.Trust.Validate(); err != nil {
		return bad("%w", err)
	}
	return nil
}

// CheckEnrolment checks a fresh enrolment against the token it was given for and the request that asked for it.
// The roster is for package roster to open, with the keys that have just been checked.
func (t Token) CheckEnrolment(e *Enrolment, r *Request) error {
	if err := e.Validate(); err != nil {
		return err
	}
	switch {
	case e.Site != t.Site:
		return fmt.Errorf("enrolment: it is for site %s, the token for %s", e.Site, t.Site)
	case e.Node != r.Name:
		return fmt.Errorf("enrolment: it is for node %s, %s asked for it", e.Node, r.Name)
	case e.Seeder != t.Seeder:
		return fmt.Errorf("enrolment: it names the seeder %s, the token pins %s", e.Seeder, t.Seeder)
	}
	return t.CheckSet(e.Trust)
}

func validSecret(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == SecretBytes && hex.EncodeToString(b) == s
}

// validPeerID accepts what may be a peer ID in base58; whether it is one, the network library says.
func validPeerID(s string) bool {
	return s != "" && len(s) <= maxPeerID && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}

func validURLs(urls []string) error {
	if len(urls) < 1 || len(urls) > maxAddrs {
		return fmt.Errorf("%d URLs of the seeder: want 1 to %d", len(urls), maxAddrs)
	}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(s) > 256 {
			return fmt.Errorf("%.260q is not an https URL", s)
		}
	}
	return nil
}

func validAddrs(addrs []string) error {
	if len(addrs) > maxAddrs {
		return fmt.Errorf("%d addresses: at most %d", len(addrs), maxAddrs)
	}
	for _, a := range addrs {
		u, err := url.Parse("//" + a)
		if err != nil || len(a) > 256 || u.Host != a || u.Hostname() == "" || !validPort(u.Port()) {
			return fmt.Errorf("%.260q is not host:port", a)
		}
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
