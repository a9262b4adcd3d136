package chunker

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

func cutAll(t rapid.TB, b []byte) (refs []manifest.ChunkRef, together []byte) {
	t.Helper()
	err := newCutter().cut(bytes.NewReader(b), func(plain []byte) error {
		refs = append(refs, manifest.ChunkRef{ID: chunk.Sum(plain), Size: int64(len(plain))})
		together = append(together, plain...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return refs, together
}

func TestCutLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 5<<20).Draw(t, "size")
		b := []byte(noise(rapid.IntRange(0, 1000).Draw(t, "seed"), n))
		if rapid.Bool().Draw(t, "repeats") && n > 0 {
			unit := b[:min(n, 1+n%1000)]
			b = bytes.Repeat(unit, n/len(unit))
		}
		if rapid.Bool().Draw(t, "compressed") {
			b = append([]byte("\x1f\x8b"), b...)
		}
		refs, together := cutAll(t, b)
		if !bytes.Equal(together, b) {
			t.Fatalf("%d bytes in, %d out", len(b), len(together))
		}
		for i, r := range refs {
			if r.Size < 1 || r.Size > chunk.MaxSize || i < len(refs)-1 && r.Size < cdcMin {
				t.Fatalf("chunk %d of %d has %d bytes", i, len(refs), r.Size)
			}
		}
	})
}

// Where a file is cut depends on its bytes, not on how they arrive.
func TestCutDoesNotDependOnReads(t *testing.T) {
	b := noise(3, 3<<20)
	want, _ := cutAll(t, []byte(b))
	var got []manifest.ChunkRef
	err := newCutter().cut(iotest.HalfReader(iotest.DataErrReader(strings.NewReader(b))), func(plain []byte) error {
		got = append(got, manifest.ChunkRef{ID: chunk.Sum(plain), Size: int64(len(plain))})
		return nil
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// The cuts are part of what sites hold: if a new version of the library moved them, every site would fetch everything again.
func TestCutsStay(t *testing.T) {
	refs, _ := cutAll(t, []byte(noise(4, 3_000_000)))
	var sizes []int64
	for _, r := range refs {
		sizes = append(sizes, r.Size)
	}
	if diff := cmp.Diff([]int64{216511, 319084, 364983, 376765, 362369, 334994, 320558, 501861, 202875}, sizes); diff != "" {
		t.Error(diff)
	}
}

func TestCompressed(t *testing.T) {
	for name, c := range map[string]struct {
		head string
		want bool
	}{
		"deb": {"!<arch>\ndebian-binary", true}, "rpm": {"\xed\xab\xee\xdb\x03\x00", true}, "gzip": {"\x1f\x8b\x08", true},
		"xz": {"\xfd7zXZ\x00", true}, "zstd": {"\x28\xb5\x2f\xfd", true}, "zip": {"PK\x03\x04", true}, "png": {"\x89PNG\r\n\x1a\n", true},
		"jpeg": {"\xff\xd8\xff\xe0", true}, "webp": {"RIFF\x00\x00\x00\x00WEBP", true}, "mp4": {"\x00\x00\x00\x20ftypisom", true},
		"wav": {"RIFF\x00\x00\x00\x00WAVE", false}, "text": {"hello", false}, "elf": {"\x7fELF", false}, "empty": {"", false}, "short": {"RIFF", false},
	} {
		if got := compressed([]byte(c.head)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A byte put in at the front of a file costs one chunk; at fixed offsets it costs all of them.
func TestInsertionCostsOneChunk(t *testing.T) {
	old := noise(5, 8<<20)
	count := func(prefix string) (fresh, all int) {
		have := map[chunk.ID]bool{}
		refs, _ := cutAll(t, []byte(prefix+old))
		for _, r := range refs {
			have[r.ID] = true
		}
		refs, _ = cutAll(t, []byte(prefix+"x"+old))
		for _, r := range refs {
			if !have[r.ID] {
				fresh++
			}
		}
		return fresh, len(refs)
	}
	if fresh, all := count(""); fresh > 2 || all < 10 {
		t.Errorf("by content: %d of %d chunks are new", fresh, all)
	}
	if fresh, all := count("\x1f\x8b"); fresh != all { // the control: the same bytes, cut as a compressed file
		t.Errorf("at fixed offsets: %d of %d chunks are new", fresh, all)
	}
}
