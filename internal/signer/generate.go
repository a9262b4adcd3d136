package signer

import (
	"bytes"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// KeyOptions describe a key to be made.
type KeyOptions struct {
	Name       string // of the user ID; none of ()<>
	Email      string
	Passphrase []byte        // empty: the secret key is not encrypted
	Created    time.Time     // defaults to now
	Lifetime   time.Duration // whole seconds; 0: the key does not expire
}

// Generate makes a signing key and returns it armoured, secret and public, with its fingerprint.
func Generate(name, email string) (priv, pub []byte, fp string, err error) {
	return GenerateKey(KeyOptions{Name: name, Email: email})
}

// GenerateKey is Generate with more to choose. The key is of version 4, EdDSA on Curve25519 (algorithm 22), which
// gpg 2.2 reads, with one primary key that certifies and signs and no subkey.
func GenerateKey(o KeyOptions) (priv, pub []byte, fp string, err error) {
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	cfg := &packet.Config{
		Algorithm:       packet.PubKeyAlgoEdDSA,
		Curve:           packet.Curve25519,
		Time:            func() time.Time { return o.Created },
		KeyLifetimeSecs: uint32(o.Lifetime / time.Second),
	}
	e, err := openpgp.NewEntity(o.Name, "", o.Email, cfg)
	if err != nil {
		return nil, nil, "", err
	}
	e.Subkeys = nil // the library adds one for encryption, which nothing here needs
	k, err := newKeyFile(e)
	if err != nil {
		return nil, nil, "", err
	}
	if pub, err = armour(openpgp.PublicKeyType, k.key.Raw); err != nil {
		return nil, nil, "", err
	}
	secret := k.secret
	if len(o.Passphrase) > 0 {
		if err := e.EncryptPrivateKeys(o.Passphrase, cfg); err != nil {
			return nil, nil, "", err
		}
		var b bytes.Buffer
		if err := e.SerializePrivateWithoutSigning(&b, cfg); err != nil {
			return nil, nil, "", err
		}
		secret = b.Bytes()
	}
	if priv, err = armour(openpgp.PrivateKeyType, secret); err != nil {
		return nil, nil, "", err
	}
	return priv, pub, k.key.Fingerprint, nil
}
