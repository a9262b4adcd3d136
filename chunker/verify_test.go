package chunker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// verify opens and verifies the bundle in dir.
func verify(t testing.TB, dir string) error {
	t.Helper()
	_, _, set := keys(t)
	b, err := Open(dir)
	if err != nil {
		return err
	}
	return b.Verify(t.Context(), set, at, nil)
}

func edit(t testing.TB, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	flip := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, name), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}
	}
	tests := []struct {
		name  string
		harm  func(t *testing.T, dir string)
		code  problem.Code
		words []string
	}{
		{"nothing", func(*testing.T, string) {}, "", nil},
		{"flipped bit in content", flip("content/data/map.bin"), problem.ChunkCorrupt, []string{"content/data/map.bin", "damaged at byte"}},
		{"flipped bit in the index", flip("index.json"), problem.IndexInvalid, []string{"the manifest names"}},
		{"flipped bit in the manifest", flip("manifest.json"), problem.ManifestInvalid, nil},
		{"changed manifest", func(t *testing.T, dir string) {
			edit(t, dir+"/manifest.json", func(b []byte) []byte { return bytes.Replace(b, []byte(`"sequence": 7`), []byte(`"sequence": 8`), 1) })
		}, problem.SignatureInvalid, nil},
		{"flipped bit in SHA256SUMS", flip("SHA256SUMS"), problem.ChecksumMismatch, []string{"SHA256SUMS"}},
		{"flipped bit in a signature", flip("manifest.json.asc"), problem.SignatureInvalid, nil},
		{"flipped bit in the other signature", flip("SHA256SUMS.asc"), problem.SignatureInvalid, nil},
		{"signatures swapped", func(t *testing.T, dir string) {
			os.Rename(dir+"/manifest.json.asc", dir+"/x")
			os.Rename(dir+"/SHA256SUMS.asc", dir+"/manifest.json.asc")
			os.Rename(dir+"/x", dir+"/SHA256SUMS.asc")
		}, problem.SignatureInvalid, nil},
		{"no signature", func(t *testing.T, dir string) { os.Remove(dir + "/manifest.json.asc") }, problem.SignatureInvalid, []string{"not signed"}},
		{"no second signature", func(t *testing.T, dir string) { os.Remove(dir + "/SHA256SUMS.asc") }, problem.SignatureInvalid, nil},
		{"huge signature", func(t *testing.T, dir string) { os.Truncate(dir+"/manifest.json.asc", 1<<40) }, problem.InvalidFile, []string{"more than"}},
		{"file missing", func(t *testing.T, dir string) { os.Remove(dir + "/content/empty") }, problem.ChunkCorrupt, []string{"content/empty", "missing"}},
		{"file longer", func(t *testing.T, dir string) {
			edit(t, dir+"/content/empty", func([]byte) []byte { return []byte("x") })
		}, problem.ChunkCorrupt, []string{"longer"}},
		{"file shorter", func(t *testing.T, dir string) { os.Truncate(dir+"/content/data/map.bin", 800_000) }, problem.ChunkCorrupt, []string{"damaged at byte"}},
		{"file too many", func(t *testing.T, dir string) { os.WriteFile(dir+"/content/bin/extra", nil, 0o755) }, problem.IndexInvalid, []string{"content/bin/extra is not in the index"}},
		{"link too many", func(t *testing.T, dir string) { os.Symlink("/etc", dir+"/content/conf") }, problem.IndexInvalid, []string{"content/conf is not in the index"}},
		{"link in the place of a file", func(t *testing.T, dir string) {
			os.Rename(dir+"/content/empty", dir+"/other")
			os.Symlink(dir+"/other", dir+"/content/empty")
		}, problem.ChunkCorrupt, []string{"content/empty"}},
		{"fifo in the place of a file", func(t *testing.T, dir string) {
			os.Remove(dir + "/content/empty")
			mkfifo(t, dir+"/content/empty")
		}, problem.ChunkCorrupt, []string{"content/empty"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := build(t, sample()).Dir
			test.harm(t, dir)
			if err := verify(t, dir); test.code != "" {
				wantCode(t, err, test.code, test.words...)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// resign makes a bundle whose index was changed by hand and signed with the right key: what a broken build
// server could produce.
func resign(t testing.TB, change func(*manifest.Index)) (dir string) {
	t.Helper()
	b := build(t, sample())
	change(b.Index)
	enc := func(v any) []byte {
		var buf bytes.Buffer
		e := json.NewEncoder(&buf)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	ib := enc(b.Index)
	ref, err := indexRef(ib)
	if err != nil {
		t.Fatal(err)
	}
	m := *b.Manifest
	m.Index, m.Files, m.TotalBytes = ref, len(b.Index.Files), b.Index.TotalBytes()
	mb := enc(m)
	var sums bytes.Buffer
	writeSums(&sums, mb, ib, b.Index)
	release, _, _ := keys(t)
	for name, doc := range map[string][]byte{ManifestName: mb, SumsName: sums.Bytes(), IndexName: ib} {
		os.WriteFile(filepath.Join(b.Dir, name), doc, 0o644)
		if name == IndexName {
			continue
		}
		sig, err := release.Sign(t.Context(), doc)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(b.Dir, name+SignatureSuffix), sig, 0o644)
	}
	return b.Dir
}

// A signature does not make a bad index good.
func TestIndexTricks(t *testing.T) {
	if err := verify(t, resign(t, func(*manifest.Index) {})); err != nil {
		t.Fatalf("the control does not verify: %v", err)
	}
	at := func(x *manifest.Index, path string) *manifest.File {
		i := slices.IndexFunc(x.Files, func(f manifest.File) bool { return f.Path == path })
		return &x.Files[i]
	}
	for name, test := range map[string]struct {
		change func(x *manifest.Index)
		code   problem.Code
		word   string
	}{
		"dot-dot":            {func(x *manifest.Index) { at(x, "bin/till").Path = "../till" }, problem.IndexInvalid, "leaves the bundle"},
		"dot-dot inside":     {func(x *manifest.Index) { at(x, "bin/till").Path = "bin/../../till" }, problem.IndexInvalid, "leaves the bundle"},
		"absolute":           {func(x *manifest.Index) { at(x, "bin/till").Path = "/bin/till" }, problem.IndexInvalid, "absolute"},
		"duplicate":          {func(x *manifest.Index) { x.Files = slices.Insert(x.Files, 1, x.Files[0]) }, problem.IndexInvalid, "unique"},
		"case twins":         {func(x *manifest.Index) { f := x.Files[0]; f.Path = "BIN/till"; x.Files = slices.Insert(x.Files, 0, f) }, problem.IndexInvalid, "letter case"},
		"out of order":       {func(x *manifest.Index) { slices.Reverse(x.Files) }, problem.IndexInvalid, "in order"},
		"file and directory": {func(x *manifest.Index) { f := x.Files[0]; f.Path = "bin"; x.Files = slices.Insert(x.Files, 0, f) }, problem.IndexInvalid, "both a file and the directory"},
		"setuid":             {func(x *manifest.Index) { at(x, "empty").Mode = 0o4755 }, problem.IndexInvalid, "mode"},
		"size lies up":       {func(x *manifest.Index) { at(x, "data/map.bin").Size++ }, problem.IndexInvalid, "size says"},
		"size lies down":     {func(x *manifest.Index) { at(x, "data/map.bin").Size = 1 }, problem.IndexInvalid, "size says"},
		"negative size":      {func(x *manifest.Index) { at(x, "data/map.bin").Size = -1 }, problem.IndexInvalid, "out of range"},
		"huge size":          {func(x *manifest.Index) { at(x, "empty").Size = 1 << 62 }, problem.ManifestInvalid, "out of range"},
		"chunk too large":    {func(x *manifest.Index) { f := at(x, "etc/prices.csv"); f.Chunks[0].Size = 2 << 20; f.Size = 2 << 20 }, problem.IndexInvalid, "want 1 to"},
		"chunk longer":       {func(x *manifest.Index) { f := at(x, "etc/prices.csv"); f.Chunks[0].Size++; f.Size++ }, problem.ChunkCorrupt, "prices.csv"},
		"chunk shorter":      {func(x *manifest.Index) { f := at(x, "etc/prices.csv"); f.Chunks[0].Size--; f.Size-- }, problem.ChunkCorrupt, "prices.csv"},
		"other chunk":        {func(x *manifest.Index) { at(x, "etc/prices.csv").Chunks[0].ID = chunk.Sum(nil) }, problem.ChunkCorrupt, "prices.csv"},
		"sha256 lies":        {func(x *manifest.Index) { at(x, "empty").SHA256 = strings.Repeat("0", 64) }, problem.IndexInvalid, "the sha256 is not"},
		"no chunk list":      {func(x *manifest.Index) { at(x, "empty").Chunks = nil }, problem.IndexInvalid, "list of chunks is missing"},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, verify(t, resign(t, test.change)), test.code, test.word) })
	}
}

// pieces are the parts of a bundle that can be exchanged: its files, and the fields of its two documents.
func pieces(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range []string{ManifestName, ManifestName + ".asc", IndexName, SumsName, SumsName + ".asc",
		"content/bin/till", "content/data/map.bin", "content/data/pics.zip", "content/etc/prices.csv", "content/empty"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	return out
}

// Parts of two genuine bundles, put together in any way, are no genuine bundle.
func TestSplice(t *testing.T) {
	second := sample()
	for name := range second {
		second[name] += "2"
	}
	newer := func(o *BuildOptions) {
		o.Name, o.Version, o.Cycle, o.Sequence, o.Created = "till2", "2.0", "2026-48", 8, created.Add(60e9)
		o.Supersedes = []string{"1.0"}
		o.Target = manifest.Target{OS: "debian", Release: "12", Arch: "amd64", Format: manifest.FormatFiles}
	}
	a, b := build(t, sample()), build(t, second, newer)
	pa, pb := pieces(t, a.Dir), pieces(t, b.Dir)
	names := slices.Sorted(maps.Keys(pa))
	scratch := build(t, sample()).Dir
	write := func(ps map[string][]byte) {
		for name, content := range ps {
			if err := os.WriteFile(filepath.Join(scratch, name), content, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, whole := range []map[string][]byte{pa, pb} { // the control: either one whole is genuine
		write(whole)
		if err := verify(t, scratch); err != nil {
			t.Fatal(err)
		}
	}
	refused := map[problem.Code]int{}
	rapid.Check(t, func(rt *rapid.T) {
		mix := map[string][]byte{}
		fromA := 0
		for _, name := range names {
			if mix[name] = pb[name]; rapid.Bool().Draw(rt, name) {
				mix[name] = pa[name]
				fromA++
			}
		}
		if fromA == 0 || fromA == len(names) {
			rt.Skip("a whole bundle")
		}
		write(mix)
		err := verify(t, scratch)
		if err == nil {
			rt.Fatal("the mixture verifies")
		}
		refused[problem.CodeOf(err)]++
	})
	rapid.Check(t, func(rt *rapid.T) { // one field of the manifest from the other bundle
		write(pa)
		var ma, mb map[string]json.RawMessage
		json.Unmarshal(pa[ManifestName], &ma)
		json.Unmarshal(pb[ManifestName], &mb)
		field := rapid.SampledFrom(slices.Sorted(maps.Keys(ma))).Draw(rt, "field")
		if bytes.Equal(ma[field], mb[field]) {
			rt.Skip("the same in both")
		}
		spliced := bytes.Replace(pa[ManifestName], ma[field], mb[field], 1)
		if bytes.Equal(spliced, pa[ManifestName]) {
			rt.Fatal("nothing was spliced")
		}
		os.WriteFile(filepath.Join(scratch, ManifestName), spliced, 0o644)
		err := verify(t, scratch)
		if err == nil {
			rt.Fatalf("with %s of the other bundle it verifies", field)
		}
		refused[problem.CodeOf(err)]++
	})
	t.Log("refused:", fmt.Sprint(refused))
	if refused[problem.Internal] > 0 {
		t.Error("a mixture was refused without a code")
	}
}

func TestVerifyWithOtherKeys(t *testing.T) {
	release, policy, set := keys(t)
	b := build(t, sample())
	set.Release = roleKeys(t, 1, policy)
	wantCode(t, b.Verify(t.Context(), set, at, nil), problem.SignatureInvalid)
	set.Release = roleKeys(t, 2, policy, release)
	wantCode(t, b.Verify(t.Context(), set, at, nil), problem.SignatureInvalid)
}
