package enrol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// tokenPrefix says what the word is, and which version of it, to a person and to a secret scanner.
const tokenPrefix = "pmt1_"

// Encode writes the token as one word of letters, digits, - and _.
func (t Token) Encode() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic("enrol: a token of strings and numbers does not marshal: " + err.Error())
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads the word that Encode writes, and no other spelling of it. White space around it is ignored. The
// error never repeats the word, which is a secret.
func ParseToken(word string) (Token, error) {
	word = strings.TrimSpace(word)
	if len(word) > MaxTokenBytes {
		return Token{}, fmt.Errorf("join token: %d characters, at most %d", len(word), MaxTokenBytes)
	}
	enc, ok := strings.CutPrefix(word, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("join token: it does not begin with %s", tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(enc)
	if err != nil {
		return Token{}, errors.New("join token: it is damaged or not complete")
	}
	var t Token
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return Token{}, errors.New("join token: it is damaged or not complete")
	}
	if err := t.Validate(); err != nil {
		return Token{}, err
	}
	if t.Encode() != word {
		return Token{}, errors.New("join token: it is not in the canonical form")
	}
	return t, nil
}
