// Package packages holds the nouns of installing packages: packages.json, the list that travels in every deb and rpm
// bundle and says exactly what a node is to have afterwards; what is installed; what changed. The list needs no
// signature of its own: it is a file of the bundle, so the signed index carries its hash.
//
// Pure; safe for concurrent use. Whether a version is newer than another is for the package manager that owns the
// format (install/manager), not for this package.
package packages

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// FileName is where the list stands in a bundle's content.
const FileName = "packages.json"

// Schema identifies the list.
const Schema = "patchmesh.io/packages/v1"

// Limits. Nothing larger is parsed.
const (
	MaxListBytes = 8 << 20
	MaxPackages  = 20000
	MaxKeys      = 16
	maxField     = 256
)

// Role says when a node is to have a package.
type Role string

// The roles.
const (
	Update     Role = "update"     // where it is installed already, in whatever version, and where another package of the bundle needs it
	Install    Role = "install"    // on every node
	Dependency Role = "dependency" // only where another package of the bundle needs it
)

// Conffiles says what becomes of a configuration file that was edited on the machine and differs in the new package.
type Conffiles string

// What becomes of it. The other version stays beside it, as dpkg and rpm leave it.
const (
	Keep    Conffiles = "keep"
	Replace Conffiles = "replace"
)

// Package is one package of a bundle.
type Package struct {
	Name           string `json:"name"`
	Arch           string `json:"arch"`    // as the format names it: amd64 or all, x86_64 or noarch
	Version        string `json:"version"` // exactly this one; with epoch where there is one, and release
	File           string `json:"file"`    // path in the bundle's content
	Role           Role   `json:"role"`
	InstalledBytes int64  `json:"installedBytes"` // what it takes on the disk when it is unpacked, as the package says
}

// List is packages.json, in the order of name and architecture.
type List struct {
	Schema    string          `json:"schema"`
	Format    manifest.Format `json:"format"` // deb or rpm
	Packages  []Package       `json:"packages"`
	Remove    []string        `json:"remove"` // names of packages that the transaction may remove; no other may go
	Keys      []string        `json:"keys"`   // paths in the content of OpenPGP public keys: deb, of InRelease; rpm, of the packages
	Conffiles Conffiles       `json:"conffiles"`
	Reboot    bool            `json:"reboot"` // the builder knows that it takes a reboot
}

// Encode writes the canonical bytes.
func (l *List) Encode() ([]byte, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	return manifest.EncodeCanonical(l)
}

// ParseList reads canonical bytes.
func ParseList(b []byte) (*List, error) {
	if len(b) > MaxListBytes {
		return nil, fmt.Errorf("%s: %d bytes: at most %d", FileName, len(b), MaxListBytes)
	}
	l := new(List)
	if err := manifest.DecodeCanonical(FileName, b, l); err != nil {
		return nil, err
	}
	return l, l.Validate()
}

// Validate checks order, limits and every field.
func (l *List) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf(FileName+": "+f, a...) }
	switch {
	case l.Schema != Schema:
		return bad("schema %q is not %q", l.Schema, Schema)
	case l.Format != manifest.FormatDeb && l.Format != manifest.FormatRPM:
		return bad("format %q is neither deb nor rpm", l.Format)
	case len(l.Packages) < 1 || len(l.Packages) > MaxPackages:
		return bad("%d packages: want 1 to %d", len(l.Packages), MaxPackages)
	case len(l.Remove) > MaxPackages || len(l.Keys) > MaxKeys:
		return bad("too many names to remove, or more than %d keys", MaxKeys)
	case l.Conffiles != Keep && l.Conffiles != Replace:
		return bad("conffiles %q is neither keep nor replace", l.Conffiles)
	}
	for i, p := range l.Packages {
		if i > 0 && order(l.Packages[i-1], p) >= 0 {
			return bad("%s stands after %s: names must be unique and in order", p.ID(), l.Packages[i-1].ID())
		}
		if !Word(p.Name) || !Word(p.Arch) || !Word(p.Version) {
			return bad("package %q %q %q: want words without blanks or a leading dash", p.Name, p.Arch, p.Version)
		}
		if p.Role != Update && p.Role != Install && p.Role != Dependency {
			return bad("package %s: role %q is not known", p.ID(), p.Role)
		}
		if p.InstalledBytes < 0 || p.InstalledBytes > manifest.MaxTotalBytes {
			return bad("package %s: installedBytes %d is out of range", p.ID(), p.InstalledBytes)
		}
		if err := manifest.ValidPath(p.File); err != nil {
			return bad("package %s: %w", p.ID(), err)
		}
		if path.Ext(p.File) != "."+string(l.Format) {
			return bad("package %s: file %q does not end in .%s", p.ID(), p.File, l.Format)
		}
	}
	for _, n := range l.Remove {
		if !Word(n) {
			return bad("name to remove %q is not a word", n)
		}
	}
	for _, k := range l.Keys {
		if err := manifest.ValidPath(k); err != nil {
			return bad("key: %w", err)
		}
	}
	return nil
}

// Sort puts the packages in the order that Validate wants.
func (l *List) Sort() { slices.SortFunc(l.Packages, order) }

func order(a, b Package) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Arch, b.Arch)
}

// ID is name and architecture, as they identify an installed package.
func (p Package) ID() string { return p.Name + ":" + p.Arch }

// Word reports whether s can stand in a command line and in a configuration file of apt and dnf as it is.
func Word(s string) bool {
	if s == "" || len(s) > maxField || s[0] == '-' {
		return false
	}
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.ContainsRune("+-._~:^", c):
		default:
			return false
		}
	}
	return true
}

// Installed is one package in a machine's database.
type Installed struct {
	Name    string `json:"name"`
	Arch    string `json:"arch"`
	Version string `json:"version"`
	State   string `json:"state,omitempty"` // empty: as it should be; else the manager's word for what is wrong
	Held    bool   `json:"held,omitempty"`  // a person on this machine keeps it as it is
	Auto    bool   `json:"auto,omitempty"`  // came in for another package
}

// ID is name and architecture.
func (p Installed) ID() string { return p.Name + ":" + p.Arch }

// Change is one package that a transaction changed or is to change.
type Change struct {
	Name string `json:"name"`
	Arch string `json:"arch"`
	From string `json:"from,omitempty"` // empty: was not there
	To   string `json:"to,omitempty"`   // empty: is gone
}

// ID is name and architecture.
func (c Change) ID() string { return c.Name + ":" + c.Arch }

// Diff lists what changed between two states, in the order of name and architecture. Of packages that may be there in
// several versions at once (kernels of an rpm system) each version counts for itself.
func Diff(before, after []Installed) []Change {
	type key struct{ name, arch string }
	versions := map[key][2][]string{}
	for i, side := range [2][]Installed{before, after} {
		for _, p := range side {
			v := versions[key{p.Name, p.Arch}]
			v[i] = append(v[i], p.Version)
			versions[key{p.Name, p.Arch}] = v
		}
	}
	var out []Change
	for k, v := range versions {
		gone := without(v[0], v[1])
		came := without(v[1], v[0])
		for i := range max(len(gone), len(came)) {
			c := Change{Name: k.name, Arch: k.arch}
			if i < len(gone) {
				c.From = gone[i]
			}
			if i < len(came) {
				c.To = came[i]
			}
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Change) int {
		return strings.Compare(a.Name+"\x00"+a.Arch+"\x00"+a.From+"\x00"+a.To, b.Name+"\x00"+b.Arch+"\x00"+b.From+"\x00"+b.To)
	})
	return out
}

// without is a less b, in order.
func without(a, b []string) []string {
	var out []string
	for _, v := range a {
		if !slices.Contains(b, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}
