// Package durable is the only place that renames files. It writes a file so that after a crash at any instant the
// name holds either the old bytes or the new ones, whole: temporary file in the same directory, write, fsync,
// rename, fsync of the directory. An fsync that fails is fatal for that file: the temporary is removed and the
// error returned; a second fsync on the same descriptor would lie.
//
// Functions may be called from any goroutine; two writers of one name leave one of the two contents.
package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// TempPrefix begins the name of every temporary file; a sweep at start may remove them.
const TempPrefix = ".tmp-"

// WriteFile writes data to name atomically and durably with the permissions perm.
func WriteFile(name string, data []byte, perm os.FileMode) error {
	return WriteStream(name, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteStream is WriteFile of what fn writes.
func WriteStream(name string, perm os.FileMode, fn func(io.Writer) error) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(tmp)
		}
	}()
	if err = fn(f); err != nil {
		return err
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return Rename(tmp, name)
}

// Rename moves a file or directory whose content is already durable and makes the move durable.
func Rename(oldname, newname string) error {
	if err := os.Rename(oldname, newname); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(newname)); err != nil {
		return err
	}
	if od := filepath.Dir(oldname); od != filepath.Dir(newname) {
		return SyncDir(od)
	}
	return nil
}

// Remove deletes a name and makes the deletion durable. A name that does not exist is no error.
func Remove(name string) error {
	if err := os.Remove(name); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return SyncDir(filepath.Dir(name))
}

// SyncDir flushes a directory's entries.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Sweep removes temporary files that a crash left directly in dir.
func Sweep(dir string) error {
	es, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), TempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
