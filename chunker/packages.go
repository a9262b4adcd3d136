package chunker

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Package is one package of an rpm or deb bundle, as the repository's metadata names it.
type Package struct {
	Name    string `json:"name"`
	Arch    string `json:"arch"`
	Version string `json:"version"` // with epoch and release where there are any
	File    string `json:"file"`    // path in the index
}

// maxMetadataBytes bounds the plain metadata that is read.
const maxMetadataBytes = 1 << 30

// Packages lists the packages of an rpm or deb bundle in the order of their names; none for a bundle of files.
// It reads the content as it is: Verify the bundle first where that matters.
func (b *Bundle) Packages() ([]Package, error) {
	var ps []Package
	var err error
	switch b.Manifest.Target.Format {
	case manifest.FormatDeb:
		ps, err = b.readMetadata("Packages", parsePackages)
	case manifest.FormatRPM:
		i := slices.IndexFunc(b.Index.Files, func(f manifest.File) bool {
			return strings.HasPrefix(f.Path, "repodata/") && strings.HasSuffix(f.Path, "primary.xml.gz")
		})
		if i < 0 {
			return nil, problem.New(problem.InvalidFile, "bundle %s has no repodata/*primary.xml.gz", b.Dir)
		}
		ps, err = b.readMetadata(b.Index.Files[i].Path, parsePrimary)
	}
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the repository metadata of bundle %s cannot be read", b.Dir).Because(err)
	}
	slices.SortFunc(ps, func(a, b Package) int {
		return strings.Compare(a.Name+"\x00"+a.Arch+"\x00"+a.Version, b.Name+"\x00"+b.Arch+"\x00"+b.Version)
	})
	return ps, nil
}

func (b *Bundle) readMetadata(name string, parse func(io.Reader) ([]Package, error)) ([]Package, error) {
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openFile(root, ContentName+"/"+name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(io.LimitReader(f, maxMetadataBytes))
}

// parsePackages reads a Packages file of apt.
func parsePackages(r io.Reader) (ps []Package, err error) {
	var p Package
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	end := func() {
		if p.Name != "" {
			ps = append(ps, p)
		}
		p = Package{}
	}
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			end()
			continue
		}
		field, value, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch string(field) {
		case "Package":
			p.Name = string(value)
		case "Architecture":
			p.Arch = string(value)
		case "Version":
			p.Version = string(value)
		case "Filename":
			p.File = path.Clean(string(value))
		}
	}
	end()
	return ps, lines.Err()
}

// parsePrimary reads a primary.xml.gz of dnf.
func parsePrimary(r io.Reader) (ps []Package, err error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(io.LimitReader(z, maxMetadataBytes))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return ps, nil
		}
		if err != nil {
			return nil, err
		}
		start, ok := tok.(xml.StartElement)
		if !ok || start.Name.Local != "package" {
			continue
		}
		var e struct {
			Name    string `xml:"name"`
			Arch    string `xml:"arch"`
			Version struct {
				Epoch string `xml:"epoch,attr"`
				Ver   string `xml:"ver,attr"`
				Rel   string `xml:"rel,attr"`
			} `xml:"version"`
			Location struct {
				Href string `xml:"href,attr"`
			} `xml:"location"`
		}
		if err := d.DecodeElement(&e, &start); err != nil {
			return nil, fmt.Errorf("package %d: %w", len(ps)+1, err)
		}
		p := Package{Name: e.Name, Arch: e.Arch, Version: e.Version.Ver + "-" + e.Version.Rel, File: path.Clean(e.Location.Href)}
		if e.Version.Epoch != "" && e.Version.Epoch != "0" {
			p.Version = e.Version.Epoch + ":" + p.Version
		}
		ps = append(ps, p)
	}
}
