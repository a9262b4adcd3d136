package collect

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Machine is what one machine, or one kind of machine, has.
type Machine struct {
	Name      string // of the file
	Installed []packages.Installed
	// Status is a dpkg status file, whole; Database the name of an rpm database. Both empty: there are only the names
	// and versions in Installed.
	Status   []byte
	Database string
}

// maxInstalledBytes bounds a file that says what is installed: a dpkg status file has about 1 KiB for each package.
const maxInstalledBytes = 64 << 20

// machines reads the lists. With none there is one machine on which nothing is installed.
func (o *Options) machines() ([]Machine, error) {
	if len(o.Installed) == 0 {
		if len(o.Only)+len(o.Install) == 0 {
			return nil, problem.New(problem.Usage, "nothing to collect: there is no list of what is installed and no name").
				WithNext("give --installed LIST, --only or --install")
		}
		return []Machine{{Name: "nothing"}}, nil
	}
	var ms []Machine
	for _, name := range o.Installed {
		m, err := ReadInstalled(name, o.Target.Format)
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// ReadInstalled reads a file that says what a machine has:
//
//	deb  /var/lib/dpkg/status, or what dpkg-query -W prints
//	rpm  a copy of rpm's database (rpmdb.sqlite, or its directory), or what rpm -qa prints
//
// Names and versions alone are enough to collect with; what only the databases know, the dependencies of what is
// installed, is then guessed from the packages of the same names in the sources.
func ReadInstalled(name string, format manifest.Format) (Machine, error) {
	m := Machine{Name: name}
	if format == manifest.FormatRPM && isDatabase(name) {
		m.Database = name
		return m, nil
	}
	b, err := readFile(name, maxInstalledBytes)
	if err == nil {
		switch {
		case format == manifest.FormatRPM:
			m.Installed, err = parseRPMList(b)
		case bytes.HasPrefix(b, []byte("Package: ")):
			m.Status = b
			m.Installed, err = parseStatus(b)
		default:
			m.Installed, err = parseDpkgList(b)
		}
	}
	if err == nil && len(m.Installed) == 0 {
		err = fmt.Errorf("it names no package")
	}
	if err != nil {
		return m, problem.New(problem.InvalidFile, "%s does not say what is installed", name).Because(err).WithDone("nothing was collected").
			WithNext("deb: give /var/lib/dpkg/status or the output of dpkg-query -W; rpm: a copy of rpmdb.sqlite or the output of rpm -qa")
	}
	return m, nil
}

// isDatabase reports whether a file is rpm's database in the form that has one file, or a directory with one.
func isDatabase(name string) bool {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return true
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 16)
	n, _ := f.Read(magic)
	return string(magic[:n]) == "SQLite format 3\x00"
}

// parseStatus reads a dpkg status file. A package that was removed and left its configuration files is not installed.
func parseStatus(b []byte) ([]packages.Installed, error) {
	var out []packages.Installed
	for _, s := range Stanzas(b) {
		p := packages.Installed{Name: s.Field("Package"), Arch: s.Field("Architecture"), Version: s.Field("Version")}
		want, state, _ := strings.Cut(s.Field("Status"), " ")
		p.Held = want == "hold"
		if f := strings.Fields(state); len(f) != 2 || f[1] == "not-installed" || f[1] == "config-files" {
			continue
		}
		if err := plain(p); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// parseDpkgList reads what dpkg-query -W prints: "NAME[:ARCH] VERSION" and, if it was asked for, the state in the short
// form (${db:Status-Abbrev}).
func parseDpkgList(b []byte) ([]packages.Installed, error) {
	var out []packages.Installed
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 1 || len(f) == 0 || len(f) > 2 && (len(f[2]) < 2 || f[2][1] != 'i') {
			continue // removed, or known and never installed
		}
		p := packages.Installed{Version: f[1], Held: len(f) > 2 && f[2][0] == 'h'}
		p.Name, p.Arch, _ = strings.Cut(f[0], ":")
		if err := plain(p); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// parseRPMList reads what rpm -qa prints, NAME-VERSION-RELEASE.ARCH, also with an epoch before the version.
func parseRPMList(b []byte) ([]packages.Installed, error) {
	var out []packages.Installed
	for line := range strings.Lines(string(b)) {
		s := strings.TrimSpace(line)
		if s == "" || strings.HasPrefix(s, "gpg-pubkey-") {
			continue
		}
		dot := strings.LastIndexByte(s, '.')
		rel := strings.LastIndexByte(s[:max(dot, 0)], '-')
		ver := strings.LastIndexByte(s[:max(rel, 0)], '-')
		if ver < 1 {
			return nil, fmt.Errorf("%q is not NAME-VERSION-RELEASE.ARCH", s)
		}
		p := packages.Installed{Name: s[:ver], Arch: s[dot+1:], Version: strings.TrimPrefix(strings.TrimPrefix(s[ver+1:dot], "(none):"), "0:")}
		if err := plain(p); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// plain refuses what could be more than a word where it is written to.
func plain(p packages.Installed) error {
	if p.Arch != "" && !packages.Word(p.Arch) || !packages.Word(p.Name) || !packages.Word(p.Version) {
		return fmt.Errorf("%q %q %q is no package", p.Name, p.Arch, p.Version)
	}
	return nil
}

// Stanza is one paragraph of a file as deb822(5) describes it.
type Stanza []byte

// Stanzas cuts a file into its paragraphs.
func Stanzas(b []byte) []Stanza {
	var out []Stanza
	for s := range bytes.SplitSeq(b, []byte("\n\n")) {
		if s = bytes.Trim(s, "\n"); len(s) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// Field is the value of a field that has one line; empty: there is none.
func (s Stanza) Field(name string) string {
	for line := range bytes.SplitSeq(s, []byte("\n")) {
		if v, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}
