package main

import (
	"slices"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
)

// revokedNote is what stands behind a bundle that runs although it is revoked.
func revokedNote(i status.InstalledItem) string {
	if i.Revoked == "" {
		return ""
	}
	return "   REVOKED: " + cli.Printable(i.Revoked)
}

// revokedRuns reports whether the node runs a bundle that is revoked.
func revokedRuns(n status.Node) bool {
	return slices.ContainsFunc(n.Installed, func(i status.InstalledItem) bool { return i.Revoked != "" })
}
