package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Goroot is the Go toolchain that built this: a real tree that is on every machine that can run an example.
func Goroot() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	dir := strings.TrimSpace(string(out))
	if err == nil && dir == "" {
		err = errors.New("go env GOROOT says nothing")
	}
	return dir, err
}

// Tree counts what a directory holds.
type Tree struct {
	Files int
	Bytes int64
}

// CopyTree copies the regular files of a directory that may stand in a bundle. Links, and names that a bundle does not
// take, are left out, and so are directories named testdata, which are full of both.
func CopyTree(to, from string) (t Tree, err error) {
	err = filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && e.Name() == "testdata":
			return filepath.SkipDir
		case !e.Type().IsRegular() || manifest.ValidPath(filepath.ToSlash(rel)) != nil:
			return nil
		}
		n, err := copyFile(filepath.Join(to, rel), name)
		t.Files++
		t.Bytes += n
		return err
	})
	return t, err
}

func copyFile(to, from string) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, in)
	return n, errors.Join(err, out.Close())
}

// SameTree compares two directories file by file: paths, bytes, and who may execute.
func SameTree(want, got string) error {
	a, err := list(want)
	if err != nil {
		return err
	}
	b, err := list(got)
	if err != nil {
		return err
	}
	if !slices.Equal(a, b) {
		return fmt.Errorf("%s has %d files, %s has %d, or they have other names", want, len(a), got, len(b))
	}
	for _, rel := range a {
		if err := sameFile(filepath.Join(want, rel), filepath.Join(got, rel)); err != nil {
			return err
		}
	}
	return nil
}

func list(dir string) (files []string, err error) {
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		files = append(files, rel)
		return err
	})
	return files, err
}

func sameFile(a, b string) error {
	x, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	y, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	i, err := os.Stat(a)
	if err != nil {
		return err
	}
	j, err := os.Stat(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(x, y) || i.Mode()&0o100 != j.Mode()&0o100 {
		return fmt.Errorf("%s and %s differ", a, b)
	}
	return nil
}

// RandomTree writes files of size bytes in all that do not compress: one large, some of medium size, many small. The
// same seed makes the same files.
func RandomTree(dir string, size int64, seed byte) error {
	src := rand.NewChaCha8([32]byte{seed})
	sizes := []int64{size / 2}
	for rest := size - size/2; rest > 0; rest -= sizes[len(sizes)-1] {
		n := size / 16
		if len(sizes)%2 == 0 {
			n = 5000
		}
		sizes = append(sizes, min(n, rest))
	}
	for i, n := range sizes {
		b := make([]byte, n)
		_, _ = src.Read(b) // it never fails
		name := filepath.Join(dir, fmt.Sprintf("%02d", i%7), fmt.Sprintf("file-%03d.bin", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
