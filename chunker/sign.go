package chunker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// maxSumsBytes bounds SHA256SUMS: two lines more than there are files.
const maxSumsBytes = (manifest.MaxFiles + 2) * 256

// Sign adds a signature to the two signature files of the bundle in dir, beside those that are there: several
// people sign one after the other where the threshold is above one. It first checks that SHA256SUMS says what
// the manifest and the index say, so that nobody signs two different stories. Interrupted between the two files it
// can be run again.
func Sign(ctx context.Context, dir string, s signer.Signer) error {
	b, err := Open(dir)
	if err != nil {
		return err
	}
	if err := b.checkSums(); err != nil {
		return err
	}
	for _, name := range []string{ManifestName, SumsName} {
		if err := signFile(ctx, dir, name, s); err != nil {
			return fmt.Errorf("sign %s: %w", filepath.Join(dir, name), err)
		}
	}
	return nil
}

func signFile(ctx context.Context, dir, name string, s signer.Signer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	doc, err := readSmall(root, name, maxSumsBytes)
	if err != nil {
		return err
	}
	have, err := readSmall(root, name+SignatureSuffix, trust.MaxSignatureBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sig, err := s.Sign(ctx, doc)
	if err != nil {
		return err
	}
	all, err := signer.Append(have, sig)
	if err != nil {
		return problem.New(problem.SignatureInvalid, "the signature file cannot take another signature").Because(err)
	}
	return durable.WriteFile(filepath.Join(dir, name+SignatureSuffix), all, 0o644)
}

// checkSums compares SHA256SUMS with what the manifest and the index say.
func (b *Bundle) checkSums() error {
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := openFile(root, SumsName)
	if err != nil {
		return notABundle(b.Dir, err)
	}
	defer f.Close()
	have, err := digest(func(w io.Writer) error { _, err := io.Copy(w, io.LimitReader(f, maxSumsBytes)); return err })
	if err != nil {
		return err
	}
	want, err := digest(func(w io.Writer) error { return writeSums(w, b.Signed.Doc, b.indexBytes, b.Index) })
	if err != nil {
		return err
	}
	if have != want {
		return problem.New(problem.ChecksumMismatch, "%s does not say what the manifest and the index say", filepath.Join(b.Dir, SumsName)).
			WithDone("nothing was changed").WithNext("copy the bundle again, or build it again from its sources")
	}
	return nil
}
