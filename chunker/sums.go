package chunker

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// writeSums writes what SHA256SUMS must hold, in the form that "sha256sum -c" reads. Paths of an index need no
// escapes there: they have no backslash and no control character.
func writeSums(w io.Writer, manifestBytes, indexBytes []byte, x *manifest.Index) error {
	if _, err := fmt.Fprintf(w, "%x  %s\n%x  %s\n", sha256.Sum256(manifestBytes), ManifestName, sha256.Sum256(indexBytes), IndexName); err != nil {
		return err
	}
	for i := range x.Files {
		if _, err := fmt.Fprintf(w, "%s  %s\n", x.Files[i].SHA256, contentPath(&x.Files[i])); err != nil {
			return err
		}
	}
	return nil
}
