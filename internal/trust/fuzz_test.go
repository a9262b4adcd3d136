package trust_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/trust"
)

// golden reads a file of testdata: a key and a document that it signed, made with gpg 2.2.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenSet trusts the golden key for releases.
func goldenSet(t testing.TB) trust.Set {
	t.Helper()
	keys, err := trust.ReadKeys(golden(t, "key.gpg"))
	if err != nil {
		t.Fatal(err)
	}
	rk, err := trust.NewRoleKeys(1, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Set{Release: rk}
}

// However the document and its signature are changed: what is accepted is the document that was signed, by the key
// that signed it, at the time when it did.
func FuzzVerifySignature(f *testing.F) {
	set, doc := goldenSet(f), golden(f, "doc")
	f.Add(doc, golden(f, "doc.sig"))
	f.Add(doc, golden(f, "doc.asc"))
	f.Add(doc, bytes.Repeat(golden(f, "doc.sig"), 4))
	f.Add(doc, golden(f, "key.gpg"))
	good, err := set.Verify(trust.RoleRelease, trust.Signed{Doc: doc, Sig: golden(f, "doc.sig")}, epoch)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, d, sig []byte) {
		v, err := set.Verify(trust.RoleRelease, trust.Signed{Doc: d, Sig: sig}, epoch)
		if err != nil {
			return
		}
		if !bytes.Equal(d, doc) || !slices.Equal(v.Signers, good.Signers) || !slices.EqualFunc(v.Times, good.Times, time.Time.Equal) {
			t.Errorf("accepted %q with %x as %+v", d, sig, v)
		}
	})
}

// What is read as keys can be written as the keys of a role, and is the same keys again.
func FuzzReadKeys(f *testing.F) {
	f.Add(golden(f, "key.gpg"))
	f.Add(golden(f, "doc.asc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := trust.ReadKeys(b)
		if err != nil {
			return
		}
		rk, err := trust.NewRoleKeys(1, keys...)
		if err != nil {
			return // revoked or weak
		}
		again, err := rk.List()
		if err != nil || len(again) != len(keys) {
			t.Fatalf("%d keys are read back as %d: %v", len(keys), len(again), err)
		}
		for i := range keys {
			if again[i].Fingerprint != keys[i].Fingerprint {
				t.Errorf("key %s is read back as %s", keys[i].Fingerprint, again[i].Fingerprint)
			}
		}
	})
}

// A trust set that is read has one spelling, and keys in every role.
func FuzzParseSet(f *testing.F) {
	set := goldenSet(f)
	set.Policy, set.Roster = set.Release, set.Release
	file, err := set.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := trust.ParseSet(b)
		if err != nil {
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is written back as %q, %v", b, again, err)
		}
	})
}
