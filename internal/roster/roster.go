// Package roster holds a site's roster: the signed list of its nodes, which is the authority on who may connect.
// Gossip is a hint, the roster decides. The document is canonical JSON as in package manifest. Pure; values are
// not changed after Parse and may be shared.
package roster

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Schema identifies the document inside the signed bytes.
const Schema = "patchmesh.io/roster/v1"

// Limits.
const (
	MaxBytes = 256 << 10
	MaxNodes = 512
)

// WAN says whether a node may be its site's uplink.
type WAN string

// The values of WAN.
const (
	WANPrefer WAN = "prefer"
	WANAllow  WAN = "allow"
	WANNever  WAN = "never"
)

// Node is one entry.
type Node struct {
	Name   string            `json:"name"`
	PeerID string            `json:"peerId"`
	Labels map[string]string `json:"labels"`
	WAN    WAN               `json:"wan"`
	Addrs  []string          `json:"addrs"` // host:port of the gossip listener when it joined: hints
}

// Roster is the document. Version grows with every change; a node never goes back.
type Roster struct {
	Schema   string    `json:"schema"`
	Site     string    `json:"site"`
	Version  uint64    `json:"version"`
	Created  time.Time `json:"created"`
	Timezone string    `json:"timezone"`
	Nodes    []Node    `json:"nodes"` // in the order of their names
}

// Encode writes the canonical bytes.
func (r *Roster) Encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	return manifest.EncodeCanonical(r)
}

// Open verifies the roster's signature against the set and parses it. at is the trusted time (see trust.Set.Verify).
func Open(set *trust.Set, s trust.Signed, at time.Time) (*Roster, error) {
	if len(s.Doc) > MaxBytes {
		return nil, fmt.Errorf("roster of %d bytes: at most %d", len(s.Doc), MaxBytes)
	}
	v, err := set.Verify(trust.RoleRoster, s, at)
	if err != nil {
		return nil, err
	}
	r, err := parse(s.Doc)
	if err != nil {
		return nil, err
	}
	if err := v.CheckCreated(r.Created); err != nil {
		return nil, err
	}
	return r, nil
}

// parse reads the bytes of a roster whose signature has been verified.
func parse(b []byte) (*Roster, error) {
	r := new(Roster)
	if err := manifest.DecodeCanonical("roster", b, r); err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Roster) validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("roster: "+f, a...) }
	switch {
	case r.Schema != Schema:
		return bad("schema %q is not %q", r.Schema, Schema)
	case !manifest.ValidName(r.Site):
		return bad("site %q is not a name", r.Site)
	case r.Version == 0:
		return bad("version must be at least 1")
	case r.Created.IsZero() || r.Created.Location() != time.UTC || r.Created.Nanosecond() != 0:
		return bad("created must be UTC and whole seconds")
	case r.Nodes == nil || len(r.Nodes) > MaxNodes:
		return bad("%d nodes: at most %d", len(r.Nodes), MaxNodes)
	}
	ids := map[string]bool{}
	for i, n := range r.Nodes {
		if !manifest.ValidName(n.Name) || i > 0 && r.Nodes[i-1].Name >= n.Name {
			return bad("node %q: names must be valid, unique and in order", n.Name)
		}
		if n.PeerID == "" || len(n.PeerID) > 128 || ids[n.PeerID] {
			return bad("node %q: peer ID %q is missing, too long or listed twice", n.Name, n.PeerID)
		}
		ids[n.PeerID] = true
		if n.WAN != WANPrefer && n.WAN != WANAllow && n.WAN != WANNever {
			return bad("node %q: wan %q is not prefer, allow or never", n.Name, n.WAN)
		}
		if len(n.Labels) > 64 || len(n.Addrs) > 16 {
			return bad("node %q: more than 64 labels or 16 addresses", n.Name)
		}
	}
	return nil
}

// ByPeer returns the entry with this peer ID.
func (r *Roster) ByPeer(id string) (Node, bool) {
	for _, n := range r.Nodes {
		if n.PeerID == id {
			return n, true
		}
	}
	return Node{}, false
}

// ByName returns the entry with this name.
func (r *Roster) ByName(name string) (Node, bool) {
	for _, n := range r.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}
