package packages

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// SetDigest names what a machine has installed: the sha256 of a line "NAME ARCH VERSION" for each package, sorted by
// bytes, each ended by a line feed,
// as the back end lists them.
func SetDigest(ps []Installed) manifest.Digest {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = fmt.Sprintf("%s %s %s\n", p.Name, p.Arch, p.Version)
	}
	slices.Sort(lines)
	return sha256.Sum256([]byte(strings.Join(lines, "")))
}
