// Package encoding turns a chunk's plain bytes into the form in which they travel over the WAN, and back. An encoding
// never changes a chunk's identity, which is of the plain bytes: whoever decodes hashes the result before using it.
// The package does no I/O; its functions are safe for concurrent use.
package encoding

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// Kind names an encoding on the wire and on disk. A value is never reused.
type Kind byte

// The encodings.
const (
	Plain Kind = 0
	Zstd  Kind = 1
)

// String is the name for logs and JSON.
func (k Kind) String() string {
	switch k {
	case Plain:
		return "plain"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("encoding %d", byte(k))
}

// maxWindow bounds what a frame's header can make the decoder allocate.
const maxWindow = 8 << 20

// The codecs hold no state between calls to EncodeAll and DecodeAll, which are safe for concurrent use.
var (
	encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(chunk.MaxSize), zstd.WithLowerEncoderMem(true))
	})
	decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(2),
			zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderMaxMemory(chunk.MaxSize),
			zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderLowmem(true))
	})
)

// Encode returns the smaller form of plain: zstd where it saves at least a tenth, else Plain with plain itself.
func Encode(plain []byte) (Kind, []byte) {
	e, err := encoder()
	if err != nil { // only for impossible options
		panic(err)
	}
	enc := e.EncodeAll(plain, make([]byte, 0, len(plain)))
	if len(enc) > len(plain)-len(plain)/10 {
		return Plain, plain
	}
	return Zstd, enc
}

// MaxEncoded is the size in bytes of the largest encoded form of plainSize bytes that Decode accepts: an encoding is
// only used where it saves.
func MaxEncoded(plainSize int64) int64 { return plainSize }

// Decode returns exactly plainSize bytes, 1 to chunk.MaxSize, the size that the signed index gives the chunk, or an
// error. It never holds more than plainSize bytes of output, whatever encoded says.
func Decode(k Kind, plainSize int64, encoded []byte) ([]byte, error) {
	switch {
	case plainSize < 1 || plainSize > chunk.MaxSize:
		return nil, fmt.Errorf("decode %s: a chunk of %d bytes: want 1 to %d", k, plainSize, chunk.MaxSize)
	case int64(len(encoded)) > MaxEncoded(plainSize):
		return nil, fmt.Errorf("decode %s: %d bytes for a chunk of %d", k, len(encoded), plainSize)
	}
	plain := encoded
	switch k {
	case Plain:
	case Zstd:
		d, err := decoder()
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", k, err)
		}
		// The capacity is the limit: see WithDecodeAllCapLimit.
		if plain, err = d.DecodeAll(encoded, make([]byte, 0, plainSize)); err != nil {
			return nil, fmt.Errorf("decode %s: %w", k, err)
		}
	default:
		return nil, fmt.Errorf("decode: %s is not known", k)
	}
	if int64(len(plain)) != plainSize {
		return nil, fmt.Errorf("decode %s: %d bytes come out, the chunk has %d", k, len(plain), plainSize)
	}
	return plain, nil
}
