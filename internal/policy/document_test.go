package policy

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var epoch = time.Date(2026, 8, 25, 12, 0, 0, 0, time.UTC)

func text(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/supported.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// operator makes a key that signs at epoch and a set in which it may sign policies.
func operator(t *testing.T) (*signer.KeyFile, *trust.Set) {
	t.Helper()
	priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: "operator", Email: "op@example.org", Created: epoch})
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Now = func() time.Time { return epoch }
	rk, err := trust.NewRoleKeys(1, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, &trust.Set{Policy: rk}
}

func sign(t *testing.T, k signer.Signer, doc []byte) trust.Signed {
	t.Helper()
	sig, err := k.Sign(context.Background(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Signed{Doc: doc, Sig: sig}
}

func TestDocument(t *testing.T) {
	k, set := operator(t)
	for name, build := range map[string]func() (*Document, error){
		"policy":   func() (*Document, error) { return NewDocument(text(t), 7, epoch) },
		"deletion": func() (*Document, error) { return NewDeletion("retail-pos-prod", 7, epoch) },
	} {
		d, err := build()
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, p, err := Open(set, sign(t, k, b), epoch)
		if err != nil {
			t.Fatal(err)
		}
		if *got != *d || d.Deleted != (p == nil) || d.Name != "retail-pos-prod" {
			t.Errorf("%s: %+v is read back as %+v with %+v", name, d, got, p)
		}
		if p != nil && p.Name != d.Name {
			t.Errorf("%s: policy %+v", name, p)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	k, set := operator(t)
	stranger, _ := operator(t)
	d, err := NewDocument(text(t), 7, epoch)
	if err != nil {
		t.Fatal(err)
	}
	good, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(before, after string) []byte {
		if !bytes.Contains(good, []byte(before)) {
			t.Fatalf("%q is not in the document", before)
		}
		return bytes.Replace(good, []byte(before), []byte(after), 1)
	}
	for _, c := range []struct {
		name string
		doc  []byte
		want problem.Code
	}{
		{"other name", replace(`"name": "retail-pos-prod"`, `"name": "retail-pos-test"`), problem.InvalidPolicy},
		{"no revision", replace(`"revision": 7`, `"revision": 0`), problem.InvalidPolicy},
		{"negative revision", replace(`"revision": 7`, `"revision": -7`), problem.InvalidPolicy},
		{"other schema", replace(Schema, "patchmesh.io/roster/v1"), problem.InvalidPolicy},
		{"deletion that holds a policy", replace(`"deleted": false`, `"deleted": true`), problem.InvalidPolicy},
		{"time zone", replace("12:00:00Z", "12:00:00+00:00"), problem.InvalidPolicy},
		{"parts of a second", replace("12:00:00Z", "12:00:00.5Z"), problem.InvalidPolicy},
		{"repeated key", replace(`"revision": 7`, `"revision": 9, "revision": 7`), problem.InvalidPolicy},
		{"key in other letters", replace(`"revision"`, `"Revision"`), problem.InvalidPolicy},
		{"unknown key", replace(`"revision": 7`, `"urgent": true, "revision": 7`), problem.InvalidPolicy},
		{"other spacing", replace("\n ", "\n  "), problem.InvalidPolicy},
		{"bytes behind", append(bytes.Clone(good), '\n'), problem.InvalidPolicy},
		{"too large", bytes.Repeat([]byte(" "), MaxBytes+1), problem.InvalidPolicy},
		{"policy that is not valid", replace("kind: PatchPolicy", "kind: Site"), problem.InvalidPolicy},
		{"policy of the future", replace("spec:\\n", "spec:\\n  later: 1\\n"), problem.InvalidPolicy},
		{"made long before it was signed", replace("2026-08-25", "2026-08-22"), problem.SignatureInvalid},
	} {
		if _, _, err := Open(set, sign(t, k, c.doc), epoch); problem.CodeOf(err) != c.want {
			t.Errorf("%s: want %s, got %v", c.name, c.want, err)
		}
	}
	if _, _, err := Open(set, sign(t, stranger, good), epoch); !errors.Is(err, trust.ErrUnknownKey) {
		t.Errorf("signed by a stranger: %v", err)
	}
	if _, _, err := Open(&trust.Set{Release: set.Policy}, sign(t, k, good), epoch); !errors.Is(err, trust.ErrKeys) {
		t.Errorf("signed by a build server: %v", err)
	}
	if _, _, err := Open(set, sign(t, k, good), epoch); err != nil { // the positive control
		t.Error(err)
	}
}

func TestNewDocumentRefuses(t *testing.T) {
	if _, err := NewDocument(text(t), 0, epoch); problem.CodeOf(err) != problem.InvalidPolicy {
		t.Errorf("revision 0: %v", err)
	}
	if _, err := NewDocument([]byte("kind: Site"), 1, epoch); problem.CodeOf(err) != problem.InvalidPolicy {
		t.Errorf("another kind: %v", err)
	}
	// A seeder that says that the last revision is at the end of all numbers gets nothing signed; one by the time of day does.
	far := uint64(epoch.Add(401 * 24 * time.Hour).Unix())
	for rev, ok := range map[uint64]bool{far - 2*24*3600: true, far: false, math.MaxInt64: false, math.MaxUint64: false} {
		_, err := NewDocument(text(t), rev, epoch)
		_, gone := NewDeletion("retail-pos-prod", rev, epoch)
		if (err == nil) != ok || (gone == nil) != ok {
			t.Errorf("revision %d: %v, %v", rev, err, gone)
		}
	}
	if _, err := NewDeletion("../etc", 1, epoch); problem.CodeOf(err) != problem.InvalidPolicy {
		t.Errorf("bad name: %v", err)
	}
	// A policy just below the limit may not fit into its envelope; that is an error, not a document nobody opens.
	long := append(text(t), "# "+strings.Repeat("\"", MaxBytes-1000-len(text(t)))...)
	d, err := NewDocument(long, 1, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := d.Encode(); err == nil {
		t.Errorf("an envelope of %d bytes", len(b))
	}
}

// An envelope that is read has one spelling.
func FuzzParseDocument(f *testing.F) {
	d, err := NewDocument(text(f), 7, epoch)
	if err != nil {
		f.Fatal(err)
	}
	b, err := d.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	d, err = NewDeletion("retail-pos-prod", 8, epoch)
	if err != nil {
		f.Fatal(err)
	}
	if b, err = d.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Read(trust.Signed{Doc: b})
		if err != nil || d.Commit != nil {
			return
		}
		p, err := d.validate()
		if err != nil {
			return
		}
		if p == nil != d.Deleted {
			t.Errorf("%q is read as %+v with %+v", b, d, p)
		}
		if again, err := d.Encode(); len(b) <= MaxBytes && (err != nil || !bytes.Equal(again, b)) {
			t.Errorf("%q is written back as %q, %v", b, again, err)
		}
	})
}
