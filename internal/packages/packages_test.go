package packages_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

func list() *packages.List {
	return &packages.List{Schema: packages.Schema, Format: manifest.FormatDeb, Remove: []string{}, Keys: []string{"keys/repository.gpg"}, Conffiles: packages.Keep,
		Packages: []packages.Package{
			{Name: "jq", Arch: "amd64", Version: "1.6-2.1+deb12u3", File: "jq.deb", Role: packages.Update, InstalledBytes: 107520},
			{Name: "tzdata", Arch: "all", Version: "2:2026f~1-0", File: "pool/tzdata.deb", Role: packages.Dependency},
		}}
}

func TestList(t *testing.T) {
	raw, err := list().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := packages.ParseList(raw)
	if diff := cmp.Diff(list(), got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for name, change := range map[string]func(l *packages.List){
		"schema":             func(l *packages.List) { l.Schema = "x" },
		"format":             func(l *packages.List) { l.Format = manifest.FormatFiles },
		"no package":         func(l *packages.List) { l.Packages = nil },
		"order":              func(l *packages.List) { l.Packages[0], l.Packages[1] = l.Packages[1], l.Packages[0] },
		"twice":              func(l *packages.List) { l.Packages[1] = l.Packages[0] },
		"option as a name":   func(l *packages.List) { l.Packages[0].Name = "-o" },
		"blank in a version": func(l *packages.List) { l.Packages[0].Version = "1 2" },
		"line in an arch":    func(l *packages.List) { l.Packages[0].Arch = "all\nx" },
		"role":               func(l *packages.List) { l.Packages[0].Role = "" },
		"negative size":      func(l *packages.List) { l.Packages[0].InstalledBytes = -1 },
		"path upwards":       func(l *packages.List) { l.Packages[0].File = "../jq.deb" },
		"absolute path":      func(l *packages.List) { l.Packages[0].File = "/jq.deb" },
		"other suffix":       func(l *packages.List) { l.Packages[0].File = "jq.rpm" },
		"name to remove":     func(l *packages.List) { l.Remove = []string{"a b"} },
		"key upwards":        func(l *packages.List) { l.Keys = []string{"../key"} },
		"too many keys":      func(l *packages.List) { l.Keys = make([]string, packages.MaxKeys+1) },
		"conffiles":          func(l *packages.List) { l.Conffiles = "ask" },
	} {
		l := list()
		change(l)
		if _, err := l.Encode(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, b := range map[string][]byte{
		"unknown field":  bytes.Replace(raw, []byte(`"reboot"`), []byte(`"force": true, "reboot"`), 1),
		"other spacing":  bytes.Replace(raw, []byte(" "), []byte("  "), 1),
		"trailing bytes": append(bytes.Clone(raw), '\n'),
		"too large":      bytes.Repeat([]byte(" "), packages.MaxListBytes+1),
		"empty":          nil,
	} {
		if _, err := packages.ParseList(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDiff(t *testing.T) {
	have := func(s string) (out []packages.Installed) {
		for _, f := range strings.Fields(s) {
			name, version, _ := strings.Cut(f, "=")
			out = append(out, packages.Installed{Name: name, Arch: "all", Version: version})
		}
		return out
	}
	got := packages.Diff(have("same=1 up=1 gone=1 kernel=1 kernel=2"), have("up=2 same=1 new=1 kernel=2 kernel=3"))
	want := []packages.Change{{Name: "gone", Arch: "all", From: "1"}, {Name: "kernel", Arch: "all", From: "1", To: "3"},
		{Name: "new", Arch: "all", To: "1"}, {Name: "up", Arch: "all", From: "1", To: "2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseList(f *testing.F) {
	raw, err := list().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"schema":"patchmesh.io/packages/v1","packages":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := packages.ParseList(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("a second form of the same list: %v", err)
		}
	})
}
