package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

const sealBytes = 2*sha256.Size + 1

// Seal puts the sha256 of a document on a line before it. The seal is against decay, not against people: a flipped
// bit in a sequence number is still good JSON.
func Seal(doc []byte) []byte {
	sum := sha256.Sum256(doc)
	return append([]byte(hex.EncodeToString(sum[:])+"\n"), doc...)
}

// Unseal checks the seal and decodes the document strictly into v.
func Unseal(what string, b []byte, limit int, v any) error {
	if len(b) > limit || len(b) < sealBytes {
		return fmt.Errorf("%s: %d bytes: want %d to %d", what, len(b), sealBytes, limit)
	}
	doc := b[sealBytes:]
	if sum := sha256.Sum256(doc); hex.EncodeToString(sum[:])+"\n" != string(b[:sealBytes]) {
		return fmt.Errorf("%s: the content does not match its seal", what)
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%s: something follows the document", what)
	}
	return nil
}
