package signer

import (
	"bytes"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// ClearSign wraps a text in the cleartext framework of OpenPGP (RFC 4880, section 7), which apt wants of an InRelease
// file. The text has lines without blanks at their ends. The signature has the date given, SHA-256, no end and no
// salt: the same key, text and date give the same bytes. Nothing here reads this form; apt and gpgv do.
func (k *KeyFile) ClearSign(text []byte, at time.Time) ([]byte, error) {
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	var out bytes.Buffer
	out.WriteString("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n")
	for _, l := range lines {
		if !bytes.Equal(l, bytes.TrimRight(l, " \t\r")) {
			return nil, fmt.Errorf("clear text: line %q ends with a blank", l)
		}
		if bytes.HasPrefix(l, []byte("-")) {
			out.WriteString("- ")
		}
		out.Write(l)
		out.WriteByte('\n')
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(k.secret)))
	if err != nil {
		return nil, err
	}
	salted := false
	params := &openpgp.SignParams{TextSig: true, Config: &packet.Config{
		Time: func() time.Time { return at }, NonDeterministicSignaturesViaNotation: &salted}}
	var raw bytes.Buffer
	if err := openpgp.DetachSignWithParams(&raw, []*openpgp.Entity{e}, bytes.NewReader(bytes.Join(lines, []byte("\n"))), params); err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.key.Fingerprint, err)
	}
	sig, err := armour(openpgp.SignatureType, raw.Bytes())
	if err != nil {
		return nil, err
	}
	out.Write(sig)
	return out.Bytes(), nil
}
