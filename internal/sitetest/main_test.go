package sitetest

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// full: take the time for all cases and for the figures as they are published.
func full() bool { return os.Getenv("PATCHMESH_FULL") == "1" }

// beside is how many trials run beside each other: most of a trial's time passes on its WAN, so they may be more than
// there are processors.
func beside() int {
	if full() {
		return 2
	}
	return 7
}

func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", strconv.Itoa(beside())) // it takes any number
	}
	code := testbed.Main(m)
	os.RemoveAll(programs.dir)
	os.Exit(code)
}

// programs are built once for all tests.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func build() (dir string, err error) {
	p := &programs
	p.once.Do(func() {
		if p.dir, p.err = os.MkdirTemp("", "patchmesh-programs-"); p.err != nil {
			return
		}
		// The result of these tests depends on all of the source: having looked at it here, the go command runs them again
		// when it has changed.
		p.err = filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && len(e.Name()) > 2 && e.Name()[0] == '.' {
				return fs.SkipDir
			}
			return err
		})
		if p.err == nil {
			p.err = harness.Build(context.Background(), p.dir)
		}
	})
	return p.dir, p.err
}
