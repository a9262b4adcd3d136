package chunker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// A stick file is a tar of the bundle's directory in a fixed order, so that it can be verified as a stream:
// manifest.json and its signature, SHA256SUMS and its signature, revocations.json and revocations.json.asc if there is a
// list of revoked bundles, policies/NAME.json and policies/NAME.json.asc, grants/NAME.json and grants/NAME.json.asc,
// index.json, content/… in the order of the index. NAME is the Short digest of the policy, or of the grant. Unpacked with tar it is the bundle's directory again.
const (
	policiesName    = "policies/"
	grantsName      = "grants/"
	revocationsName = "revocations.json"
)

// maxPolicies bounds the policies in a stick file, and maxGrants the grants: of several sites.
const (
	maxPolicies = 64
	maxGrants   = 256
)

// Enclosed are the signed documents that travel with a bundle.
type Enclosed struct {
	Policies    []trust.Signed
	Grants      []trust.Signed // by which the policies' rollouts let the nodes of a site start
	Revocations trust.Signed   // the newest list of revoked bundles; zero: none
}

// Export writes the bundle and the signed documents that go with it as a stick file. Every chunk is verified on the way.
func Export(ctx context.Context, b *Bundle, with Enclosed, w io.Writer, p *progress.Reporter) error {
	if !b.IsSigned() {
		return problem.New(problem.SignatureInvalid, "bundle %s is not signed", b.Dir).
			WithDone("nothing was exported").WithNext("sign it first: no node would import it")
	}
	if len(with.Policies) > maxPolicies {
		return problem.New(problem.Usage, "%d policies: at most %d go into a stick file", len(with.Policies), maxPolicies)
	}
	if len(with.Grants) > maxGrants {
		return problem.New(problem.Usage, "%d grants: at most %d go into a stick file", len(with.Grants), maxGrants)
	}
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return fmt.Errorf("bundle %s: %w", b.Dir, err)
	}
	defer root.Close()
	sums, err := b.checkSums()
	if err != nil {
		return err
	}
	defer p.Stop()
	p.Stage("export", b.Manifest.TotalBytes, progress.Bytes)
	e := exporter{ctx: ctx, b: b, root: root, tar: tar.NewWriter(w), buf: make([]byte, chunk.MaxSize), progress: p}
	if err := e.head(sums, with); err != nil {
		return err
	}
	if err := e.bytes(IndexName, b.indexBytes); err != nil {
		return err
	}
	for i := range b.Index.Files {
		if err := e.file(&b.Index.Files[i]); err != nil {
			return err
		}
	}
	if err := e.tar.Close(); err != nil {
		return fmt.Errorf("stick file: %w", err)
	}
	p.Done()
	return nil
}

type exporter struct {
	ctx      context.Context
	b        *Bundle
	root     *os.Root
	tar      *tar.Writer
	buf      []byte // one chunk
	progress *progress.Reporter
}

// head writes everything before the index.
func (e *exporter) head(sums trust.Signed, with Enclosed) error {
	type entry struct {
		name string
		b    []byte
	}
	entries := []entry{
		{ManifestName, e.b.Signed.Doc}, {ManifestName + SignatureSuffix, e.b.Signed.Sig},
		{SumsName, sums.Doc}, {SumsName + SignatureSuffix, sums.Sig},
	}
	if s := with.Revocations; len(s.Doc) > 0 {
		if len(s.Doc) > revocation.MaxBytes || len(s.Sig) > trust.MaxSignatureBytes || len(s.Sig) == 0 {
			return problem.New(problem.InvalidRevocation, "the list of revoked bundles is too large or not signed")
		}
		entries = append(entries, entry{revocationsName, s.Doc}, entry{revocationsName + SignatureSuffix, s.Sig})
	}
	for _, s := range with.Policies {
		name := policyPath(s.Doc)
		if len(s.Doc) > policy.MaxGitBytes || len(s.Sig) > trust.MaxSignatureBytes || len(s.Sig) == 0 {
			return problem.New(problem.InvalidPolicy, "policy %s is too large or not signed", name)
		}
		entries = append(entries, entry{name, s.Doc}, entry{name + SignatureSuffix, s.Sig})
	}
	for _, s := range with.Grants {
		name := grantPath(s.Doc)
		if len(s.Doc) > grant.MaxBytes || len(s.Sig) > trust.MaxSignatureBytes || len(s.Sig) == 0 {
			return problem.New(problem.InvalidGrant, "grant %s is too large or not signed", name)
		}
		entries = append(entries, entry{name, s.Doc}, entry{name + SignatureSuffix, s.Sig})
	}
	for _, x := range entries {
		if err := e.bytes(x.name, x.b); err != nil {
			return err
		}
	}
	return nil
}

func policyPath(doc []byte) string { return policiesName + manifest.DigestOf(doc).Short() + ".json" }

func grantPath(doc []byte) string { return grantsName + manifest.DigestOf(doc).Short() + ".json" }

func (e *exporter) header(name string, size int64, mode uint32) error {
	err := e.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(mode), ModTime: e.b.Manifest.Created})
	if err != nil {
		return fmt.Errorf("stick file: %s: %w", name, err)
	}
	return nil
}

func (e *exporter) bytes(name string, b []byte) error {
	if err := e.header(name, int64(len(b)), manifest.ModeFile); err != nil {
		return err
	}
	if _, err := io.Copy(e.tar, bytes.NewReader(b)); err != nil {
		return fmt.Errorf("stick file: %s: %w", name, err)
	}
	return nil
}

func (e *exporter) file(f *manifest.File) error {
	if err := e.header(contentPath(f), f.Size, f.Mode); err != nil {
		return err
	}
	return e.b.readFile(e.ctx, e.root, f, e.buf, e.progress, func(plain []byte) error {
		if _, err := e.tar.Write(plain); err != nil {
			return fmt.Errorf("stick file: %s: %w", f.Path, err)
		}
		return nil
	})
}
