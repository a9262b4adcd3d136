package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/internal/harness"
)

// input is two versions of a real tree.
type input struct {
	first, second string // directories
	said, change  string // what they are, for the reader
}

// editEvery is which share of the text files the second version changes: one in so many.
const editEvery = 10

// makeInput copies parts of the Go toolchain: it is real, it is on every machine that can run this, and it has what a
// release has, a few large programs and many small files. The second version is what a point release would be: one
// package of sources more, and changes in one text file of ten.
func makeInput(s *harness.Story) (input, error) {
	in := input{first: s.Path("input", "1.0"), second: s.Path("input", "2.0")}
	goroot, err := harness.Goroot()
	if err != nil {
		return in, err
	}
	var sum harness.Tree
	for _, part := range []string{"bin", "pkg/tool", "lib", "src/net"} {
		t, err := harness.CopyTree(filepath.Join(in.first, part), filepath.Join(goroot, part))
		if err != nil {
			return in, err
		}
		sum.Files += t.Files
		sum.Bytes += t.Bytes
	}
	in.said = fmt.Sprintf("%d files, %.1f MB, from the Go toolchain in %s (bin, pkg/tool, lib, src/net)", sum.Files, float64(sum.Bytes)/1e6, goroot)

	if _, err := harness.CopyTree(in.second, in.first); err != nil {
		return in, err
	}
	added, err := harness.CopyTree(filepath.Join(in.second, "src/encoding"), filepath.Join(goroot, "src/encoding"))
	if err != nil {
		return in, err
	}
	edited, err := edit(filepath.Join(in.second, "src/net"))
	in.change = fmt.Sprintf("src/encoding added (%d files), %d files of src/net changed", added.Files, edited)
	return in, err
}

// edit puts a line at the top of every so manyth Go file.
func edit(dir string) (edited int, err error) {
	seen := 0
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		if seen++; seen%editEvery != 0 {
			return nil
		}
		edited++
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(name, bytes.Join([][]byte{[]byte("// Changed in 2.0.\n"), b}, nil), 0o644)
	})
	return edited, err
}
