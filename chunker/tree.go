package chunker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
)

// source is one regular file of a tree.
type source struct {
	path string // relative, slash-separated
	size int64
	mode uint32 // manifest.ModeFile or manifest.ModeExecutable
}

// scan lists the regular files below dir in the order of their paths. Whatever a bundle cannot hold is an error that
// names it: a link, device, set-user-id file, empty directory, or odd name that were left out silently would be
// missing on every machine.
func scan(ctx context.Context, dir string) ([]source, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, problem.New(problem.InvalidFile, "%s is not a directory", dir).Because(err).WithDone("nothing was built")
	}
	dir, err := filepath.EvalSymlinks(dir) // the top may be a link: it is the caller's word
	if err != nil {
		return nil, err
	}
	var files []source
	folded := make(map[string]string) // lower-case path of every file and directory
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if rel != "." {
			if err := manifest.ValidPath(rel); err != nil {
				return refuse(name, "has a name that a bundle cannot hold", "rename it").Because(err)
			}
			if twin, ok := folded[strings.ToLower(rel)]; ok {
				return refuse(name, "differs from "+twin+" only in letter case", "rename one of them")
			}
			folded[strings.ToLower(rel)] = rel
		}
		if e.IsDir() {
			return notEmpty(name)
		}
		info, err := e.Info()
		if err != nil {
			return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
		}
		switch mode := info.Mode(); {
		case mode&fs.ModeSymlink != 0:
			return refuse(name, "is a symbolic link", "replace it by the file it points to, or leave it out")
		case !mode.IsRegular():
			return refuse(name, "is neither a file nor a directory", "leave it out")
		case mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0:
			return refuse(name, "has a set-user-id, set-group-id or sticky bit", "remove the bit with: chmod ug-s,-t")
		}
		f := source{path: rel, size: info.Size(), mode: manifest.ModeFile}
		if info.Mode()&0o100 != 0 {
			f.mode = manifest.ModeExecutable
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b source) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

func refuse(name, what, next string) *problem.Error {
	return problem.New(problem.InvalidFile, "%s %s", name, what).
		WithDone("nothing was built").WithNext("%s", next)
}

// notEmpty refuses an empty directory: an index lists files, so it would not exist on the machines.
func notEmpty(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); errors.Is(err, io.EOF) {
		return refuse(name, "is an empty directory, and a bundle holds only files", "remove it, or put a file in it")
	} else if err != nil {
		return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
	}
	return nil
}

// copyTree copies the files from one directory to another, with the modes they are listed with and one date: the
// date of a package file is part of a repository's metadata, and the same inputs must give the same bundle.
func copyTree(ctx context.Context, from, to string, files []source, date time.Time, p *progress.Reporter) error {
	var total int64
	for _, f := range files {
		total += f.size
	}
	p.Stage("copy", total, progress.Bytes)
	src, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer src.Close()
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyFile(src, filepath.Join(to, filepath.FromSlash(f.path)), f, date, p); err != nil {
			return problem.New(problem.InvalidFile, "%s cannot be copied", filepath.Join(from, f.path)).Because(err)
		}
	}
	p.Done()
	return nil
}

func copyFile(src *os.Root, name string, f source, date time.Time, p *progress.Reporter) error {
	in, err := openFile(src, f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, in)
	p.Add(n)
	err = errors.Join(err, out.Chmod(fs.FileMode(f.mode)), out.Close())
	return errors.Join(err, os.Chtimes(name, date, date))
}
