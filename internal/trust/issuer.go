package trust

import (
	"bytes"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Issuers returns the fingerprints, in upper-case hexadecimal, of the keys that signatures say they were made by. It
// verifies nothing: it is for documents that were verified when they came, whose keys may have gone since.
func Issuers(sig []byte) ([]string, error) {
	raws, err := SplitSignatures(sig)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, raw := range raws {
		p, err := packet.Read(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		if s, ok := p.(*packet.Signature); ok {
			out = append(out, fmt.Sprintf("%X", s.IssuerFingerprint))
		}
	}
	return out, nil
}
