package trust

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// OpenPGP packet tags (RFC 9580, section 5) that may stand in what this package reads.
const (
	tagSignature    = 2
	tagPublicKey    = 6
	tagUserID       = 13
	tagPublicSubkey = 14
	tagAttribute    = 17
)

// frame is one OpenPGP packet with its header.
type frame struct {
	tag int
	raw []byte
}

// split cuts b into at most limit packets. It reads headers only. Packets of indefinite or partial length are
// refused: in what is signed here nothing needs them, and parsers disagree about where they end.
func split(b []byte, limit int) ([]frame, error) {
	var out []frame
	for len(b) > 0 {
		if len(out) == limit {
			return nil, ErrTooMany.because("more than %d", limit)
		}
		tag, n, _, err := header(b)
		if err != nil {
			return nil, err
		}
		out = append(out, frame{tag: tag, raw: b[:n:n]})
		b = b[n:]
	}
	return out, nil
}

// header returns the tag of the packet that begins b, its length with the header, and its body.
func header(b []byte) (tag, n int, body []byte, err error) {
	bad := func(what string) (int, int, []byte, error) { return 0, 0, nil, fmt.Errorf("packet header: %s", what) }
	if b[0]&0x80 == 0 {
		return bad("the first bit is not set")
	}
	var hdr int
	var size uint64
	if b[0]&0x40 == 0 { // old format
		tag = int(b[0]&0x3c) >> 2
		kind := b[0] & 3
		if kind == 3 {
			return bad("indefinite length")
		}
		hdr = 1 + 1<<kind
		if len(b) < hdr {
			return bad("cut off")
		}
		for _, c := range b[1:hdr] {
			size = size<<8 | uint64(c)
		}
	} else {
		tag = int(b[0] & 0x3f)
		if len(b) < 2 {
			return bad("cut off")
		}
		switch c := b[1]; {
		case c < 192:
			hdr, size = 2, uint64(c)
		case c < 224:
			if len(b) < 3 {
				return bad("cut off")
			}
			hdr, size = 3, uint64(c-192)<<8+uint64(b[2])+192
		case c < 255:
			return bad("partial length")
		default:
			if len(b) < 6 {
				return bad("cut off")
			}
			hdr, size = 6, uint64(binary.BigEndian.Uint32(b[2:6]))
		}
	}
	if size > uint64(len(b)-hdr) {
		return bad(fmt.Sprintf("%d bytes announced, %d are there", size, len(b)-hdr))
	}
	n = hdr + int(size)
	return tag, n, b[hdr:n], nil
}

// SplitSignatures returns the packets of a signature file, armoured or binary, after the checks that need no key:
// size, number, and that each is a version 4 signature over binary data with a strong hash and a named issuer.
// Each packet is a binary signature file of its own.
func SplitSignatures(file []byte) ([][]byte, error) {
	if len(file) > MaxSignatureBytes {
		return nil, ErrTooLarge.because("%d bytes, at most %d", len(file), MaxSignatureBytes)
	}
	b := file
	if len(b) == 0 || b[0]&0x80 == 0 {
		var err error
		if b, err = unarmour(file, "PGP SIGNATURE"); err != nil {
			return nil, ErrNotSignatures.because("%w", err)
		}
	}
	frames, err := split(b, MaxSignaturePackets)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSignatures, err)
	}
	if len(frames) == 0 {
		return nil, ErrNotSignatures.because("it is empty")
	}
	out := make([][]byte, len(frames))
	for i, f := range frames {
		if f.tag != tagSignature {
			return nil, ErrNotSignatures.because("packet %d has tag %d", i+1, f.tag)
		}
		if err := checkForm(f.raw); err != nil {
			return nil, fmt.Errorf("signature %d: %w", i+1, err)
		}
		out[i] = f.raw
	}
	return out, nil
}

// checkForm checks one signature packet without a key.
func checkForm(raw []byte) error {
	r := bytes.NewReader(raw)
	p, err := packet.Read(r)
	if err != nil {
		return ErrNotSignatures.because("%w", err)
	}
	sig, ok := p.(*packet.Signature)
	switch {
	// Bytes that the parser leaves behind inside the packet would be read as packets by one program and
	// skipped by another.
	case !ok || r.Len() != 0:
		return ErrNotSignatures.because("%d bytes after its end", r.Len())
	case sig.Version != 4:
		return ErrVersion.because("version %d", sig.Version)
	case sig.SigType != packet.SigTypeBinary:
		return ErrNotBinary.because("type %#02x", uint8(sig.SigType))
	case !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, sig.Hash):
		return ErrWeakHash.because("%s", sig.Hash)
	case len(sig.IssuerFingerprint) != 20:
		return ErrNoIssuer
	}
	return checkSubpackets(raw)
}

// unarmour decodes exactly one ASCII armour block of the given type with nothing before or after it. The library's
// decoder skips text around the block and ignores the checksum; a file that says two things is refused here.
func unarmour(b []byte, kind string) ([]byte, error) {
	lines := bytes.Split(bytes.TrimRight(b, " \t\r\n"), []byte("\n"))
	for i := range lines {
		lines[i] = bytes.TrimRight(lines[i], " \t\r")
	}
	last := len(lines) - 1
	if last < 2 || string(lines[0]) != "-----BEGIN "+kind+"-----" || string(lines[last]) != "-----END "+kind+"-----" {
		return nil, fmt.Errorf("neither binary nor one armoured block %q", kind)
	}
	lines = lines[1:last]
	// Headers end with an empty line. Only those that gpg writes, and they are not looked at.
	for len(lines) > 0 && (bytes.HasPrefix(lines[0], []byte("Comment: ")) || bytes.HasPrefix(lines[0], []byte("Version: "))) {
		lines = lines[1:]
	}
	if len(lines) == 0 || len(lines[0]) != 0 {
		return nil, fmt.Errorf("armour headers are not followed by an empty line")
	}
	lines = lines[1:]
	var sum []byte
	if n := len(lines); n > 0 && len(lines[n-1]) == 5 && lines[n-1][0] == '=' {
		sum, lines = lines[n-1][1:], lines[:n-1]
	}
	for _, l := range lines {
		if len(l) == 0 || len(l) > 76 {
			return nil, fmt.Errorf("armour line of %d characters", len(l))
		}
	}
	out, err := base64.StdEncoding.Strict().DecodeString(string(bytes.Join(lines, nil)))
	if err != nil {
		return nil, fmt.Errorf("armour: %w", err)
	}
	if sum != nil {
		var want [4]byte
		binary.BigEndian.PutUint32(want[:], crc24(out))
		if got, err := base64.StdEncoding.Strict().DecodeString(string(sum)); err != nil || !bytes.Equal(got, want[1:]) {
			return nil, fmt.Errorf("armour checksum does not match")
		}
	}
	return out, nil
}

// crc24 is the armour checksum of RFC 4880, section 6.1. It guards against accidents only; gpg refuses a wrong one.
func crc24(b []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, c := range b {
		crc ^= uint32(c) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc & 0xffffff
}
