package trust

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Subpacket types (RFC 9580, section 5.2.3.7).
const (
	subIssuerKeyID       = 16
	subNotation          = 20
	subIssuerFingerprint = 33
)

// subpacket is one field of a signature.
type subpacket struct {
	kind     int
	critical bool
}

// checkSubpackets looks at the fields of a version 4 signature packet where programs disagree: a field given
// twice means the first to one and the last to another, and a field in the part that is not signed can be
// added by anybody, critical or not. So each field stands once, the issuer's fingerprint among the signed ones, and
// nothing but the issuer's key ID among the others.
func checkSubpackets(raw []byte) error {
	hashed, unhashed, err := fields(raw)
	if err != nil {
		return ErrNotSignatures.because("%w", err)
	}
	var seen [128]bool
	for _, s := range hashed {
		if seen[s.kind] && s.kind != subNotation {
			return ErrNotSignatures.because("field %d is there twice", s.kind)
		}
		seen[s.kind] = true
	}
	if !seen[subIssuerFingerprint] {
		return ErrNoIssuer
	}
	for i, s := range unhashed {
		if i > 0 || s.kind != subIssuerKeyID || s.critical {
			return ErrNotSignatures.because("field %d is in the part that is not signed", s.kind)
		}
	}
	return nil
}

// fields returns the signed and the other fields of a version 4 signature packet that has been parsed before.
func fields(raw []byte) (hashed, unhashed []subpacket, err error) {
	_, _, body, err := header(raw)
	if err != nil {
		return nil, nil, err
	}
	if len(body) < 4 {
		return nil, nil, errors.New("cut off")
	}
	body = body[4:] // version, type, two algorithms
	for _, into := range []*[]subpacket{&hashed, &unhashed} {
		if len(body) < 2 || len(body)-2 < int(binary.BigEndian.Uint16(body)) {
			return nil, nil, errors.New("cut off")
		}
		n := 2 + int(binary.BigEndian.Uint16(body))
		if *into, err = subpackets(body[2:n]); err != nil {
			return nil, nil, err
		}
		body = body[n:]
	}
	return hashed, unhashed, nil
}

func subpackets(b []byte) (out []subpacket, err error) {
	for len(b) > 0 {
		hdr, n := 1, int(b[0])
		switch {
		case n >= 255:
			return nil, errors.New("a field of more than 16,319 bytes")
		case n >= 192:
			if len(b) < 2 {
				return nil, errors.New("cut off")
			}
			hdr, n = 2, (n-192)<<8+int(b[1])+192
		}
		if n == 0 || n > len(b)-hdr {
			return nil, fmt.Errorf("a field of %d bytes in %d", n, len(b)-hdr)
		}
		out = append(out, subpacket{kind: int(b[hdr] & 0x7f), critical: b[hdr]&0x80 != 0})
		b = b[hdr+n:]
	}
	return out, nil
}
