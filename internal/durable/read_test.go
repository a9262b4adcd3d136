package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(name, 100); err != nil || len(b) != 100 {
		t.Errorf("up to the limit: %d bytes, %v", len(b), err)
	}
	if b, err := ReadFile(name, 99); err == nil || b != nil {
		t.Errorf("beyond it: %d bytes", len(b))
	}
	if b, err := ReadFile("/dev/zero", 1<<10); err == nil || b != nil {
		t.Errorf("a file without an end: %d bytes", len(b))
	}
	if _, err := ReadFile(name+"x", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
