// Package enrol holds the join token and the enrolment: what an operator hands to a new node, and what the node
// gets for it. The token pins the seeder's identity and the fingerprints of every signing key, so that a node
// never has to trust the network it joins over. Pure; safe for concurrent use.
package enrol

import (
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Token is what "meshctl site create" prints, encoded as one word. The secret works once and expires.
type Token struct {
	Site    string              `json:"site"`
	URLs    []string            `json:"urls"`   // https API addresses of the seeder
	Seeder  string              `json:"seeder"` // libp2p peer ID: the pin of both the API certificate and the mesh connection
	Secret  string              `json:"secret"` // 128 random bits, hex; the seeder stores only its sha256
	Expires int64               `json:"expires"`
	Pins    map[trust.Role]Pins `json:"pins"`
}

// Pins are the fingerprints and the threshold of a role.
type Pins struct {
	Threshold    int      `json:"threshold"`
	Fingerprints []string `json:"fingerprints"`
}

// Request is what a node sends to redeem a token.
type Request struct {
	Secret string   `json:"secret"`
	Name   string   `json:"name"`
	PeerID string   `json:"peerId"`
	Proof  []byte   `json:"proof"` // signature by the node's key over ProofMessage: the name is not taken for somebody else's key
	Addrs  []string `json:"addrs"` // host:port of the gossip listener, a hint for neighbours
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
