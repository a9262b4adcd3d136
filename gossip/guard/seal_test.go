package guard

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

const testLabel = "store-0042"

var testKey = bytes.Repeat([]byte{7}, 32)

func testConfig() Config {
	return Config{
		Label: testLabel, Key: testKey, Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		MaxNodes: 512, MaxState: 300 << 10, Streams: 8, StreamsPerIP: 4, Timeout: 5 * time.Second,
	}
}

// seal makes a frame as a holder of the key can: any version byte, any plaintext.
func seal(key []byte, version byte, plain, data []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonce := make([]byte, 12)
	return append(append([]byte{version}, nonce...), aead.Seal(nil, nonce, plain, data)...)
}

func labelled(label string, rest []byte) []byte {
	return append(append([]byte{msgLabel, byte(len(label))}, label...), rest...)
}

func packetOf(version byte, plain []byte) []byte {
	return labelled(testLabel, seal(testKey, version, plain, []byte(testLabel)))
}

// replyOf is a stream's message without the label header; requestOf has it.
func replyOf(version byte, plain []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{msgEncrypt}, uint32(overhead+len(plain)))
	data := append(bytes.Clone(head), testLabel...)
	return append(head, seal(testKey, version, plain, data)...)
}

func requestOf(version byte, plain []byte) []byte {
	return labelled(testLabel, replyOf(version, plain))
}

func encode(kind byte, v any) []byte {
	buf := bytes.NewBuffer([]byte{kind})
	if err := codec.NewEncoder(buf, new(codec.MsgpackHandle)).Encode(v); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

type header struct {
	Nodes, UserStateLen int
	Join                bool
}

type ping struct {
	SeqNo      uint32
	Node       string
	SourceAddr []byte
	SourcePort uint16
	SourceNode string
}

// bomb is a compress message that becomes n bytes.
func bomb(n int) []byte {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	_, _ = w.Write(make([]byte, n))
	_ = w.Close()
	return encode(9, struct {
		Algo uint8
		Buf  []byte
	}{0, b.Bytes()})
}

func compound(parts ...[]byte) []byte {
	b := []byte{msgCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

func withCRC(plain []byte) []byte { return append([]byte{msgCRC, 0, 0, 0, 0}, plain...) }

func testEnvelope(t testing.TB) *envelope {
	t.Helper()
	c := testConfig()
	e, err := newEnvelope(c.Label, c.Key, c.MaxNodes, c.MaxState)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
