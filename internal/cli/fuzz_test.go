package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// config.yaml of a person: with a token or without, it is read or refused.
func FuzzParseConfig(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("secret\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("current: a\ncontexts: {a: {urls: [\"https://h:1\"], pin: p, tokenFile: token}}\n"), "")
	f.Add([]byte("contexts: {a: {tokenFile: /dev/zero}}\n"), "a")
	f.Add([]byte("contexts: {a: {tokenFile: ../..}}\n"), "a")
	f.Add([]byte("a: &a [*a]\n"), "a")
	f.Add([]byte(""), "")
	f.Fuzz(func(t *testing.T, b []byte, context string) {
		a, err := parseConfig(filepath.Join(dir, "config.yaml"), b, context)
		if err == nil && len(a.Token) > maxTokenBytes {
			t.Errorf("a token of %d bytes", len(a.Token))
		}
	})
}

// A token file that has no end is refused, not read.
func TestTokenFileIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, make([]byte, maxTokenBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readToken(name); err == nil {
		t.Error("it was read")
	}
}
