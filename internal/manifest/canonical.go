package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// EncodeCanonical writes v as indented JSON with a final newline: readable by people, and canonical because it has
// one form. Every signed document is written so.
func EncodeCanonical(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// DecodeCanonical accepts only the bytes that EncodeCanonical would write for the value they decode to. The caller
// has bounded len(b).
func DecodeCanonical(what string, b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	again, err := EncodeCanonical(v)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%s is not in the canonical form", what)
	}
	return nil
}
