package chunker

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// maxSumsBytes bounds SHA256SUMS: two lines more than there are files.
const maxSumsBytes = (manifest.MaxFiles + 2) * 256

// SignedSums returns SHA256SUMS and its signatures, exactly as they are; Sig is empty if there are none.
func (b *Bundle) SignedSums() (s trust.Signed, err error) {
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return s, notABundle(b.Dir, err)
	}
	defer root.Close()
	if s.Doc, err = readSmall(root, SumsName, maxSumsBytes); err != nil {
		return s, notABundle(b.Dir, err)
	}
	s.Sig, err = readSmall(root, SumsName+SignatureSuffix, trust.MaxSignatureBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, notABundle(b.Dir, err)
	}
	return s, nil
}

// checkSums compares SHA256SUMS with what the manifest and the index say.
func (b *Bundle) checkSums() (trust.Signed, error) {
	s, err := b.SignedSums()
	if err != nil {
		return s, err
	}
	want, err := digest(func(w io.Writer) error { return writeSums(w, b.Signed.Doc, b.indexBytes, b.Index) })
	if err != nil {
		return s, err
	}
	if sha256.Sum256(s.Doc) != want {
		return s, problem.New(problem.ChecksumMismatch, "%s does not say what the manifest and the index say", filepath.Join(b.Dir, SumsName)).
			WithDone("nothing was changed").WithNext("copy the bundle again, or build it again from its sources")
	}
	return s, nil
}

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
