package signer

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/trust"
)

// gpgv, which apt calls, accepts the form and gives back the text; it refuses a changed one.
func TestClearSign(t *testing.T) {
	if _, err := exec.LookPath("gpgv"); err != nil {
		t.Skip("needs gpgv: apt-get install gpgv")
	}
	at := time.Unix(1, 0)
	priv, pub, _, err := GenerateKey(KeyOptions{Name: "repository", Created: at})
	if err != nil {
		t.Fatal(err)
	}
	k, err := FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("Origin: x\nDate: y\n\n- dash\n-----BEGIN\nSHA256:\n 00 1 Packages\n")
	signed, err := k.ClearSign(text, at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := k.ClearSign(text, at); err != nil || !bytes.Equal(signed, again) {
		t.Errorf("two signatures differ: %v", err)
	}
	keys, err := trust.ReadKeys(pub)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ring, name := filepath.Join(dir, "ring.gpg"), filepath.Join(dir, "InRelease")
	gpgv := func(signed []byte) ([]byte, error) {
		if err := os.WriteFile(ring, keys[0].Raw, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, signed, 0o644); err != nil {
			t.Fatal(err)
		}
		return exec.Command("gpgv", "--keyring", ring, "--output", "-", name).Output()
	}
	if got, err := gpgv(signed); err != nil || !bytes.Equal(got, text) {
		t.Errorf("gpgv: %v, text %q", err, got)
	}
	if _, err := gpgv(bytes.Replace(signed, []byte("Origin: x"), []byte("Origin: z"), 1)); err == nil {
		t.Error("gpgv accepts a changed text")
	}
	if _, err := k.ClearSign([]byte("blank \n"), at); err == nil {
		t.Error("a line that ends with a blank is accepted: readers strip it, so signature and text would differ")
	}
}
