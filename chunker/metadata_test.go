package chunker

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

const somePackages = "Package: jq\nArchitecture: amd64\nVersion: 1.6-2.1+deb12u3\nInstalled-Size: 105\nDepends: libjq1 (= 1.6-2.1+deb12u3)\nFilename: ./jq.deb\n\n" +
	"Package: tzdata\nArchitecture: all\nVersion: 2026f-0+deb12u1\nFilename: ./pool/tzdata.deb\n"

const somePrimary = `<?xml version="1.0"?><metadata xmlns="http://linux.duke.edu/metadata/common" packages="1"><package type="rpm"><name>jq</name><arch>x86_64</arch>` +
	`<version epoch="1" ver="1.6" rel="2.el9"/><size package="1" installed="105" archive="1"/><location href="./jq.rpm"/></package></metadata>`

func TestMetadata(t *testing.T) {
	deb, err := parsePackages(strings.NewReader(somePackages))
	want := []packages.Package{{Name: "jq", Arch: "amd64", Version: "1.6-2.1+deb12u3", File: "jq.deb", InstalledBytes: 105 << 10},
		{Name: "tzdata", Arch: "all", Version: "2026f-0+deb12u1", File: "pool/tzdata.deb"}}
	if diff := cmp.Diff(want, deb); err != nil || diff != "" {
		t.Error(err, diff)
	}
	rpm, err := parsePrimary(strings.NewReader(somePrimary))
	if diff := cmp.Diff([]packages.Package{{Name: "jq", Arch: "x86_64", Version: "1:1.6-2.el9", File: "jq.rpm", InstalledBytes: 105}}, rpm); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, size := range []string{"-1", "x", "99999999999999999"} {
		if _, err := parsePackages(strings.NewReader("Package: a\nInstalled-Size: " + size + "\n")); err == nil {
			t.Errorf("installed size %s is accepted", size)
		}
	}
}

// What is larger than any repository is refused before it is in memory, also when it is small as it travels.
func TestMetadataIsBounded(t *testing.T) {
	many := strings.NewReader(strings.Repeat("Package: a\n\n", packages.MaxPackages+2))
	if _, err := parsePackages(many); !errors.Is(err, errTooLarge) {
		t.Errorf("too many packages: %v", err)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(z, endless(' '), maxMetadataBytes+1); err != nil {
		t.Fatal(err)
	}
	z.Close()
	if _, err := parseZippedPrimary(&bomb); !errors.Is(err, errTooLarge) {
		t.Errorf("%d bytes that unpack to more than %d: %v", bomb.Len(), maxMetadataBytes, err)
	}
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "repodata"), 0o755)
	for _, name := range []string{"a-primary.xml.gz", "b-primary.xml.gz"} {
		os.WriteFile(filepath.Join(dir, "repodata", name), nil, 0o644)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := readMetadata(root, manifest.FormatRPM); err == nil || !strings.Contains(err.Error(), "2 files") {
		t.Errorf("two lists of packages: %v", err)
	}
}

type endless byte

func (e endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(e)
	}
	return len(b), nil
}

// Whatever stands in metadata, what comes of it is within the limits or refused by the list.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(somePackages))
	f.Add([]byte(somePrimary))
	f.Add([]byte("<package><name>a</name><size installed='9'/><location href='../../etc/passwd'/></package>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for format, parse := range map[manifest.Format]func(io.Reader) ([]packages.Package, error){manifest.FormatDeb: parsePackages, manifest.FormatRPM: parsePrimary} {
			ps, err := parse(bytes.NewReader(b))
			if err != nil {
				continue
			}
			for i := range ps {
				if ps[i].InstalledBytes < 0 || ps[i].InstalledBytes > manifest.MaxTotalBytes {
					t.Errorf("%+v", ps[i])
				}
				ps[i].Role = packages.Update
			}
			l := packages.List{Schema: packages.Schema, Format: format, Packages: ps, Remove: []string{}, Keys: []string{}, Conffiles: packages.Keep}
			l.Sort()
			raw, err := l.Encode()
			if err != nil {
				continue
			}
			for _, p := range ps {
				if strings.HasPrefix(p.File, "/") || strings.HasPrefix(p.File, "../") {
					t.Errorf("path %q", p.File)
				}
			}
			if _, err := packages.ParseList(raw); err != nil {
				t.Errorf("what was written cannot be read: %v", err)
			}
		}
	})
}
