package api

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	mh "github.com/multiformats/go-multihash"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// peerIDPrefix stands before the 32 bytes of an Ed25519 key in its peer ID: identity multihash of 36 bytes, then the
// protobuf of libp2p's PublicKey{Type: Ed25519, Data}. Spelt out here so that clients need not link libp2p.
var peerIDPrefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// PeerID returns the libp2p peer ID of an Ed25519 key ("12D3KooW…").
func PeerID(key ed25519.PublicKey) string {
	return mh.Multihash(append(bytes.Clone(peerIDPrefix), key...)).B58String()
}

// ParsePeerID returns the Ed25519 key inside a peer ID. Other kinds of keys are refused.
func ParsePeerID(s string) (ed25519.PublicKey, error) {
	if len(s) > 64 {
		return nil, fmt.Errorf("peer ID of %d characters is too long", len(s))
	}
	b, err := mh.FromB58String(s)
	if err != nil {
		return nil, fmt.Errorf("peer ID %q: %w", s, err)
	}
	key, ok := bytes.CutPrefix(b, peerIDPrefix)
	if !ok || len(key) != ed25519.PublicKeySize || PeerID(ed25519.PublicKey(key)) != s {
		return nil, fmt.Errorf("peer ID %q is not of an Ed25519 key", s)
	}
	return ed25519.PublicKey(key), nil
}

// Certificate returns a self-signed certificate of the identity key. It is valid from 1970 to 9999: who holds the key is
// checked against the pin, and a wrong clock on either side must not matter.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: PeerID(key.Public().(ed25519.PublicKey))},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ServerTLS is the configuration of a listener that shows the identity.
func ServerTLS(key ed25519.PrivateKey) (*tls.Config, error) {
	c, err := Certificate(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c}}, nil
}

// PinnedTLS is the configuration of a client that accepts exactly one identity, whatever its name, issuer or dates.
func PinnedTLS(peerID string) (*tls.Config, error) {
	if _, err := ParsePeerID(peerID); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the pin below replaces names, issuers and dates
		VerifyConnection: func(s tls.ConnectionState) error {
			got := "no Ed25519 key"
			if len(s.PeerCertificates) > 0 {
				if key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey); ok {
					got = PeerID(key)
				}
			}
			if got != peerID {
				return problem.New(problem.IdentityMismatch, "the server has identity %s, expected %s", got, peerID).
					WithDone("the connection was closed before anything was sent").
					WithNext("check the address; if the seeder was set up anew, ask for a new token or configuration")
			}
			return nil
		},
	}, nil
}
