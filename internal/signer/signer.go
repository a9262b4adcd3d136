// Package signer makes detached OpenPGP signatures: with a key file, or through the gpg program, which reaches
// agents and smart cards. Every signature is checked with package trust before it is handed out, so that a key or
// a gpg.conf that nodes would refuse is found where it can still be changed. It decides nothing about trust.
//
// Signers are safe for concurrent use.
package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/patchmesh/patchmesh/internal/trust"
)

// Signer signs documents with one key.
type Signer interface {
	// Fingerprint is that of the primary key, 40 upper-case hex digits.
	Fingerprint() string
	// Public is the key itself, in the form that trust.NewRoleKeys wants.
	Public() trust.Key
	// Sign returns an armoured detached signature over the exact bytes of doc.
	Sign(ctx context.Context, doc []byte) ([]byte, error)
}

// Append returns one armoured signature file with the signatures of file, which may be empty, followed by those of
// more that it does not hold yet. Either may be armoured or binary. More than trust allows is an error.
func Append(file, more []byte) ([]byte, error) {
	var all [][]byte
	for _, f := range [][]byte{file, more} {
		if len(f) == 0 {
			continue
		}
		sigs, err := trust.SplitSignatures(f)
		if err != nil {
			return nil, err
		}
		for _, s := range sigs {
			if !slices.ContainsFunc(all, func(o []byte) bool { return bytes.Equal(o, s) }) {
				all = append(all, s)
			}
		}
	}
	out, err := armour("PGP SIGNATURE", slices.Concat(all...))
	if err != nil {
		return nil, err
	}
	if _, err := trust.SplitSignatures(out); err != nil {
		return nil, err
	}
	return out, nil
}

func armour(kind string, b []byte) ([]byte, error) {
	var buf bytes.Buffer
	w, err := armor.EncodeWithChecksumOption(&buf, kind, nil, true)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	buf.WriteByte('\n')
	return buf.Bytes(), nil
}

// onlyKey returns the only key of a keyring if trust would accept its signatures.
func onlyKey(public []byte) (trust.Key, error) {
	keys, err := trust.ReadKeys(public)
	if err != nil {
		return trust.Key{}, err
	}
	if len(keys) != 1 {
		return trust.Key{}, fmt.Errorf("%d keys where one is wanted", len(keys))
	}
	if _, err := trust.NewRoleKeys(1, keys[0]); err != nil {
		return trust.Key{}, err
	}
	return keys[0], nil
}

// check verifies a fresh signature the way a node will.
func check(key trust.Key, doc, sig []byte, at time.Time) error {
	rk, err := trust.NewRoleKeys(1, key)
	if err != nil {
		return err
	}
	set := trust.Set{Release: rk}
	if _, err := set.Verify(trust.RoleRelease, trust.Signed{Doc: doc, Sig: sig}, at); err != nil {
		return fmt.Errorf("check of the new signature: %w", errors.Unwrap(err))
	}
	return nil
}
