package evil

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
)

// Steal reads a node's identity, its place and the seeder's address from its state directory.
func Steal(state string) (Config, error) {
	var c Config
	b, err := os.ReadFile(filepath.Join(state, "identity.key"))
	if err != nil {
		return c, err
	}
	if c.Key, err = crypto.UnmarshalPrivateKey(b); err != nil {
		return c, fmt.Errorf("identity: %w", err)
	}
	if b, err = os.ReadFile(filepath.Join(state, "enrolment.json")); err != nil {
		return c, err
	}
	var e enrol.Enrolment
	if err := json.Unmarshal(b, &e); err != nil {
		return c, fmt.Errorf("enrolment: %w", err)
	}
	c.Site, c.Name = e.Site, e.Node
	s := new(Target)
	if s.ID, err = peer.Decode(e.Seeder); err != nil {
		return c, fmt.Errorf("seeder: %w", err)
	}
	for _, a := range e.SeederAddrs {
		if s.Addr, err = netip.ParseAddrPort(a); err == nil {
			c.Seeder = s
		}
	}
	return c, nil
}

// Knows gives the peer a bundle, as its disk would.
func (c *Config) Knows(b *chunker.Bundle) {
	catalog := b.Catalog()
	c.Bundle, c.Chunks = b.Digest, nil
	for _, r := range catalog.Chunks {
		c.Chunks = append(c.Chunks, r.ID)
	}
	c.Content = func(id chunk.ID) ([]byte, error) {
		at, ok := catalog.Position(id)
		if !ok {
			return nil, fmt.Errorf("chunk %s is not of the bundle", id)
		}
		return b.ReadChunk(catalog.Chunks[at])
	}
}
