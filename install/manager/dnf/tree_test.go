package dnf_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree describes every file below a root: mode, owner, content. Not the log of dnf, and not what SQLite keeps of
// readers beside a database.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		if err != nil || strings.HasPrefix(rel, "var/log") || strings.HasSuffix(rel, "-shm") || strings.HasSuffix(rel, "-wal") {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		out[rel] = fi.Mode().String()
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out[rel] += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// contextUntil ends when something has come to pass.
func contextUntil(t *testing.T, done func() bool) (context.Context, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil && !done() {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	return ctx, func() { cancel(); <-ended }
}
