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
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// maxMetadataBytes bounds the plain metadata that is read: what 20000 packages take, several times.
const maxMetadataBytes = 256 << 20

// readMetadata reads what the metadata of a repository says of its packages, in the order of a list; no role is set.
func readMetadata(root *os.Root, format manifest.Format) ([]packages.Package, error) {
	name, parse := "Packages", parsePackages
	if format == manifest.FormatRPM {
		var err error
		if name, err = primary(root); err != nil {
			return nil, err
		}
		parse = parseZippedPrimary
	}
	f, err := openFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ps, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l := packages.List{Packages: ps}
	l.Sort()
	return ps, nil
}

// primary finds the one file of a dnf repository that describes the packages.
func primary(root *os.Root) (string, error) {
	d, err := root.Open("repodata")
	if err != nil {
		return "", err
	}
	defer d.Close()
	names, err := d.Readdirnames(100) // createrepo_c makes four
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, "primary.xml.gz") })
	if len(names) != 1 {
		return "", fmt.Errorf("%d files repodata/*primary.xml.gz, one is wanted", len(names))
	}
	return "repodata/" + names[0], nil
}

// errTooLarge ends the reading of metadata beyond the limits.
var errTooLarge = errors.New("the metadata is larger than that of any repository")

// capped reads at most left bytes and then fails, where io.LimitReader would end as if all were read.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLarge
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// parsePackages reads a Packages file of apt, see deb822(5).
func parsePackages(r io.Reader) (ps []packages.Package, err error) {
	var p packages.Package
	lines := bufio.NewScanner(&capped{r, maxMetadataBytes})
	lines.Buffer(nil, 1<<20)
	end := func() {
		if p != (packages.Package{}) {
			ps = append(ps, p)
		}
		p = packages.Package{}
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
		case "Installed-Size": // KiB
			if p.InstalledBytes, err = sizeIn(string(value), 1<<10); err != nil {
				return nil, err
			}
		}
		if len(ps) > packages.MaxPackages {
			return nil, errTooLarge
		}
	}
	end()
	return ps, lines.Err()
}

// sizeIn reads a size in units of so many bytes.
func sizeIn(s string, unit int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > manifest.MaxTotalBytes/unit {
		return 0, fmt.Errorf("installed size %q", s)
	}
	return n * unit, nil
}

func parseZippedPrimary(r io.Reader) ([]packages.Package, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	return parsePrimary(&capped{z, maxMetadataBytes})
}

// parsePrimary reads a primary.xml of dnf.
func parsePrimary(r io.Reader) (ps []packages.Package, err error) {
	d := xml.NewDecoder(r)
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
			Size struct {
				Installed string `xml:"installed,attr"`
			} `xml:"size"`
		}
		if err := d.DecodeElement(&e, &start); err != nil {
			return nil, fmt.Errorf("package %d: %w", len(ps)+1, err)
		}
		p := packages.Package{Name: e.Name, Arch: e.Arch, Version: e.Version.Ver + "-" + e.Version.Rel, File: path.Clean(e.Location.Href)}
		if e.Version.Epoch != "" && e.Version.Epoch != "0" {
			p.Version = e.Version.Epoch + ":" + p.Version
		}
		if e.Size.Installed != "" {
			if p.InstalledBytes, err = sizeIn(e.Size.Installed, 1); err != nil {
				return nil, fmt.Errorf("package %s: %w", p.ID(), err)
			}
		}
		if ps = append(ps, p); len(ps) > packages.MaxPackages {
			return nil, errTooLarge
		}
	}
}
