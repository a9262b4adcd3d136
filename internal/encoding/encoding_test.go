package encoding

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestEncodePaysOrLeavesPlain(t *testing.T) {
	text := bytes.Repeat([]byte("price 4711 = 12.95\n"), 5000)
	if k, enc := Encode(text); k != Zstd || len(enc) > len(text)/10 {
		t.Errorf("text: %s, %d of %d bytes", k, len(enc), len(text))
	}
	if k, enc := Encode(random(100_000)); k != Plain || !bytes.Equal(enc, random(100_000)) {
		t.Errorf("random bytes: %s, %d bytes", k, len(enc))
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "unit")
		plain := bytes.Repeat(unit, rapid.IntRange(1, chunk.MaxSize/len(unit)).Draw(t, "times"))
		k, enc := Encode(plain)
		got, err := Decode(k, int64(len(plain)), enc)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%s: %v", k, err)
		}
	})
}

// bomb is a frame of a few KiB that decodes to size zeros. A window of more than 8 MiB is asked for where window is set.
func bomb(t testing.TB, size, window int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range size >> 20 {
		w.Write(zeros)
	}
	w.Close()
	return out.Bytes()
}

// allocated is how many bytes fn allocates.
func allocated(fn func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	fn()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

func TestBomb(t *testing.T) {
	frame := bomb(t, 256<<20, 1<<20)
	Decode(Zstd, 1, []byte{1}) // make the decoder before counting
	var err error
	n := allocated(func() { _, err = Decode(Zstd, chunk.MaxSize, frame) })
	if err == nil {
		t.Error("the bomb was accepted")
	}
	if n > 8<<20 {
		t.Errorf("decoding the bomb allocated %d bytes", n)
	}

	// Positive control: the same frame, with a decoder of default settings, is 256 MiB.
	d, _ := zstd.NewReader(nil)
	defer d.Close()
	if out, err := d.DecodeAll(frame, nil); err != nil || len(out) != 256<<20 {
		t.Errorf("the control is no bomb: %d bytes, %v", len(out), err)
	}
}

func TestHugeWindow(t *testing.T) {
	frame := bomb(t, 64<<20, 64<<20)
	var err error
	if n := allocated(func() { _, err = Decode(Zstd, chunk.MaxSize, frame) }); err == nil || n > 1<<20+1<<18 {
		t.Errorf("a window of 64 MiB: %d bytes allocated, %v", n, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	plain := bytes.Repeat([]byte("abcdefgh"), 1000)
	_, enc := Encode(plain)
	half := len(plain) / 2
	_, a := Encode(plain[:half])
	_, b := Encode(plain[half:])
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, enc...)
	for name, c := range map[string]struct {
		k    Kind
		size int64
		enc  []byte
	}{
		"unknown kind":     {2, 8000, enc},
		"size too small":   {Zstd, 7999, enc},
		"size too large":   {Zstd, 8001, enc},
		"size 0":           {Zstd, 0, nil},
		"size negative":    {Zstd, -1, nil},
		"size over limit":  {Zstd, chunk.MaxSize + 1, enc},
		"empty":            {Zstd, 8000, nil},
		"truncated":        {Zstd, 8000, enc[:len(enc)-1]},
		"trailing garbage": {Zstd, 8000, append(bytes.Clone(enc), 1, 2, 3)},
		"larger than said": {Plain, 7999, plain},
		"shorter":          {Plain, 8001, plain},
	} {
		if out, err := Decode(c.k, c.size, c.enc); err == nil || out != nil {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
	// What the format allows and the identity of the plain bytes makes harmless.
	for name, enc := range map[string][]byte{"two frames": append(a, b...), "skippable frame": skippable} {
		if out, err := Decode(Zstd, 8000, enc); err != nil || !bytes.Equal(out, plain) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	plain := bytes.Repeat([]byte("abcdefgh"), 40)
	_, enc := Encode(plain)
	f.Add(byte(Zstd), int64(len(plain)), enc)
	f.Add(byte(Plain), int64(3), []byte("abc"))
	f.Add(byte(Zstd), int64(chunk.MaxSize), []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, k byte, size int64, enc []byte) {
		out, err := Decode(Kind(k), size, enc)
		if err != nil && out != nil || err == nil && (int64(len(out)) != size || size > chunk.MaxSize) {
			t.Fatalf("size %d: %d bytes, %v", size, len(out), err)
		}
	})
}
