package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the golden frames; a changed frame is a new Version")

// header is a frame's header with any type and length.
func header(t wire.Type, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte{byte(t)}, uint32(n))
}

func frame(t wire.Type, payload []byte) []byte { return append(header(t, len(payload)), payload...) }

func reader(b []byte) *wire.Reader { return wire.NewReader(bytes.NewReader(b), new(wire.Buffers)) }

// same compares messages; an empty list and none are the same to a reader of JSON.
func same(a, b wire.Message) string {
	if d, ok := a.(*wire.Data); ok { // reflection is slow on megabytes
		e, ok := b.(*wire.Data)
		if ok && d.Req == e.Req && d.Encoding == e.Encoding && bytes.Equal(d.Payload, e.Payload) {
			return ""
		}
	}
	return cmp.Diff(a, b, cmpopts.EquateEmpty())
}

// The bytes of every type are held: nodes of different age speak with each other.
func TestGolden(t *testing.T) {
	const file = "testdata/frames.hex"
	var out strings.Builder
	for _, s := range samples() {
		b, err := wire.Append(nil, s.m)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s\n", s.name, hex.EncodeToString(b))
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("frames changed (-update rewrites them):\n%s", d)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		_, h, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		m, err := reader(b).Next()
		if err != nil {
			t.Fatal(err)
		}
		if d := same(samples()[i].m, m); d != "" {
			t.Errorf("%s: %s", samples()[i].name, d)
		}
	}
}

// Every type that has a limit has a sample, and numbers are never reused: a gap or a newcomer shows here.
func TestTypes(t *testing.T) {
	known := 0
	for i := range 256 {
		if _, ok := wire.Limit(wire.Type(i)); ok {
			known++
		}
	}
	ss := samples()
	if known != len(ss) {
		t.Errorf("%d types, %d samples", known, len(ss))
	}
	for i, s := range ss {
		if s.m.Type() != wire.Type(i+1) {
			t.Errorf("%s has type %d", s.name, s.m.Type())
		}
	}
}

// What is written is read, message by message, whatever their order on one stream.
func TestRoundTrip(t *testing.T) { rapid.Check(t, roundTrip) }

func FuzzRoundTrip(f *testing.F) { f.Fuzz(rapid.MakeFuzz(roundTrip)) }

func roundTrip(t *rapid.T) {
	ms := rapid.SliceOfN(messages(), 1, 4).Draw(t, "messages")
	var b []byte
	for _, m := range ms {
		var err error
		if b, err = wire.Append(b, m); err != nil {
			t.Fatal(err)
		}
	}
	r := reader(b)
	for i, m := range ms {
		got, err := r.Next()
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if d := same(m, got); d != "" {
			t.Fatalf("message %d: %s", i, d)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
}

func TestDataHeader(t *testing.T) {
	payload := []byte("some bytes")
	b, err := wire.AppendDataHeader([]byte("before"), 7, 3, len(payload))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := wire.Append(nil, &wire.Data{Req: 7, Encoding: 3, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	if got := append(b, payload...); string(got) != "before"+string(whole) {
		t.Errorf("header %x", b)
	}
	limit, _ := wire.Limit(wire.TypeData)
	for n, ok := range map[int]bool{-1: false, 0: true, limit - 5: true, limit - 4: false} {
		if _, err := wire.AppendDataHeader(nil, 1, 0, n); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// A Data payload is lent until the next call of Next, which is what makes receiving a bundle cheap. The test shows
// both halves of the contract: the bytes are right until then, and they are not kept for whoever looks later.
func TestPayloadIsLent(t *testing.T) {
	for _, n := range []int{100, 100_000} {
		var b []byte
		for _, c := range "ab" {
			var err error
			if b, err = wire.Append(b, &wire.Data{Payload: bytes.Repeat([]byte(string(c)), n)}); err != nil {
				t.Fatal(err)
			}
		}
		r := reader(b)
		next := func() []byte {
			m, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			return m.(*wire.Data).Payload
		}
		first := next()
		if len(first) != n || bytes.Count(first, []byte("a")) != n {
			t.Fatalf("%d bytes: first payload is wrong", n)
		}
		second := next()
		if bytes.Count(second, []byte("b")) != n {
			t.Fatalf("%d bytes: second payload is wrong", n)
		}
		if n > 4<<10 { // sync.Pool drops what it likes under the race detector: only same memory is telling
			if &first[0] == &second[0] && first[0] != 'b' {
				t.Errorf("%d bytes: lent twice with the old content", n)
			}
		} else if first[0] != 'b' {
			t.Errorf("%d bytes: the buffer was not used again", n)
		}
	}
}

// Buffers are not shared between a Reader that still lends and one that borrows.
func TestBuffersAreNotLentTwice(t *testing.T) {
	var bufs wire.Buffers
	frameOf := func(c string) []byte {
		b, err := wire.Append(nil, &wire.Data{Payload: bytes.Repeat([]byte(c), 50_000)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r1, r2 := wire.NewReader(bytes.NewReader(frameOf("1")), &bufs), wire.NewReader(bytes.NewReader(frameOf("2")), &bufs)
	m1, err1 := r1.Next()
	m2, err2 := r2.Next()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if p := m1.(*wire.Data).Payload; bytes.Count(p, []byte("1")) != len(p) {
		t.Error("the first payload was overwritten")
	}
	if p := m2.(*wire.Data).Payload; bytes.Count(p, []byte("2")) != len(p) {
		t.Error("the second payload is wrong")
	}
	r1.Close()
	r1.Close() // giving back twice must not lend twice
	r3, r4 := wire.NewReader(bytes.NewReader(frameOf("3")), &bufs), wire.NewReader(bytes.NewReader(frameOf("4")), &bufs)
	m3, _ := r3.Next()
	r4.Next()
	if p := m3.(*wire.Data).Payload; bytes.Count(p, []byte("3")) != len(p) {
		t.Error("a buffer given back twice was lent twice")
	}
}
