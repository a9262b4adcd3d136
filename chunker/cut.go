package chunker

import (
	"bytes"
	"errors"
	"io"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// The sizes of content-defined chunks in bytes. The algorithm is named with its version: another one cuts elsewhere,
// which is never wrong but costs a site every byte again. Figures for other sizes: BenchmarkCutSize.
const (
	cdcAlgorithm = "fastcdc-v1.0.0"
	cdcMin       = 64 << 10
	cdcNormal    = chunk.DefaultSize
	cdcMax       = chunk.MaxSize
)

// sniffBytes is how much of a file decides how it is cut.
const sniffBytes = 16

// magics begin files that are compressed already: a change moves every byte after it, so that content-defined
// cutting finds next to nothing again.
var magics = [][]byte{
	[]byte("!<arch>\n"),           // .deb (and .a, for which it does not matter)
	{0xed, 0xab, 0xee, 0xdb},      // .rpm
	{0x1f, 0x8b},                  // gzip
	{0xfd, '7', 'z', 'X', 'Z', 0}, // xz
	{0x28, 0xb5, 0x2f, 0xfd},      // zstd
	[]byte("BZh"),                 // bzip2
	{0x04, 0x22, 0x4d, 0x18},      // lz4
	[]byte("PK\x03\x04"),          // zip, jar, docx
	{'7', 'z', 0xbc, 0xaf, 0x27},  // 7z
	[]byte("\x89PNG\r\n"),         // png
	{0xff, 0xd8, 0xff},            // jpeg
	[]byte("GIF8"),                // gif
	[]byte("OggS"),                // ogg
	[]byte("wOF2"),                // woff2
	[]byte("\x1a\x45\xdf\xa3"),    // matroska, webm
}

// compressed reports whether a file that begins with head is compressed already.
func compressed(head []byte) bool {
	for _, m := range magics {
		if bytes.HasPrefix(head, m) {
			return true
		}
	}
	if len(head) < 12 {
		return false
	}
	return string(head[4:8]) == "ftyp" || // mp4, heif
		string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP"
}

// cutter cuts one file after another. It holds the buffer, which a tree of small files must not pay for file by
// file. Not safe for concurrent use.
type cutter struct {
	opts chunkers.ChunkerOpts
	buf  []byte
}

func newCutter() *cutter {
	return &cutter{
		opts: chunkers.ChunkerOpts{MinSize: cdcMin, NormalSize: cdcNormal, MaxSize: cdcMax},
		buf:  make([]byte, 2*cdcMax),
	}
}

// cut reads r to its end and calls emit for each chunk in order; the slice is only valid during the call. Files that
// are compressed already are cut at fixed offsets, others where their content says. The same bytes are always cut
// at the same places.
func (c *cutter) cut(r io.Reader, emit func(plain []byte) error) error {
	head := make([]byte, sniffBytes)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	r = io.MultiReader(bytes.NewReader(head), r)
	if compressed(head) {
		return c.fixed(r, emit)
	}
	return c.byContent(r, emit)
}

// fixed cuts at multiples of chunk.DefaultSize.
func (c *cutter) fixed(r io.Reader, emit func([]byte) error) error {
	for {
		n, err := io.ReadFull(r, c.buf[:chunk.DefaultSize])
		if n > 0 {
			if err := emit(c.buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (c *cutter) byContent(r io.Reader, emit func([]byte) error) error {
	cdc, err := chunkers.NewChunkerBuffer(cdcAlgorithm, r, &c.opts, c.buf)
	if err != nil {
		return err
	}
	for {
		b, err := cdc.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(b) > 0 {
			if err := emit(b); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}
