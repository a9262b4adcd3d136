package chunker

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Sign adds a signature to the two signature files of the bundle in dir, beside those that are there: several
// people sign one after the other where the threshold is above one. It first checks that SHA256SUMS says what
// the manifest and the index say, so that nobody signs two different stories. Interrupted between the two files it
// can be run again.
func Sign(ctx context.Context, dir string, s signer.Signer) error {
	b, err := Open(dir)
	if err != nil {
		return err
	}
	sums, err := b.checkSums()
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		trust.Signed
	}{{ManifestName, b.Signed}, {SumsName, sums}} {
		sig, err := s.Sign(ctx, f.Doc)
		if err != nil {
			return fmt.Errorf("sign %s: %w", filepath.Join(dir, f.name), err)
		}
		if err := usable(b.Manifest, s, trust.Signed{Doc: f.Doc, Sig: sig}); err != nil {
			return err
		}
		all, err := signer.Append(f.Sig, sig)
		if err != nil {
			return problem.New(problem.SignatureInvalid, "%s cannot take another signature", filepath.Join(dir, f.name+SignatureSuffix)).Because(err)
		}
		if err := durable.WriteFile(filepath.Join(dir, f.name+SignatureSuffix), all, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// usable checks a new signature as nodes will: one made days after the date of the bundle would be refused by all.
func usable(m *manifest.Manifest, s signer.Signer, signed trust.Signed) error {
	keys, err := trust.NewRoleKeys(1, s.Public())
	if err != nil {
		return fmt.Errorf("key %s: %w", s.Fingerprint(), err)
	}
	set := trust.Set{Release: keys}
	v, err := set.Verify(trust.RoleRelease, signed, m.Created)
	if err != nil {
		return err
	}
	return v.CheckCreated(m.Created)
}
