package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

func ref(content string) ChunkRef {
	return ChunkRef{ID: chunk.Sum([]byte(content)), Size: int64(len(content))}
}

func sampleFile(path, content string) File {
	f := File{Path: path, Size: int64(len(content)), Mode: ModeFile, SHA256: chunk.Sum([]byte(content)).Hex(), Chunks: []ChunkRef{}}
	if content != "" {
		f.Chunks = append(f.Chunks, ref(content))
	}
	return f
}

func sampleIndex() *Index {
	return &Index{Schema: SchemaIndex, Files: []File{sampleFile("bin/till", "#!/bin/sh"), sampleFile("empty", ""), sampleFile("etc/prices", "4711")}}
}

// sample is a manifest and the bytes of its index.
func sample(t testing.TB, x *Index) (*Manifest, []byte) {
	t.Helper()
	b, err := EncodeCanonical(x)
	if err != nil {
		t.Fatal(err)
	}
	created := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	return &Manifest{Schema: SchemaManifest, Name: "till", Version: "1.0", Cycle: "2026-47", Sequence: 7,
		Target:  Target{OS: "debian", Release: "12", Arch: "amd64", Format: FormatFiles},
		Created: created, Expires: created.AddDate(0, 0, 45), Supersedes: []string{"0.9"}, Files: len(x.Files), TotalBytes: x.TotalBytes(),
		Index: IndexRef{ID: chunk.Sum(b), Size: int64(len(b)), Chunks: []ChunkRef{{ID: chunk.Sum(b), Size: int64(len(b))}}}}, b
}

// The golden vector: these bytes are what is signed, so they must not change while the schema is v1.
const golden = `{
 "schema": "patchmesh.io/manifest/v1",
 "name": "till",
 "version": "1.0",
 "cycle": "2026-47",
 "sequence": 7,
 "target": {
  "os": "debian",
  "release": "12",
  "arch": "amd64",
  "format": "files"
 },
 "created": "2026-11-20T10:00:00Z",
 "expires": "2027-01-04T10:00:00Z",
 "supersedes": [
  "0.9"
 ],
 "files": 3,
 "totalBytes": 13,
 "index": {
  "cid": "INDEX",
  "size": 742,
  "chunks": [
   {
    "cid": "INDEX",
    "size": 742
   }
  ]
 }
}
`

func TestGolden(t *testing.T) {
	m, ib := sample(t, sampleIndex())
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(golden, "INDEX", chunk.Sum(ib).String())
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Fatal(diff)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Error(diff)
	}
	x, err := ParseIndex(m, ib)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleIndex(), x); diff != "" {
		t.Error(diff)
	}
}

// Only the canonical bytes are read: everything else that JSON allows is another document with the same meaning.
func TestParseRefusesOtherForms(t *testing.T) {
	m, _ := sample(t, sampleIndex())
	b, _ := m.Encode()
	s := string(b)
	for name, other := range map[string]string{
		"empty":             "",
		"null":              "null\n",
		"array":             "[]\n",
		"no final newline":  strings.TrimSuffix(s, "\n"),
		"trailing newline":  s + "\n",
		"trailing document": s + s,
		"spaces":            strings.Replace(s, `"name": `, `"name":  `, 1),
		"compact":           strings.ReplaceAll(s, "\n ", "\n"),
		"repeated key":      strings.Replace(s, ` "name": "till",`, " \"name\": \"x\",\n \"name\": \"till\",", 1),
		"unknown key":       strings.Replace(s, ` "name"`, " \"evil\": 1,\n \"name\"", 1),
		"upper-case key":    strings.Replace(s, `"name"`, `"Name"`, 1),
		"missing key":       strings.Replace(s, " \"cycle\": \"2026-47\",\n", "", 1),
		"escaped letter":    strings.Replace(s, "till", `\u0074ill`, 1),
		"order of keys":     strings.Replace(strings.Replace(s, " \"cycle\": \"2026-47\",\n", "", 1), ` "name"`, " \"cycle\": \"2026-47\",\n \"name\"", 1),
		"number as float":   strings.Replace(s, `"sequence": 7`, `"sequence": 7.0`, 1),
		"negative sequence": strings.Replace(s, `"sequence": 7`, `"sequence": -7`, 1),
		"huge number":       strings.Replace(s, `"sequence": 7`, `"sequence": 99999999999999999999`, 1),
		"time zone":         strings.Replace(s, "10:00:00Z", "11:00:00+01:00", 1),
		"fraction":          strings.Replace(s, "10:00:00Z", "10:00:00.5Z", 1),
		"null list":         strings.Replace(s, "[\n  \"0.9\"\n ]", "null", 1),
		"byte order mark":   "\ufeff" + s,
		"not UTF-8":         strings.Replace(s, "till", "ti\xffl", 1),
		"too large":         s + strings.Repeat(" ", MaxManifestBytes),
		"deep":              strings.Repeat("[", 100_000),
	} {
		if _, err := Parse([]byte(other)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

func TestValidateManifest(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"schema of an index": func(m *Manifest) { m.Schema = SchemaIndex },
		"no name":            func(m *Manifest) { m.Name = "" },
		"name with slash":    func(m *Manifest) { m.Name = "a/b" },
		"name dot-dot":       func(m *Manifest) { m.Name = "a..b" },
		"name upper case":    func(m *Manifest) { m.Name = "Till" },
		"long name":          func(m *Manifest) { m.Name = strings.Repeat("a", 65) },
		"version with slash": func(m *Manifest) { m.Version = "1/2" },
		"version dot-dot":    func(m *Manifest) { m.Version = "1..2" },
		"no version":         func(m *Manifest) { m.Version = "" },
		"cycle with space":   func(m *Manifest) { m.Cycle = "a b" },
		"sequence 0":         func(m *Manifest) { m.Sequence = 0 },
		"no os":              func(m *Manifest) { m.Target.OS = "" },
		"no release":         func(m *Manifest) { m.Target.Release = "" },
		"no arch":            func(m *Manifest) { m.Target.Arch = "" },
		"unknown format":     func(m *Manifest) { m.Target.Format = "zip" },
		"no created":         func(m *Manifest) { m.Created = time.Time{} },
		"created in a zone":  func(m *Manifest) { m.Created = m.Created.In(time.FixedZone("x", 3600)) },
		"created nanosecond": func(m *Manifest) { m.Created = m.Created.Add(1) },
		"expires before":     func(m *Manifest) { m.Expires = m.Created },
		"supersedes nil":     func(m *Manifest) { m.Supersedes = nil },
		"supersedes odd":     func(m *Manifest) { m.Supersedes = []string{"a/b"} },
		"supersedes many":    func(m *Manifest) { m.Supersedes = make([]string, 65) },
		"no files":           func(m *Manifest) { m.Files = 0 },
		"too many files":     func(m *Manifest) { m.Files = MaxFiles + 1 },
		"negative total":     func(m *Manifest) { m.TotalBytes = -1 },
		"huge total":         func(m *Manifest) { m.TotalBytes = MaxTotalBytes + 1 },
		"index empty":        func(m *Manifest) { m.Index.Size = 0 },
		"index huge":         func(m *Manifest) { m.Index.Size = MaxIndexBytes + 1 },
		"index chunks nil":   func(m *Manifest) { m.Index.Chunks = nil },
		"index sizes":        func(m *Manifest) { m.Index.Size++ },
		"index chunk 0":      func(m *Manifest) { m.Index.Chunks = append(m.Index.Chunks, ChunkRef{}) },
		"index chunk -1":     func(m *Manifest) { m.Index.Chunks = []ChunkRef{{Size: -1}, {Size: m.Index.Size + 1}} },
		"index chunk huge":   func(m *Manifest) { m.Index = IndexRef{Size: 2 << 20, Chunks: []ChunkRef{{Size: 2 << 20}}} },
	} {
		m, _ := sample(t, sampleIndex())
		change(m)
		if b, err := m.Encode(); err == nil {
			t.Errorf("%s: encoded as\n%s", name, b)
		}
		raw, err := EncodeCanonical(m)
		if err != nil {
			continue // there are no bytes for it at all
		}
		if _, err := Parse(raw); err == nil {
			t.Errorf("%s: read from\n%s", name, raw)
		}
	}
}

func TestParseIndexBelongsToManifest(t *testing.T) {
	m, ib := sample(t, sampleIndex())
	for name, change := range map[string]func(*Manifest){
		"id":    func(m *Manifest) { m.Index.ID[0] ^= 1 },
		"size":  func(m *Manifest) { m.Index.Size++ },
		"files": func(m *Manifest) { m.Files++ },
		"total": func(m *Manifest) { m.TotalBytes++ },
	} {
		other := *m
		change(&other)
		if _, err := ParseIndex(&other, ib); err == nil {
			t.Errorf("%s lies and the index is read", name)
		}
	}
	m2, b2 := sample(t, &Index{Schema: SchemaManifest, Files: sampleIndex().Files})
	if _, err := ParseIndex(m2, b2); err == nil {
		t.Error("an index of another schema is read")
	}
}

func TestValidPath(t *testing.T) {
	for path, want := range map[string]bool{
		"a": true, "a/b": true, "...": true, ".a/..b": true, "a b/ü.txt": true, "a/" + strings.Repeat("x", 255): true,
		"": false, ".": false, "..": false, "/": false, "/a": false, "a/": false, "a//b": false, "./a": false, "../a": false, "a/..": false,
		"a/../b": false, "a/./b": false, `a\b`: false, "c:": false, "a\x00b": false, "a\nb": false, "a\x7f": false, "a\xff": false,
		"a/" + strings.Repeat("x", 256): false, strings.Repeat("x/", 512) + "x": false,
	} {
		if err := ValidPath(path); (err == nil) != want {
			t.Errorf("%.40q: %v", path, err)
		}
	}
}

func TestDigest(t *testing.T) {
	d := DigestOf([]byte("x"))
	if got, err := ParseDigest(d.String()); err != nil || got != d || len(d.Short()) != 12 {
		t.Errorf("%s: %v", got, err)
	}
	b, err := json.Marshal(d)
	var back Digest
	if err != nil || json.Unmarshal(b, &back) != nil || back != d {
		t.Errorf("%s: %v", b, err)
	}
	s := d.String()
	for _, bad := range []string{"", "sha256:", s[7:], strings.ToUpper(s), "sha256:" + strings.ToUpper(s[7:]), s + "0", s[:70], "md5:" + s[7:], "sha256:" + strings.Repeat("g", 64)} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q is a checksum", bad)
		}
	}
}

func TestTargetMatches(t *testing.T) {
	f := Facts{OS: "debian", Release: "12", Arch: "amd64"}
	for _, c := range []struct {
		os, release, arch string
		want              bool
	}{
		{"debian", "12", "amd64", true}, {Any, Any, Any, true}, {"debian", Any, "amd64", true},
		{"ubuntu", "12", "amd64", false}, {"debian", "11", "amd64", false}, {"debian", "12", "arm64", false}, {Any, Any, "arm64", false},
	} {
		tg := Target{c.os, c.release, c.arch, FormatFiles}
		if tg.Matches(f) != c.want {
			t.Errorf("%s matches: %v", tg, !c.want)
		}
	}
}

// Adding the index to a catalog renumbers nothing, and every chunk stands in it once.
func TestCatalog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := func() string { return fmt.Sprint("c", rapid.IntRange(0, 9).Draw(t, "chunk")) }
		m := &Manifest{}
		for range rapid.IntRange(1, 4).Draw(t, "index chunks") {
			m.Index.Chunks = append(m.Index.Chunks, ref(name()))
		}
		x := &Index{}
		for range rapid.IntRange(0, 5).Draw(t, "files") {
			f := File{}
			for range rapid.IntRange(0, 5).Draw(t, "chunks") {
				f.Chunks = append(f.Chunks, ref(name()))
			}
			x.Files = append(x.Files, f)
		}
		early, whole := NewCatalog(m, nil), NewCatalog(m, x)
		if early.Complete || !whole.Complete || early.IndexCount != len(early.Chunks) || whole.IndexCount != early.IndexCount {
			t.Fatalf("early %+v, whole %+v", early, whole)
		}
		early.Extend(x)
		if diff := cmp.Diff(early.Chunks, whole.Chunks); diff != "" {
			t.Fatal(diff)
		}
		var bytes int64
		for i, r := range whole.Chunks {
			if p, ok := whole.Position(r.ID); !ok || p != i {
				t.Fatalf("chunk %d has the number %d", i, p)
			}
			bytes += r.Size
		}
		if whole.Bytes() != bytes {
			t.Fatalf("%d bytes, want %d", whole.Bytes(), bytes)
		}
		if _, ok := whole.Position(chunk.Sum(nil)); ok {
			t.Fatal("a chunk of another bundle has a number")
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	m, _ := sample(f, sampleIndex())
	b, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"schema":"patchmesh.io/manifest/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("read and not written so: %v\n%s", err, again)
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	_, b := sample(f, sampleIndex())
	f.Add(b)
	f.Add([]byte(`{"schema":"patchmesh.io/index/v1","files":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The manifest names whatever bytes there are: what is left to refuse is in the index itself.
		m := &Manifest{Index: IndexRef{ID: chunk.Sum(b), Size: int64(len(b))}}
		var probe Index
		if json.Unmarshal(b, &probe) == nil {
			m.Files, m.TotalBytes = len(probe.Files), probe.TotalBytes()
		}
		x, err := ParseIndex(m, b)
		if err != nil {
			return
		}
		if again, err := x.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("read and not written so: %v\n%s", err, again)
		}
		for _, file := range x.Files {
			if strings.Contains("/"+file.Path+"/", "/../") || strings.HasPrefix(file.Path, "/") {
				t.Errorf("path %q", file.Path)
			}
		}
	})
}
