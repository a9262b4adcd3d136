package signer_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/gpghome"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var doc = []byte("a document\nof two lines\n")

// accepted verifies as a node would, with the given number of the keys.
func accepted(t *testing.T, sig []byte, threshold int, keys ...trust.Key) trust.Verdict {
	t.Helper()
	rk, err := trust.NewRoleKeys(threshold, keys...)
	if err != nil {
		t.Fatal(err)
	}
	set := trust.Set{Release: rk}
	v, err := set.Verify(trust.RoleRelease, trust.Signed{Doc: doc, Sig: sig}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustSign(t *testing.T, s signer.Signer) []byte {
	t.Helper()
	sig, err := s.Sign(context.Background(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func newKeyFile(t *testing.T) *signer.KeyFile {
	t.Helper()
	priv, _, _, err := signer.Generate("test", "test@example.org")
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyFile(t *testing.T) {
	priv, pub, fp, err := signer.GenerateKey(signer.KeyOptions{Name: "Build", Email: "build@example.org", Passphrase: []byte("open")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(path, priv, 0o600); err != nil {
		t.Fatal(err)
	}
	var asked int
	k, err := signer.FromKeyFile(path, func() ([]byte, error) { asked++; return []byte("open"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 || k.Fingerprint() != fp {
		t.Errorf("asked %d times, fingerprint %s, want %s", asked, k.Fingerprint(), fp)
	}
	made := time.Now().Add(time.Hour).Truncate(time.Second)
	k.Now = func() time.Time { return made }
	keys, err := trust.ReadKeys(pub)
	if err != nil {
		t.Fatal(err)
	}
	if v := accepted(t, mustSign(t, k), 1, keys...); !v.Newest().Equal(made) || v.Signers[0] != fp {
		t.Errorf("verdict %+v, want %s at %s", v, fp, made)
	}

	denied := errors.New("no terminal")
	for name, passphrase := range map[string]func() ([]byte, error){
		"none":   nil,
		"wrong":  func() ([]byte, error) { return []byte("shut"), nil },
		"denied": func() ([]byte, error) { return nil, denied },
	} {
		_, err := signer.FromKeyFile(path, passphrase)
		if problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%s: %v", name, err)
		}
		if name == "denied" && !errors.Is(err, denied) {
			t.Errorf("the cause is lost: %v", err)
		}
	}
}

func TestFromKeyRefuses(t *testing.T) {
	priv, pub, _, err := signer.Generate("test", "test@example.org")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":     nil,
		"garbage":     []byte("garbage"),
		"public key":  pub,
		"too large":   bytes.Repeat([]byte("x"), 1<<20),
		"cut off":     priv[:len(priv)/2],
		"binary junk": {0xff, 0xff},
	} {
		if _, err := signer.FromKey(b, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := signer.FromKeyFile(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestAppend(t *testing.T) {
	a, b := newKeyFile(t), newKeyFile(t)
	first, second := mustSign(t, a), mustSign(t, b)
	both, err := signer.Append(first, second)
	if err != nil {
		t.Fatal(err)
	}
	if v := accepted(t, both, 2, a.Public(), b.Public()); !slices.Equal(v.Signers, []string{a.Fingerprint(), b.Fingerprint()}) {
		t.Errorf("signers %v", v.Signers)
	}
	if again, err := signer.Append(both, second); err != nil || !bytes.Equal(again, both) {
		t.Errorf("a signature that is there already is added: %v", err)
	}
	if only, err := signer.Append(nil, first); err != nil || !bytes.Equal(only, first) {
		t.Errorf("appended to nothing: %v", err)
	}
	if _, err := signer.Append(nil, nil); !errors.Is(err, trust.ErrNotSignatures) {
		t.Errorf("nothing and nothing: %v", err)
	}
	if _, err := signer.Append(first, []byte("garbage")); !errors.Is(err, trust.ErrNotSignatures) {
		t.Errorf("garbage: %v", err)
	}
	all := both
	for i := 0; err == nil && i < 3; i++ {
		all, err = signer.Append(all, mustSign(t, newKeyFile(t)))
	}
	if !errors.Is(err, trust.ErrTooMany) {
		t.Errorf("five signatures: %v", err)
	}

	// The signatures of several keys are one file that stock gpgv reads.
	h := gpghome.New(t)
	o := h.Verify(slices.Concat(a.Public().Raw, b.Public().Raw), both, doc)
	if !o.Accepts(2) || o.Exit != 0 {
		t.Errorf("gpgv exits %d:\n%s", o.Exit, o.Status)
	}
}

// A key that we make is one that gpg 2.2 imports and signs with, and each side accepts what the other signs.
func TestGenerateForGPG(t *testing.T) {
	h := gpghome.New(t)
	// gpg truncates times to seconds and refuses keys from its future.
	priv, pub, fp, err := signer.GenerateKey(signer.KeyOptions{Name: "Build", Email: "build@example.org", Created: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	h.Run(time.Time{}, priv, "--import")
	keys, err := trust.ReadKeys(pub)
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o := h.Verify(keys[0].Raw, mustSign(t, k), doc); !o.Accepts(1) || o.Exit != 0 || !slices.Equal(o.Signers, []string{fp}) {
		t.Errorf("gpgv exits %d with our signature:\n%s", o.Exit, o.Status)
	}
	g, err := signer.FromGPG(fp, h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if g.Fingerprint() != fp {
		t.Errorf("gpg finds %s, want %s", g.Fingerprint(), fp)
	}
	accepted(t, mustSign(t, g), 1, keys...)
}

func TestGPG(t *testing.T) {
	h := gpghome.New(t)
	lastYear := time.Now().AddDate(-1, 0, 0)
	// With user settings that would spoil every signature, were they not overruled.
	conf := "default-sig-expire 1d\ndigest-algo SHA1\nverbose\n"
	if err := os.WriteFile(filepath.Join(h.Dir, "gpg.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	good := h.Key(lastYear, "ed25519", "sign", "never")
	g, err := signer.FromGPG(good, h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	sig := mustSign(t, g)
	accepted(t, sig, 1, g.Public())
	if o := h.Verify(g.Public().Raw, sig, doc); !o.Accepts(1) || o.Exit != 0 {
		t.Errorf("gpgv exits %d:\n%s", o.Exit, o.Status)
	}

	parent := h.Key(lastYear, "ed25519", "sign", "never")
	sub := h.Subkey(lastYear, parent, "ed25519", "sign", "never")
	g, err = signer.FromGPG(sub+"!", h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if g.Fingerprint() != parent {
		t.Errorf("a subkey signs for %s, want its primary key %s", g.Fingerprint(), parent)
	}
	accepted(t, mustSign(t, g), 1, g.Public())

	// A key file without the primary secret key, which stays in a safe.
	secret := h.Run(time.Time{}, nil, "--export-secret-subkeys", sub+"!")
	k, err := signer.FromKey(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k.Fingerprint() != parent {
		t.Errorf("the key file is of %s, want %s", k.Fingerprint(), parent)
	}
	accepted(t, mustSign(t, k), 1, k.Public())

	// Keys that nodes would refuse are refused before they sign anything.
	weak := h.Key(lastYear, "rsa2048", "sign", "never")
	revoked := h.Key(lastYear, "ed25519", "sign", "never")
	h.Revoke(time.Time{}, revoked, "1")
	for name, key := range map[string]string{
		"weak":             weak,
		"revoked":          revoked,
		"not there":        "0123456789ABCDEF0123456789ABCDEF01234567",
		"more than one":    "test@example.org",
		"an option for it": "--version",
		"empty":            "",
	} {
		if g, err := signer.FromGPG(key, h.Dir); err == nil {
			t.Errorf("%s: accepted as %s", name, g.Fingerprint())
		} else if c := problem.CodeOf(err); c != problem.InvalidFile && c != problem.Usage {
			t.Errorf("%s: code %s: %v", name, c, err)
		}
	}

	// The positive control of the check after signing: gpg.conf can spoil a signature in a way that we do not
	// overrule, gpg is content, and it never leaves the building.
	if err := os.WriteFile(filepath.Join(h.Dir, "gpg.conf"), []byte("textmode\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err = signer.FromGPG(good, h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := g.Sign(context.Background(), doc); !errors.Is(err, trust.ErrNotBinary) || sig != nil {
		t.Errorf("text mode: %v", err)
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := g.Sign(ctx, doc); !errors.Is(err, gone) {
		t.Errorf("cancelled: %v", err)
	}
}
