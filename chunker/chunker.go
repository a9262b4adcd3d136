// Package chunker makes bundles and takes them apart: it builds the directory of a bundle from a tree, signs it,
// cuts its files into chunks, verifies it, compares it with another, and writes it to and reads it from a stick file.
// It runs on the build server and wherever a stick file is read. It keeps no chunks (chunker/store does), talks to no
// network and installs nothing.
//
// # The directory of a bundle
//
//	manifest.json      the one signed document; its sha256 is the bundle's checksum
//	manifest.json.asc  detached signatures over it, armoured; absent while the bundle is not signed
//	index.json         the files and their chunks; named by the manifest
//	SHA256SUMS         manifest.json, index.json and every file, for "sha256sum -c"
//	SHA256SUMS.asc     detached signatures over it, for "gpgv"
//	content/           the files: a ready tree, apt repository or dnf repository
//
// A bundle is built under a temporary name beside its final one and renamed when it is whole; nothing here changes
// one afterwards but Sign, which replaces the two signature files. All functions are safe for concurrent use.
package chunker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// The names in the directory of a bundle.
const (
	ManifestName    = "manifest.json"
	IndexName       = "index.json"
	SumsName        = "SHA256SUMS"
	ContentName     = "content"
	SignatureSuffix = ".asc"
)

// Bundle is the directory of a bundle, parsed. Open and Build make one; it does not change.
type Bundle struct {
	Dir      string
	Manifest *manifest.Manifest
	Index    *manifest.Index
	Digest   manifest.Digest
	Signed   trust.Signed // the exact bytes of manifest.json and manifest.json.asc; Sig is empty if not signed

	indexBytes []byte
	where      map[chunk.ID]place
}

// place is where a chunk's bytes are.
type place struct {
	path   string // below the directory
	offset int64
	size   int64
}

// Open parses the manifest and the index of the bundle in dir and checks that they belong together. It verifies no
// signature and reads no content: Verify does.
func Open(dir string) (*Bundle, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "bundle %s cannot be opened", dir).Because(err)
	}
	defer root.Close()
	b := &Bundle{Dir: dir}
	if b.Signed.Doc, err = readSmall(root, ManifestName, manifest.MaxManifestBytes); err != nil {
		return nil, notABundle(dir, err)
	}
	if b.Signed.Sig, err = readSmall(root, ManifestName+SignatureSuffix, trust.MaxSignatureBytes); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, notABundle(dir, err)
	}
	if b.Manifest, err = manifest.Parse(b.Signed.Doc); err != nil {
		return nil, problem.New(problem.ManifestInvalid, "bundle %s", dir).Because(err)
	}
	b.Digest = manifest.DigestOf(b.Signed.Doc)
	if b.indexBytes, err = readSmall(root, IndexName, manifest.MaxIndexBytes); err != nil {
		return nil, notABundle(dir, err)
	}
	if b.Index, err = manifest.ParseIndex(b.Manifest, b.indexBytes); err != nil {
		return nil, problem.New(problem.IndexInvalid, "bundle %s", dir).Because(err)
	}
	b.locate()
	return b, nil
}

func notABundle(dir string, err error) error {
	return problem.New(problem.InvalidFile, "%s is not a bundle", dir).Because(err).
		WithNext(`name the directory that "meshctl bundle build" made`)
}

// locate notes where each chunk can be read.
func (b *Bundle) locate() {
	b.where = make(map[chunk.ID]place)
	note := func(path string, refs []manifest.ChunkRef) {
		var at int64
		for _, r := range refs {
			if _, ok := b.where[r.ID]; !ok {
				b.where[r.ID] = place{path, at, r.Size}
			}
			at += r.Size
		}
	}
	note(IndexName, b.Manifest.Index.Chunks)
	for i := range b.Index.Files {
		note(contentPath(&b.Index.Files[i]), b.Index.Files[i].Chunks)
	}
}

// contentPath is where a file of the index stands below the directory.
func contentPath(f *manifest.File) string { return ContentName + "/" + f.Path }

// Catalog is the list of the bundle's distinct chunks.
func (b *Bundle) Catalog() *manifest.Catalog { return manifest.NewCatalog(b.Manifest, b.Index) }

// IndexBytes are the exact bytes of index.json.
func (b *Bundle) IndexBytes() []byte { return b.indexBytes }

// IsSigned reports whether there is a signature; Verify says what it is worth.
func (b *Bundle) IsSigned() bool { return len(b.Signed.Sig) > 0 }

// ReadChunk reads one chunk of the bundle and verifies it.
func (b *Bundle) ReadChunk(ref manifest.ChunkRef) ([]byte, error) {
	at, ok := b.where[ref.ID]
	if !ok || at.size != ref.Size {
		return nil, problem.New(problem.NotFound, "chunk %s of %d bytes is not in bundle %s", ref.ID, ref.Size, b.Dir)
	}
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", ref.ID, err)
	}
	defer root.Close()
	f, err := openFile(root, at.path)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "chunk %s cannot be read from bundle %s", ref.ID, b.Dir).Because(err)
	}
	defer f.Close()
	plain := make([]byte, at.size)
	if _, err := f.ReadAt(plain, at.offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("chunk %s: %w", ref.ID, err)
	}
	if chunk.Sum(plain) != ref.ID {
		return nil, corrupt(filepath.Join(b.Dir, at.path), at.offset, ref.ID)
	}
	return plain, nil
}

func corrupt(name string, offset int64, id chunk.ID) error {
	return problem.New(problem.ChunkCorrupt, "%s is damaged at byte %d: its bytes are not chunk %s", name, offset, id).
		WithDone("nothing was changed").WithNext("copy the bundle again, or build it again from its sources")
}
