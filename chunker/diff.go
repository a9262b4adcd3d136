package chunker

import (
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Difference says what a site that holds one bundle needs for another.
type Difference struct {
	From     manifest.Digest   `json:"from"`
	To       manifest.Digest   `json:"to"`
	Packages []packages.Change `json:"packages"`
	Added    []string          `json:"added"`   // files
	Removed  []string          `json:"removed"` // files
	Changed  []string          `json:"changed"` // files with other content or mode
	// Distinct chunks of the second bundle, with those of its index, and their plain bytes.
	NewChunks    int   `json:"newChunks"`
	NewBytes     int64 `json:"newBytes"`
	ReusedChunks int   `json:"reusedChunks"`
	ReusedBytes  int64 `json:"reusedBytes"`
}

// Diff compares two bundles of one format.
func Diff(from, to *Bundle) (*Difference, error) {
	d := &Difference{From: from.Digest, To: to.Digest,
		Packages: []packages.Change{}, Added: []string{}, Removed: []string{}, Changed: []string{}}
	var err error
	if d.Packages, err = diffPackages(from, to); err != nil {
		return nil, err
	}
	d.files(from.Index.Files, to.Index.Files)
	d.chunks(from.Catalog(), to.Catalog())
	return d, nil
}

// files merges the two lists, which are in the order of their paths.
func (d *Difference) files(a, b []manifest.File) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Path < b[0].Path:
			d.Removed = append(d.Removed, a[0].Path)
			a = a[1:]
		case len(a) == 0 || b[0].Path < a[0].Path:
			d.Added = append(d.Added, b[0].Path)
			b = b[1:]
		default:
			if a[0].SHA256 != b[0].SHA256 || a[0].Mode != b[0].Mode {
				d.Changed = append(d.Changed, a[0].Path)
			}
			a, b = a[1:], b[1:]
		}
	}
}

func (d *Difference) chunks(from, to *manifest.Catalog) {
	have := make(map[chunk.ID]bool, len(from.Chunks))
	for _, r := range from.Chunks {
		have[r.ID] = true
	}
	for _, r := range to.Chunks {
		if have[r.ID] {
			d.ReusedChunks++
			d.ReusedBytes += r.Size
		} else {
			d.NewChunks++
			d.NewBytes += r.Size
		}
	}
}

func diffPackages(from, to *Bundle) ([]packages.Change, error) {
	a, err := from.versions()
	if err != nil {
		return nil, err
	}
	b, err := to.versions()
	if err != nil {
		return nil, err
	}
	return append([]packages.Change{}, packages.Diff(a, b)...), nil
}

// versions are the packages of the bundle as a machine would have them.
func (b *Bundle) versions() ([]packages.Installed, error) {
	l, err := b.Packages()
	if l == nil || err != nil {
		return nil, err
	}
	var is []packages.Installed
	for _, p := range l.Packages {
		is = append(is, packages.Installed{Name: p.Name, Arch: p.Arch, Version: p.Version})
	}
	return is, nil
}
