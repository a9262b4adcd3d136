// Package release is the directory ROOT/NAME of one bundle name: its releases side by side, and the link "current"
// that says which of them is in force.
//
//	ROOT/NAME/releases/VERSION-SHORTDIGEST/…  one release, complete or not there under this name
//	ROOT/NAME/releases/.tmp-…                 one being written; swept by the next run
//	ROOT/NAME/current -> releases/…           switched by rename, so a reader sees the old tree or the new one
//
// It writes only bytes that it has hashed itself and decides nothing about trust or order. Nothing is linked or
// moved in from the chunk store, whose owner may be hostile. A Dir belongs to one goroutine, under the executor's lock.
package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

const (
	releasesName = "releases"
	currentName  = "current"
)

// Dir is ROOT/NAME.
type Dir struct{ path string }

// Open returns the directory of a bundle name. Nothing is created.
func Open(root, name string) (*Dir, error) {
	if !manifest.ValidName(name) {
		return nil, fmt.Errorf("bundle name %q is not valid", name)
	}
	return &Dir{filepath.Join(root, name)}, nil
}

// Path is the path of the link that names the release in force.
func (d *Dir) Path() string { return filepath.Join(d.path, currentName) }

func (d *Dir) releases() string { return filepath.Join(d.path, releasesName) }

func (d *Dir) release(dir string) string { return filepath.Join(d.path, releasesName, dir) }

// At is the path of a release.
func (d *Dir) At(dir string) string { return d.release(dir) }

// Prepare creates the directory, durably, and removes what a crash left half-written.
func (d *Dir) Prepare() error {
	for _, p := range []string{filepath.Dir(d.path), d.path, d.releases()} {
		if err := MakeDir(p); err != nil {
			return err
		}
	}
	return d.Sweep()
}

// MakeDir makes a directory, and what is missing above it, so that its name survives a power cut. One that is there
// is left alone.
func MakeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// Sweep removes temporary files and directories.
func (d *Dir) Sweep() error {
	if err := durable.Sweep(d.path); err != nil {
		return err
	}
	return durable.Sweep(d.releases())
}

// Current is the release that "current" names; empty when there is no link. A link to anything but a release of
// this directory is an error: nobody else has business with it.
func (d *Dir) Current() (string, error) {
	target, err := os.Readlink(d.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	dir, ok := strings.CutPrefix(target, releasesName+"/")
	if !ok || dir == "" || strings.Contains(dir, "/") || dir == ".." {
		return "", fmt.Errorf("%s points at %q, which is not one of its releases", d.Path(), target)
	}
	return dir, nil
}

// Has reports whether a release is there, complete. That the disk does not answer is an error, not a no.
func (d *Dir) Has(dir string) (bool, error) {
	fi, err := os.Lstat(d.release(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && fi.IsDir(), err
}

// Switch makes "current" name a release, or nothing when dir is empty. It does nothing if that is so already.
func (d *Dir) Switch(dir string) error {
	have, err := d.Current()
	if err != nil {
		return err
	}
	if have == dir {
		// The process before us may have been killed between the rename and the flush of the directory.
		if err := durable.SyncDir(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if dir == "" {
		return durable.Remove(d.Path())
	}
	if has, err := d.Has(dir); err != nil {
		return err
	} else if !has {
		return fmt.Errorf("release %s: %w", d.release(dir), fs.ErrNotExist)
	}
	tmp := filepath.Join(d.path, durable.TempPrefix+currentName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(releasesName+"/"+dir, tmp); err != nil {
		return err
	}
	if err := durable.Rename(tmp, d.Path()); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// Prune removes every release but those named and the one in force.
func (d *Dir) Prune(keep []string) error {
	cur, err := d.Current()
	if err != nil {
		return err
	}
	es, err := os.ReadDir(d.releases())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.Name() == cur || slices.Contains(keep, e.Name()) {
			continue
		}
		if err := d.Remove(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes a release that is not in force. It vanishes under its name first, so that a half-deleted tree never
// passes for a release.
func (d *Dir) Remove(dir string) error {
	cur, err := d.Current()
	if err != nil {
		return err
	}
	if dir == cur {
		return fmt.Errorf("release %s is in force", d.release(dir))
	}
	tmp := d.release(durable.TempPrefix + "removed")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := durable.Rename(d.release(dir), tmp); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(tmp)
}

// Vanish removes the directory itself if nothing was ever put in force in it.
func (d *Dir) Vanish() {
	os.Remove(d.releases()) // only succeeds when empty, which is what is meant
	os.Remove(d.path)
}
