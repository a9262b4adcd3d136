package seeder

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// readOrMake returns a secret file's content, after making it on the first start.
func readOrMake(name string, mk func() ([]byte, error)) ([]byte, error) {
	b, err := os.ReadFile(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if b, err = mk(); err != nil {
		return nil, err
	}
	return b, durable.WriteFile(name, b, 0o600)
}

// openIdentity reads or makes the key that nodes and clients pin.
func openIdentity(dir string) (ed25519.PrivateKey, error) {
	name := filepath.Join(dir, "identity.pem")
	b, err := readOrMake(name, func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
	})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	bad := problem.New(problem.InvalidFile, "%s does not hold an Ed25519 key in PEM", name).
		WithNext("restore it from a backup: with a new identity every node would have to join again")
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, bad
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, bad.Because(err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, bad
	}
	return ed, nil
}

// openRosterKey reads or makes the OpenPGP key that signs rosters. The public half is written too, for gpgv.
func openRosterKey(dir string) (*signer.KeyFile, error) {
	priv, err := readOrMake(filepath.Join(dir, "roster.key"), func() ([]byte, error) {
		priv, pub, _, err := signer.Generate("patchmesh seeder rosters", "")
		if err != nil {
			return nil, err
		}
		return priv, durable.WriteFile(filepath.Join(dir, "roster.pub"), pub, 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("roster key: %w", err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "%s cannot be used", filepath.Join(dir, "roster.key")).Because(err).
			WithNext("restore it from a backup: with a new key every node would have to join again")
	}
	return k, nil
}

// signRoster is fleet.SignRoster with the key.
func signRoster(k *signer.KeyFile) func(*roster.Roster) (trust.Signed, error) {
	return func(r *roster.Roster) (trust.Signed, error) {
		doc, err := r.Encode()
		if err != nil {
			return trust.Signed{}, err
		}
		sig, err := k.Sign(context.Background(), doc)
		return trust.Signed{Doc: doc, Sig: sig}, err
	}
}

// openToken reads or makes the administrator's token: 256 random bits in hex.
func openToken(dir string) (string, error) {
	name := filepath.Join(dir, "admin.token")
	b, err := readOrMake(name, func() ([]byte, error) { return []byte(randomHex(32) + "\n"), nil })
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 32 || len(token) > 256 {
		return "", problem.New(problem.InvalidFile, "%s: a token has 32 to 256 characters", name).
			WithNext("remove the file and start again to get a new token")
	}
	return token, nil
}

// writeAccess writes what an administrator's meshctl needs.
func writeAccess(dir string, a api.Access) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "admin.json"), append(b, '\n'), 0o600)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
