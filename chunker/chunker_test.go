package chunker

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// created is the date of every bundle in the tests; their signatures are made an hour later.
var created = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

var at = created.Add(2 * time.Hour)

// testKeys are two keys, made once: the first signs releases, the second policies.
var testKeys = sync.OnceValues(func() ([2]*signer.KeyFile, error) {
	var keys [2]*signer.KeyFile
	for i := range keys {
		priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: "test", Email: "test@example.org", Created: created.Add(-time.Hour)})
		if err != nil {
			return keys, err
		}
		if keys[i], err = signer.FromKey(priv, nil); err != nil {
			return keys, err
		}
		keys[i].Now = func() time.Time { return created.Add(time.Hour) }
	}
	return keys, nil
})

func keys(t testing.TB) (release, policy *signer.KeyFile, set *trust.Set) {
	t.Helper()
	ks, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	return ks[0], ks[1], &trust.Set{Release: roleKeys(t, 1, ks[0]), Policy: roleKeys(t, 1, ks[1])}
}

func roleKeys(t testing.TB, threshold int, ks ...signer.Signer) trust.RoleKeys {
	t.Helper()
	var public []trust.Key
	for _, k := range ks {
		public = append(public, k.Public())
	}
	rk, err := trust.NewRoleKeys(threshold, public...)
	if err != nil {
		t.Fatal(err)
	}
	return rk
}

// files is a tree; a path that ends in * is executable.
type files map[string]string

func tree(t testing.TB, fs files) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range fs {
		mode := os.FileMode(0o640)
		if n, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = n, 0o750
		}
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// noise is n bytes that do not compress and differ for every seed.
func noise(seed, n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return string(b)
}

func sample() files {
	return files{"bin/till*": "#!/bin/sh\necho till\n", "etc/prices.csv": strings.Repeat("4711;12.95\n", 1000),
		"data/map.bin": noise(1, 900_000), "empty": "", "data/pics.zip": "PK\x03\x04" + noise(2, 700_000)}
}

func options(from, out string) BuildOptions {
	return BuildOptions{Name: "till", Version: "1.0", Cycle: "2026-47", Sequence: 7, From: from, Out: out, Created: created,
		Target: manifest.Target{OS: manifest.Any, Release: manifest.Any, Arch: manifest.Any, Format: manifest.FormatFiles}}
}

// build makes a signed bundle.
func build(t testing.TB, fs files, change ...func(*BuildOptions)) *Bundle {
	t.Helper()
	release, _, _ := keys(t)
	o := options(tree(t, fs), filepath.Join(t.TempDir(), "b"))
	o.Signers = []signer.Signer{release}
	for _, c := range change {
		c(&o)
	}
	b, err := Build(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantCode(t testing.TB, err error, code problem.Code, words ...string) {
	t.Helper()
	var p *problem.Error
	if !errors.As(err, &p) || p.Code != code {
		t.Errorf("error %v, want code %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(p.Text(), w) {
			t.Errorf("the message does not say %q:\n%s", w, p.Text())
		}
	}
}

func TestBuild(t *testing.T) {
	from := sample()
	b := build(t, from)
	_, _, set := keys(t)
	if err := b.Verify(t.Context(), set, at, nil); err != nil {
		t.Fatal(err)
	}
	if b.Digest != manifest.DigestOf(b.Signed.Doc) || b.Manifest.Files != 5 || b.Manifest.Expires != created.Add(DefaultLifetime) {
		t.Errorf("manifest: %+v", b.Manifest)
	}
	modes := map[string]uint32{}
	for _, f := range b.Index.Files {
		modes[f.Path] = f.Mode
		var content []byte
		for _, r := range f.Chunks {
			plain, err := b.ReadChunk(r)
			if err != nil {
				t.Fatal(err)
			}
			content = append(content, plain...)
		}
		if string(content) != from[f.Path] && string(content) != from[f.Path+"*"] {
			t.Errorf("%s: the chunks together are not the file", f.Path)
		}
		info, err := os.Stat(filepath.Join(b.Dir, ContentName, f.Path))
		if err != nil || uint32(info.Mode()) != f.Mode || !info.ModTime().Equal(created) {
			t.Errorf("%s: %v %v", f.Path, info.Mode(), err)
		}
	}
	if diff := cmp.Diff(map[string]uint32{"bin/till": 0o755, "data/map.bin": 0o644, "data/pics.zip": 0o644, "empty": 0o644, "etc/prices.csv": 0o644}, modes); diff != "" {
		t.Error(diff)
	}
	// A package file is cut at fixed offsets.
	if zip := b.Index.Files[2].Chunks; len(zip) != 3 || zip[0].Size != chunk.DefaultSize || zip[1].Size != chunk.DefaultSize {
		t.Errorf("data/pics.zip is cut into %v", zip)
	}
	if diff := cmp.Diff([]string{"SHA256SUMS", "SHA256SUMS.asc", "content", "index.json", "manifest.json", "manifest.json.asc"}, list(t, b.Dir)); diff != "" {
		t.Error(diff)
	}
	if _, err := b.ReadChunk(manifest.ChunkRef{ID: chunk.Sum(nil), Size: 1}); problem.CodeOf(err) != problem.NotFound {
		t.Errorf("a chunk of another bundle: %v", err)
	}
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// The same inputs and the same date give the same bytes, wherever, whenever and by whomever they are built.
func TestBuildIsDeterministic(t *testing.T) {
	a := build(t, sample())
	old := syscallUmask(0o077)
	defer syscallUmask(old)
	b := build(t, sample(), func(o *BuildOptions) {
		o.Created = o.Created.In(time.FixedZone("somewhere", 3600)).Add(200 * time.Millisecond)
		later := time.Now().Add(-time.Hour)
		os.Chtimes(filepath.Join(o.From, "empty"), later, later)
		o.Signers = nil
	})
	if !bytes.Equal(a.Signed.Doc, b.Signed.Doc) {
		t.Errorf("two manifests:\n%s", cmp.Diff(string(a.Signed.Doc), string(b.Signed.Doc)))
	}
	if b.IsSigned() {
		t.Error("built without a signer and signed")
	}
	_, _, set := keys(t)
	wantCode(t, b.Verify(t.Context(), set, at, nil), problem.SignatureInvalid, "not signed")
}

func TestBuildRefuses(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tests := []struct {
		name   string
		change func(o *BuildOptions)
		code   problem.Code
		words  []string
	}{
		{"name", func(o *BuildOptions) { o.Name = "../x" }, problem.Usage, []string{"../x"}},
		{"no sequence", func(o *BuildOptions) { o.Sequence = 0 }, problem.Usage, []string{"sequence"}},
		{"expired", func(o *BuildOptions) { o.Expires = created.Add(-time.Hour) }, problem.Usage, []string{"expires"}},
		{"no date", func(o *BuildOptions) { o.Created = time.Time{} }, problem.Usage, []string{"created"}},
		{"no source", func(o *BuildOptions) { o.From = filepath.Join(o.From, "none") }, problem.InvalidFile, []string{"none"}},
		{"source is a file", func(o *BuildOptions) { o.From += "/empty" }, problem.InvalidFile, []string{"not a directory"}},
		{"date of last month", func(o *BuildOptions) {
			release, _, _ := keys(t)
			o.Created, o.Signers = created.AddDate(0, -1, 0), []signer.Signer{release}
		}, problem.SignatureInvalid, []string{"check the clock"}},
		{"exists", func(o *BuildOptions) { os.Mkdir(o.Out, 0o755) }, problem.AlreadyExists, nil},
		{"symlink", func(o *BuildOptions) { os.Symlink("empty", o.From+"/link") }, problem.InvalidFile, []string{"/link", "symbolic link", "replace it"}},
		{"symlinked directory", func(o *BuildOptions) { os.Symlink("/etc", o.From+"/conf") }, problem.InvalidFile, []string{"/conf", "symbolic link"}},
		{"fifo", func(o *BuildOptions) { mkfifo(t, o.From+"/pipe") }, problem.InvalidFile, []string{"/pipe", "neither a file nor a directory"}},
		{"setuid", func(o *BuildOptions) { os.Chmod(o.From+"/empty", 0o755|fs.ModeSetuid) }, problem.InvalidFile, []string{"/empty", "set-user-id"}},
		{"setgid", func(o *BuildOptions) { os.Chmod(o.From+"/empty", 0o755|fs.ModeSetgid) }, problem.InvalidFile, []string{"/empty", "set-group-id"}},
		{"backslash", func(o *BuildOptions) { os.WriteFile(o.From+`/a\b`, nil, 0o644) }, problem.InvalidFile, []string{"rename"}},
		{"control character", func(o *BuildOptions) { os.WriteFile(o.From+"/a\nb", nil, 0o644) }, problem.InvalidFile, []string{"rename"}},
		{"not UTF-8", func(o *BuildOptions) { os.WriteFile(o.From+"/a\xff", nil, 0o644) }, problem.InvalidFile, []string{"rename"}},
		{"case twins", func(o *BuildOptions) { os.WriteFile(o.From+"/EMPTY", nil, 0o644) }, problem.InvalidFile, []string{"letter case"}},
		{"case twin directories", func(o *BuildOptions) { os.MkdirAll(o.From+"/DATA", 0o755); os.WriteFile(o.From+"/DATA/x", nil, 0o644) }, problem.InvalidFile, []string{"letter case"}},
		{"empty directory", func(o *BuildOptions) { os.Mkdir(o.From+"/logs", 0o755) }, problem.InvalidFile, []string{"/logs", "empty directory"}},
		{"deb without packages", func(o *BuildOptions) { o.Target.Format = manifest.FormatDeb }, problem.InvalidFile, []string{"no .deb file"}},
		{"rpm without packages", func(o *BuildOptions) { o.Target.Format = manifest.FormatRPM }, problem.InvalidFile, []string{"no .rpm file"}},
		{"deb with metadata", func(o *BuildOptions) {
			o.Target.Format = manifest.FormatDeb
			os.WriteFile(o.From+"/Release", nil, 0o644)
		}, problem.InvalidFile, []string{"/Release", "made here"}},
		{"signer fails", func(o *BuildOptions) { o.Signers = []signer.Signer{brokenSigner{}} }, problem.Internal, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := options(tree(t, sample()), filepath.Join(t.TempDir(), "b"))
			test.change(&o)
			before := list(t, filepath.Dir(o.Out))
			_, err := Build(context.Background(), o)
			if test.code == problem.Internal {
				if err == nil {
					t.Error("no error")
				}
			} else {
				wantCode(t, err, test.code, test.words...)
			}
			if diff := cmp.Diff(before, list(t, filepath.Dir(o.Out))); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
	o := options(tree(t, sample()), filepath.Join(t.TempDir(), "b"))
	if _, err := Build(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

type brokenSigner struct{ signer.Signer }

func (brokenSigner) Sign(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("the card was pulled")
}

// Two people sign one after the other; one alone is not enough, and the same one twice is not two.
func TestSignThreshold(t *testing.T) {
	first, second, _ := keys(t)
	set := &trust.Set{Release: roleKeys(t, 2, first, second)}
	b := build(t, sample())
	sign := func(s signer.Signer) *Bundle {
		t.Helper()
		if err := Sign(t.Context(), b.Dir, s); err != nil {
			t.Fatal(err)
		}
		b, err := Open(b.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	again := sign(first)
	wantCode(t, again.Verify(t.Context(), set, at, nil), problem.SignatureInvalid)
	both := sign(second)
	if err := both.Verify(t.Context(), set, at, nil); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	_, err := Open(t.TempDir())
	wantCode(t, err, problem.InvalidFile, "not a bundle")
	_, err = Open(filepath.Join(t.TempDir(), "none"))
	wantCode(t, err, problem.InvalidFile)
}
