package trust

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Signers names who made the signatures of a document that was verified when it came, as a Verdict does: by primary
// fingerprints, each once. It verifies nothing, since a key may have expired meanwhile. Who signed with a key that the
// role does not have any more is named by that key, which may be a subkey.
func (k *RoleKeys) Signers(sig []byte) ([]string, error) {
	raws, err := SplitSignatures(sig)
	if err != nil {
		return nil, err
	}
	ring, err := k.entities()
	if err != nil {
		return nil, err
	}
	primary := map[string]string{}
	for _, e := range ring {
		for _, s := range e.Subkeys {
			primary[fingerprint(s.PublicKey)] = fingerprint(e.PrimaryKey)
		}
	}
	var out []string
	for _, raw := range raws {
		p, err := packet.Read(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		s, ok := p.(*packet.Signature)
		if !ok {
			continue
		}
		name := fmt.Sprintf("%X", s.IssuerFingerprint)
		if of := primary[name]; of != "" {
			name = of
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}
