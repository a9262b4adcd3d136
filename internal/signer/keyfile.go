package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// maxKeyFileBytes bounds a secret key file.
const maxKeyFileBytes = 64 << 10

// KeyFile signs with a secret key held in memory.
type KeyFile struct {
	Now    func() time.Time // the time written into signatures; defaults to time.Now
	key    trust.Key
	secret []byte // the key's packets, not encrypted
}

var _ Signer = (*KeyFile)(nil)

// FromKeyFile reads a secret key file, armoured or binary. passphrase is called once if the key is encrypted; it
// may be nil where no key is expected to be.
func FromKeyFile(path string, passphrase func() ([]byte, error)) (*KeyFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the key file cannot be read").Because(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the key file %s cannot be read", path).Because(err)
	}
	k, err := FromKey(b, passphrase)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the key file %s cannot be used", path).Because(err).
			WithNext("make a key with: meshctl key generate")
	}
	return k, nil
}

// FromKey is FromKeyFile for the content of a key file.
func FromKey(b []byte, passphrase func() ([]byte, error)) (*KeyFile, error) {
	if len(b) > maxKeyFileBytes {
		return nil, fmt.Errorf("more than %d bytes", maxKeyFileBytes)
	}
	var r io.Reader = bytes.NewReader(b)
	if len(b) > 0 && b[0]&0x80 == 0 {
		block, err := armor.Decode(r)
		if err != nil || block.Type != openpgp.PrivateKeyType {
			return nil, errors.New("it holds no armoured secret key")
		}
		r = block.Body
	}
	list, err := openpgp.ReadKeyRing(r)
	switch {
	case err != nil:
		return nil, err
	case len(list) != 1:
		return nil, fmt.Errorf("%d keys where one is wanted", len(list))
	case list[0].PrivateKey == nil:
		return nil, errors.New("it holds a public key only")
	}
	e := list[0]
	if encrypted(e) {
		if passphrase == nil {
			return nil, errors.New("the key is encrypted and no passphrase was given")
		}
		p, err := passphrase()
		if err != nil {
			return nil, fmt.Errorf("passphrase: %w", err)
		}
		if err := e.DecryptPrivateKeys(p); err != nil {
			return nil, fmt.Errorf("passphrase: %w", err)
		}
	}
	return newKeyFile(e)
}

func encrypted(e *openpgp.Entity) bool {
	for _, s := range e.Subkeys {
		if s.PrivateKey != nil && s.PrivateKey.Encrypted {
			return true
		}
	}
	return e.PrivateKey.Encrypted
}

func newKeyFile(e *openpgp.Entity) (*KeyFile, error) {
	var public, secret bytes.Buffer
	if err := e.Serialize(&public); err != nil {
		return nil, err
	}
	if err := e.SerializePrivateWithoutSigning(&secret, nil); err != nil {
		return nil, err
	}
	key, err := onlyKey(public.Bytes())
	if err != nil {
		return nil, err
	}
	return &KeyFile{key: key, secret: secret.Bytes()}, nil
}

// Fingerprint is that of the primary key.
func (k *KeyFile) Fingerprint() string { return k.key.Fingerprint }

// Public is the public part of the key.
func (k *KeyFile) Public() trust.Key { return k.key }

// Sign signs with SHA-256 at the time that Now gives.
func (k *KeyFile) Sign(_ context.Context, doc []byte) ([]byte, error) {
	now := time.Now()
	if k.Now != nil {
		now = k.Now()
	}
	// The library caches what it checks in the key, so that one is parsed for each signature.
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(k.secret)))
	if err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	cfg := &packet.Config{Time: func() time.Time { return now }}
	if err := openpgp.DetachSign(&raw, []*openpgp.Entity{e}, bytes.NewReader(doc), cfg); err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.key.Fingerprint, err)
	}
	sig, err := armour(openpgp.SignatureType, raw.Bytes())
	if err != nil {
		return nil, err
	}
	if err := check(k.key, doc, sig, now); err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.key.Fingerprint, err)
	}
	return sig, nil
}
