package rollouttest

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/patchmesh/patchmesh/internal/harness"
)

// programs are the directory of the programs, which are built once for all tests.
var programs func() (string, error)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "patchmesh-programs-")
	programs = sync.OnceValues(func() (string, error) {
		if err != nil {
			return "", err
		}
		// The result of these tests depends on all of the source: having looked at it here, the go command runs them again
		// when it has changed.
		if err := filepath.WalkDir("../..", func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && len(e.Name()) > 2 && e.Name()[0] == '.' {
				return fs.SkipDir
			}
			return err
		}); err != nil {
			return "", err
		}
		return dir, harness.Build(context.Background(), dir)
	})
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
