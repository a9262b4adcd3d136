package node

import "github.com/patchmesh/patchmesh/internal/status"

// Undefended switches defences of a node off that is yet to be made: what they are for is seen without them.
func Undefended(c *Config, kinds ...status.StrikeKind) {
	c.off = map[status.StrikeKind]bool{}
	for _, k := range kinds {
		c.off[k] = true
	}
}

// Trusting leaves the quarantine of a node out that is yet to be made.
func Trusting(c *Config) { c.trusting = true }
