package chunker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// shelf is a sink that checks what it is given.
type shelf struct {
	t         testing.TB
	manifests int
	revoked   []trust.Signed
	policies  []trust.Signed
	grants    []trust.Signed
	chunks    map[chunk.ID]int64
	fail      error
}

func (s *shelf) Manifest(m *manifest.Manifest, signed trust.Signed) error { s.manifests++; return nil }
func (s *shelf) Revocations(l trust.Signed) error                         { s.revoked = append(s.revoked, l); return nil }
func (s *shelf) Policy(p trust.Signed) error                              { s.policies = append(s.policies, p); return nil }
func (s *shelf) Grant(_ *grant.Grant, g trust.Signed) error {
	s.grants = append(s.grants, g)
	return nil
}
func (s *shelf) Chunk(ref manifest.ChunkRef, plain []byte) error {
	if s.manifests != 1 || chunk.Sum(plain) != ref.ID || int64(len(plain)) != ref.Size {
		s.t.Errorf("chunk %s of %d bytes was handed out and not verified", ref.ID, ref.Size)
	}
	if s.chunks == nil {
		s.chunks = map[chunk.ID]int64{}
	}
	s.chunks[ref.ID] = ref.Size
	return s.fail
}

func signedPolicy(t testing.TB, text string) trust.Signed {
	t.Helper()
	_, policy, _ := keys(t)
	sig, err := policy.Sign(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return trust.Signed{Doc: []byte(text), Sig: sig}
}

func stick(t testing.TB, b *Bundle, policies ...trust.Signed) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Export(t.Context(), b, Enclosed{Policies: policies}, &out, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func importStick(t testing.TB, r io.Reader, sink Sink) (*manifest.Manifest, error) {
	t.Helper()
	_, _, set := keys(t)
	return Import(t.Context(), r, set, at, sink)
}

func TestExportImport(t *testing.T) {
	b := build(t, sample())
	policies := []trust.Signed{signedPolicy(t, "one"), signedPolicy(t, "two")}
	file := stick(t, b, policies...)
	if !bytes.Equal(file, stick(t, b, policies...)) {
		t.Error("two exports differ")
	}
	got := &shelf{t: t}
	m, err := importStick(t, iotest.HalfReader(bytes.NewReader(file)), got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.Manifest, m); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(policies, got.policies); diff != "" {
		t.Error(diff)
	}
	catalog := b.Catalog()
	for _, r := range catalog.Chunks {
		if got.chunks[r.ID] != r.Size {
			t.Errorf("chunk %s did not arrive", r.ID)
		}
	}
	if len(got.chunks) != len(catalog.Chunks) {
		t.Errorf("%d chunks, want %d", len(got.chunks), len(catalog.Chunks))
	}
	// Zero padding is what other programs add.
	if _, err := importStick(t, bytes.NewReader(append(bytes.Clone(file), make([]byte, 9728)...)), &shelf{t: t}); err != nil {
		t.Errorf("padded: %v", err)
	}
	full := errors.New("the disk is full")
	if _, err := importStick(t, bytes.NewReader(file), &shelf{t: t, fail: full}); !errors.Is(err, full) {
		t.Errorf("the sink's error is %v", err)
	}
}

// keep is a sink that fills a store, as a node does.
type keep struct {
	shelf
	*store.Store
}

func (k *keep) Chunk(ref manifest.ChunkRef, plain []byte) error {
	_, err := k.Put(ref.ID, plain)
	return err
}

func TestImportIntoStore(t *testing.T) {
	b := build(t, sample())
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := importStick(t, bytes.NewReader(stick(t, b)), &keep{Store: s}); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.Catalog().Chunks {
		if _, err := s.Get(r.ID, nil); err != nil {
			t.Error(err)
		}
	}
	if r, err := s.Fsck(t.Context(), false, nil); err != nil || !r.Clean() {
		t.Errorf("%+v, %v", r, err)
	}
}

// The stick file unpacked by the tar program is the bundle again.
func TestUntar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("needs tar: apt-get install tar")
	}
	b := build(t, sample())
	dir := t.TempDir()
	cmd := exec.Command("tar", "-xf", "-", "-C", dir)
	cmd.Stdin = bytes.NewReader(stick(t, b, signedPolicy(t, "one")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := verify(t, dir); err != nil {
		t.Error(err)
	}
	if got := list(t, filepath.Join(dir, "policies")); len(got) != 2 {
		t.Errorf("policies: %v", got)
	}
}

func TestExportRefuses(t *testing.T) {
	unsigned := build(t, sample(), func(o *BuildOptions) { o.Signers = nil })
	wantCode(t, Export(t.Context(), unsigned, Enclosed{}, io.Discard, nil), problem.SignatureInvalid, "not signed")
	b := build(t, sample())
	edit(t, filepath.Join(b.Dir, "content/data/map.bin"), func(b []byte) []byte { b[700_000] ^= 1; return b })
	wantCode(t, Export(t.Context(), b, Enclosed{}, io.Discard, nil), problem.ChunkCorrupt, "data/map.bin")
	wantCode(t, Export(t.Context(), b, Enclosed{Policies: []trust.Signed{{Doc: []byte("x")}}}, io.Discard, nil), problem.InvalidPolicy)
	wantCode(t, Export(t.Context(), b, Enclosed{Policies: make([]trust.Signed, 65)}, io.Discard, nil), problem.Usage)
	wantCode(t, Export(t.Context(), b, Enclosed{Revocations: trust.Signed{Doc: []byte("x")}}, io.Discard, nil), problem.InvalidRevocation)
}

// entry is one entry of a tar that a test changes.
type entry struct {
	tar.Header
	body []byte
}

func entries(t testing.TB, file []byte) (es []entry) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(file))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return es
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, entry{*h, body})
	}
}

func pack(t testing.TB, es []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range es {
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(e.body))
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(body)}
}

func TestImportRefuses(t *testing.T) {
	b := build(t, sample())
	good := entries(t, stick(t, b, signedPolicy(t, "one")))
	find := func(es []entry, name string) int {
		return slices.IndexFunc(es, func(e entry) bool { return e.Name == name })
	}
	const first = 6 // of index.json: manifest, sums and one policy stand before it
	if good[first].Name != IndexName {
		t.Fatal(good[first].Name)
	}
	flip := func(name string) func([]entry) []entry {
		return func(es []entry) []entry {
			e := &es[find(es, name)]
			e.body[len(e.body)/2] ^= 1
			return es
		}
	}
	tests := []struct {
		name   string
		change func([]entry) []entry
		code   problem.Code
		words  []string
	}{
		{"nothing", func(es []entry) []entry { return es }, "", nil},
		{"empty file", func([]entry) []entry { return nil }, problem.InvalidFile, []string{"ends where manifest.json"}},
		{"flipped bit in the manifest", flip(ManifestName), problem.SignatureInvalid, nil},
		{"flipped bit in the signature", flip(ManifestName + ".asc"), problem.SignatureInvalid, nil},
		{"flipped bit in SHA256SUMS", flip(SumsName), problem.ChecksumMismatch, []string{"SHA256SUMS"}},
		{"flipped bit in the index", flip(IndexName), problem.IndexInvalid, nil},
		{"flipped bit in content", flip("content/data/map.bin"), problem.ChunkCorrupt, []string{"content/data/map.bin"}},
		{"changed policy", func(es []entry) []entry {
			es[4].body = []byte("two")
			es[4].Name, es[5].Name = policyPath(es[4].body), policyPath(es[4].body)+".asc"
			return es
		}, problem.SignatureInvalid, nil},
		{"policy of another name", func(es []entry) []entry { es[4].Name, es[5].Name = "policies/x", "policies/x.asc"; return es }, problem.InvalidFile, []string{"policies/x"}},
		{"policy outside", func(es []entry) []entry {
			es[4].Name, es[5].Name = "policies/../../etc/x", "policies/../../etc/x.asc"
			return es
		}, problem.InvalidFile, []string{"policies/../"}},
		{"policy signed by the release key", func(es []entry) []entry { es[5].body = es[1].body; return es }, problem.SignatureInvalid, nil},
		{"many policies", func(es []entry) []entry {
			for range maxPolicies {
				es = slices.Insert(es, 4, es[4], es[5])
			}
			return es
		}, problem.InvalidFile, []string{"more than 64"}},
		{"huge policy", func(es []entry) []entry { es[4].body = make([]byte, 1<<20); return es }, problem.InvalidFile, []string{"at most"}},
		{"huge signature", func(es []entry) []entry { es[1].body = make([]byte, 1<<20); return es }, problem.InvalidFile, []string{"at most"}},
		{"extra entry at the end", func(es []entry) []entry { return append(es, file("content/extra", "x")) }, problem.InvalidFile, []string{"content/extra", "not in the index"}},
		{"extra entry before", func(es []entry) []entry { return slices.Insert(es, 0, file("autorun.inf", "x")) }, problem.InvalidFile, []string{"autorun.inf"}},
		{"extra entry between", func(es []entry) []entry { return slices.Insert(es, first+1, file("content/a", "x")) }, problem.InvalidFile, []string{"content/a"}},
		{"entry twice", func(es []entry) []entry { return slices.Insert(es, first+1, es[first+1]) }, problem.InvalidFile, nil},
		{"out of order", func(es []entry) []entry { es[first+1], es[first+2] = es[first+2], es[first+1]; return es }, problem.InvalidFile, nil},
		{"entry missing", func(es []entry) []entry { return slices.Delete(es, first+1, first+2) }, problem.InvalidFile, nil},
		{"last entry missing", func(es []entry) []entry { return es[:len(es)-1] }, problem.InvalidFile, []string{"ends where"}},
		{"file longer", func(es []entry) []entry { es[first+1].body = append(es[first+1].body, 1); return es }, problem.InvalidFile, []string{"at most"}},
		{"file shorter", func(es []entry) []entry { es[first+1].body = es[first+1].body[1:]; return es }, problem.InvalidFile, []string{"the index says"}},
		{"absolute", func(es []entry) []entry { es[first+1].Name = "/" + es[first+1].Name; return es }, problem.InvalidFile, nil},
		{"dot-dot", func(es []entry) []entry { es[first+1].Name = "content/../" + es[first+1].Name; return es }, problem.InvalidFile, nil},
		{"symbolic link", func(es []entry) []entry {
			es[first+1] = entry{tar.Header{Typeflag: tar.TypeSymlink, Name: es[first+1].Name, Linkname: "/etc/passwd"}, nil}
			return es
		}, problem.InvalidFile, []string{"no regular file"}},
		{"hard link", func(es []entry) []entry {
			es[first+1] = entry{tar.Header{Typeflag: tar.TypeLink, Name: es[first+1].Name, Linkname: "/etc/passwd"}, nil}
			return es
		}, problem.InvalidFile, []string{"no regular file"}},
		{"device", func(es []entry) []entry {
			es[first+1] = entry{tar.Header{Typeflag: tar.TypeChar, Name: es[first+1].Name, Devmajor: 1, Devminor: 5}, nil}
			return es
		}, problem.InvalidFile, []string{"no regular file"}},
		{"directory", func(es []entry) []entry {
			return slices.Insert(es, first+1, entry{tar.Header{Typeflag: tar.TypeDir, Name: "content/"}, nil})
		}, problem.InvalidFile, []string{"no regular file"}},
		{"global header", func(es []entry) []entry {
			return slices.Insert(es, 0, entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, nil})
		}, problem.InvalidFile, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			es := slices.Clone(good)
			for i := range es {
				es[i].body = bytes.Clone(es[i].body)
			}
			_, err := importStick(t, bytes.NewReader(pack(t, test.change(es))), &shelf{t: t})
			if test.code != "" {
				wantCode(t, err, test.code, test.words...)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestImportTruncated(t *testing.T) {
	file := stick(t, build(t, sample()))
	end := bytes.LastIndexByte(file, '\n') + 1 // of the last file; the tar's padding and end mark carry nothing
	cuts := []int{0, 1, 511, 512, 513, end - 1}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		cuts = append(cuts, rng.IntN(end))
	}
	for _, n := range cuts {
		_, err := importStick(t, bytes.NewReader(file[:n]), &shelf{t: t})
		if err == nil {
			t.Errorf("%d of %d bytes were taken for the whole", n, len(file))
		} else if c := problem.CodeOf(err); c != problem.InvalidFile && c != problem.SignatureInvalid {
			t.Errorf("%d of %d bytes: %v", n, len(file), err)
		}
	}
	_, err := importStick(t, iotest.TimeoutReader(bytes.NewReader(file)), &shelf{t: t})
	wantCode(t, err, problem.InvalidFile, "timeout")
	_, err = importStick(t, bytes.NewReader(append(bytes.Clone(file), 1)), &shelf{t: t})
	wantCode(t, err, problem.InvalidFile, "bytes follow its end")
	_, err = importStick(t, io.MultiReader(bytes.NewReader(file), zeros{}), &shelf{t: t})
	wantCode(t, err, problem.InvalidFile, "bytes follow its end")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A flipped bit anywhere is noticed, or stands where nothing is read from, such as an entry's date.
func TestImportFlippedBits(t *testing.T) {
	b := build(t, sample())
	file := stick(t, b)
	whole := &shelf{t: t}
	if _, err := importStick(t, bytes.NewReader(file), whole); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		n := rng.IntN(len(file))
		file[n] ^= 1 << (n % 8)
		got := &shelf{t: t}
		if _, err := importStick(t, bytes.NewReader(file), got); err == nil && !cmp.Equal(whole.chunks, got.chunks) {
			t.Errorf("byte %d: taken for whole and is not", n)
		}
		file[n] ^= 1 << (n % 8)
	}
}

func TestImportInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, set := keys(t)
	if _, err := Import(ctx, bytes.NewReader(stick(t, build(t, sample()))), set, at, &shelf{t: t}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What a header says makes nothing large.
func TestImportAllocatesNothingForHeaders(t *testing.T) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: ManifestName, Size: 1 << 40, Mode: 0o644, Format: tar.FormatPAX})
	w.Write(make([]byte, 1000))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := importStick(t, bytes.NewReader(out.Bytes()), &shelf{t: t})
	runtime.ReadMemStats(&after)
	wantCode(t, err, problem.InvalidFile, "at most")
	if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 { // a chunk is 1 MiB
		t.Errorf("%d bytes allocated", n)
	}
}

var update = flag.Bool("update", false, "write the stick file and the keys in testdata anew")

// fuzzFixture is a small stick file and the keys that it verifies with, from testdata: each process of a fuzz run must
// have the same.
func fuzzFixture(f *testing.F) (whole []byte, set *trust.Set) {
	f.Helper()
	const stickName, setName = "testdata/stick.tar", "testdata/trust.json"
	if *update {
		release, _, set := keys(f)
		set.Roster = roleKeys(f, 1, release) // not used, but a set without is none
		keysFile, err := set.Encode()
		if err != nil {
			f.Fatal(err)
		}
		file := stick(f, build(f, files{"a": "alpha", "b/c*": "gamma"}), signedPolicy(f, "one"))
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(stickName, file, 0o644), os.WriteFile(setName, keysFile, 0o644)); err != nil {
			f.Fatal(err)
		}
	}
	whole, err := os.ReadFile(stickName)
	if err != nil {
		f.Fatal(err)
	}
	keysFile, err := os.ReadFile(setName)
	if err != nil {
		f.Fatal(err)
	}
	if set, err = trust.ParseSet(keysFile); err != nil {
		f.Fatal(err)
	}
	return whole, set
}

// FuzzImport puts patch into a good stick file at some place, instead of as many bytes or between them, and cuts off the
// end: random bytes alone would never come past the signature.
func FuzzImport(f *testing.F) {
	whole, set := fuzzFixture(f)
	var good shelf
	good.t = f
	if _, err := Import(f.Context(), bytes.NewReader(whole), set, at, &good); err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{}, false, uint32(0))
	f.Add(uint32(0), []byte("manifest.json"), true, uint32(len(whole)))
	for _, name := range []string{IndexName, "content/a", "policies/", SumsName} {
		f.Add(uint32(bytes.Index(whole, []byte(name))), []byte("x"), false, uint32(1024))
	}
	f.Fuzz(func(t *testing.T, pos uint32, patch []byte, insert bool, cut uint32) {
		pos %= uint32(len(whole)) + 1
		rest := whole[pos:]
		if !insert {
			rest = rest[min(len(patch), len(rest)):]
		}
		file := slices.Concat(whole[:pos], patch, rest)
		file = file[:len(file)-int(cut%uint32(len(file)+1))]
		got := &shelf{t: t}
		if _, err := Import(t.Context(), bytes.NewReader(file), set, at, got); err == nil && !cmp.Equal(got.chunks, good.chunks) {
			t.Errorf("taken for whole with %d chunks", len(got.chunks))
		}
	})
}
