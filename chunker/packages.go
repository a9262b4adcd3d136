package chunker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Packages reads the list of an rpm or deb bundle, packages.json; nil for a bundle of files. It reads the content as
// it is: Verify the bundle first where that matters.
func (b *Bundle) Packages() (*packages.List, error) {
	if b.Manifest.Target.Format == manifest.FormatFiles {
		return nil, nil
	}
	root, err := os.OpenRoot(filepath.Join(b.Dir, ContentName))
	if err != nil {
		return nil, notABundle(b.Dir, err)
	}
	defer root.Close()
	l, err := readList(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.New(problem.InvalidFile, "bundle %s has no %s", b.Dir, packages.FileName).
			WithNext("build it again: no node can install it")
	}
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the list of packages in bundle %s cannot be read", b.Dir).Because(err)
	}
	if l.Format != b.Manifest.Target.Format {
		return nil, problem.New(problem.InvalidFile, "bundle %s is of format %s and its list of format %s", b.Dir, b.Manifest.Target.Format, l.Format)
	}
	return l, nil
}

// readList reads packages.json in a directory.
func readList(root *os.Root) (*packages.List, error) {
	raw, err := readSmall(root, packages.FileName, packages.MaxListBytes)
	if err != nil {
		return nil, err
	}
	return packages.ParseList(raw)
}

// checkPackages compares the list with the repository's metadata, which the package manager goes by, and with the files.
func (b *Bundle) checkPackages() error {
	l, err := b.Packages()
	if l == nil || err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Join(b.Dir, ContentName))
	if err != nil {
		return notABundle(b.Dir, err)
	}
	defer root.Close()
	ps, err := readMetadata(root, l.Format)
	if err != nil {
		return problem.New(problem.InvalidFile, "the repository metadata of bundle %s cannot be read", b.Dir).Because(err)
	}
	listed := slices.Clone(l.Packages)
	for i := range listed {
		listed[i].Role = "" // the metadata knows of none
	}
	if !slices.Equal(listed, ps) {
		return problem.New(problem.IndexInvalid, "bundle %s: %s is not what the repository's metadata says", b.Dir, packages.FileName).
			WithNext("build it again from its packages")
	}
	files := make(map[string]bool, len(b.Index.Files))
	for _, f := range b.Index.Files {
		files[f.Path] = true
	}
	for _, k := range l.Keys {
		if !files[k] {
			return problem.New(problem.IndexInvalid, "bundle %s: the key %s of %s is not there", b.Dir, k, packages.FileName)
		}
	}
	for _, p := range ps {
		if !files[p.File] {
			return problem.New(problem.IndexInvalid, "bundle %s: %s names %s, which is not there", b.Dir, packages.FileName, p.File)
		}
	}
	return nil
}
