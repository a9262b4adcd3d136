package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Source hands out the plain bytes of a chunk, in buf if it is large enough. *store.Reader is one. What it hands
// out is hashed again here, so it need not be trusted.
type Source interface {
	Get(id chunk.ID, buf []byte) ([]byte, error)
}

// FileError says that a file is not what the index says.
type FileError struct {
	Path string
	Why  string
}

func (e *FileError) Error() string { return fmt.Sprintf("file %q: %s", e.Path, e.Why) }

// ChunkError says which chunk the source could not hand out.
type ChunkError struct {
	ID   chunk.ID
	Path string
	Err  error
}

func (e *ChunkError) Error() string {
	return fmt.Sprintf("chunk %s of file %q: %v", e.ID, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *ChunkError) Unwrap() error { return e.Err }

// ErrWrongBytes is the cause of a ChunkError when the source lied.
var ErrWrongBytes = errors.New("the bytes do not hash to the chunk's identity")

// Stage writes a release under a temporary name, flushes every file and directory of it, and gives it its name. A
// release that is there already is checked against the index and replaced when it does not fit. Memory is bounded by
// one chunk. After an error nothing is left but what the next Sweep removes.
func (d *Dir) Stage(ctx context.Context, x *manifest.Index, src Source, dir string) (err error) {
	has, err := d.Has(dir)
	if err != nil {
		return err
	}
	if has {
		var differs *FileError
		if err := d.Verify(ctx, x, dir); err == nil || !errors.As(err, &differs) {
			return err
		}
		if err := d.Remove(dir); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(d.releases(), durable.TempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	w := writer{root: root, src: src, buf: make([]byte, chunk.MaxSize), sum: sha256.New(), dirs: map[string]bool{".": true}}
	for i := range x.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.file(&x.Files[i]); err != nil {
			return err
		}
	}
	if err := w.syncDirs(); err != nil {
		return err
	}
	return durable.Rename(tmp, d.release(dir))
}

// Check reads a release from a source, whole, and writes nothing: what Stage would refuse, it refuses.
func Check(ctx context.Context, x *manifest.Index, src Source) error {
	buf, sum := make([]byte, chunk.MaxSize), sha256.New()
	for i := range x.Files {
		f := &x.Files[i]
		sum.Reset()
		for _, r := range f.Chunks {
			if err := ctx.Err(); err != nil {
				return err
			}
			b, err := src.Get(r.ID, buf)
			if err != nil {
				return &ChunkError{r.ID, f.Path, err}
			}
			if int64(len(b)) != r.Size || chunk.Sum(b) != r.ID {
				return &ChunkError{r.ID, f.Path, ErrWrongBytes}
			}
			sum.Write(b)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
			return &FileError{f.Path, "its chunks give sha256 " + got + ", the index says " + f.SHA256}
		}
	}
	return nil
}

// writer writes the files of one release. Each file is flushed on the descriptor that wrote it: an error is reported
// once, there, and a second flush would lie.
type writer struct {
	root *os.Root
	src  Source
	buf  []byte
	sum  hash.Hash
	dirs map[string]bool // made so far
}

func (w *writer) file(f *manifest.File) (err error) {
	if err := w.mkdir(path.Dir(f.Path)); err != nil {
		return err
	}
	out, err := w.root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	w.sum.Reset()
	for _, r := range f.Chunks {
		b, err := w.src.Get(r.ID, w.buf)
		if err != nil {
			return &ChunkError{r.ID, f.Path, err}
		}
		if int64(len(b)) != r.Size || chunk.Sum(b) != r.ID {
			return &ChunkError{r.ID, f.Path, ErrWrongBytes}
		}
		w.sum.Write(b)
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(w.sum.Sum(nil)); got != f.SHA256 {
		return &FileError{f.Path, "its chunks give sha256 " + got + ", the index says " + f.SHA256}
	}
	if err := out.Chmod(fs.FileMode(f.Mode)); err != nil {
		return err
	}
	return out.Sync()
}

func (w *writer) mkdir(dir string) error {
	if w.dirs[dir] {
		return nil
	}
	if err := w.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := w.root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	w.dirs[dir] = true
	return nil
}

// syncDirs flushes every directory, the deepest first.
func (w *writer) syncDirs() error {
	var dirs []string
	for d := range w.dirs {
		dirs = append(dirs, d)
	}
	slices.Sort(dirs)
	slices.Reverse(dirs)
	for _, d := range dirs {
		f, err := w.root.Open(d)
		if err != nil {
			return err
		}
		err = f.Sync()
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("sync %s: %w", filepath.Join(w.root.Name(), d), err)
		}
	}
	return nil
}

// Verify checks that a release holds exactly the files of the index, byte for byte. What differs is a *FileError.
func (d *Dir) Verify(ctx context.Context, x *manifest.Index, dir string) error {
	root, err := os.OpenRoot(d.release(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	want := make(map[string]*manifest.File, len(x.Files))
	dirs := map[string]bool{".": true}
	for i := range x.Files {
		f := &x.Files[i]
		want[f.Path] = f
		for p := path.Dir(f.Path); !dirs[p]; p = path.Dir(p) {
			dirs[p] = true
		}
	}
	err = fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir() && dirs[p]:
			return nil
		case !e.Type().IsRegular() || want[p] == nil:
			return &FileError{p, "does not belong to the release"}
		}
		if err := verifyFile(root, want[p]); err != nil {
			return err
		}
		delete(want, p)
		return nil
	})
	if err != nil {
		return err
	}
	for p := range want {
		return &FileError{p, "is missing"}
	}
	return nil
}

func verifyFile(root *os.Root, want *manifest.File) error {
	f, err := root.Open(want.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != want.Size || uint32(fi.Mode().Perm()) != want.Mode {
		return &FileError{want.Path, fmt.Sprintf("has %d bytes and mode %#o, the index says %d and %#o", fi.Size(), fi.Mode().Perm(), want.Size, want.Mode)}
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 {
		return &FileError{want.Path, "has sha256 " + got + ", the index says " + want.SHA256}
	}
	return nil
}
