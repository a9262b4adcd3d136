package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Temp writes data to a new temporary file in dir and returns its name. The bytes are not durable yet: hand the
// name to Batch.Place. Nothing is left behind when it fails.
func Temp(dir string, data []byte, perm os.FileMode) (name string, err error) {
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return "", err
	}
	if err = f.Chmod(perm); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// Batch spreads the cost of fsync over many files. Place makes a file visible at once and whole, so that it
// survives the death of the process; Sync makes everything placed since the last Sync survive a loss of power.
// Between the two a loss of power may leave a name with torn or no content: a Batch is only for files whose
// content is verified whenever it is read. The zero value is ready. Safe for concurrent use.
type Batch struct {
	// DropCache lets the kernel forget what of a file is on the disk: nobody will read it soon, and the machine has better
	// use for the memory. Set it before the first Place.
	DropCache bool

	mu     sync.Mutex
	placed []placed
	dirs   map[string]bool
	bytes  int64
}

type placed struct {
	name string
	size int64
}

// Place renames the temporary file tmp of size bytes to name.
func (b *Batch) Place(tmp, name string, size int64) error {
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(placed{name, size})
	b.touch(filepath.Dir(name))
	return nil
}

// Touch notes that the entries of dir changed (a directory was made in it) and are to be flushed by Sync.
func (b *Batch) Touch(dir string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touch(dir)
}

func (b *Batch) note(p placed) {
	b.placed = append(b.placed, p)
	b.bytes += p.size
}

func (b *Batch) touch(dir string) {
	if b.dirs == nil {
		b.dirs = make(map[string]bool)
	}
	b.dirs[dir] = true
}

// Pending is the number of bytes placed and not yet durable.
func (b *Batch) Pending() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// Sync flushes the files, then the directories. The names in lost could not be made durable: the caller must remove
// them, because a second fsync would report success without having written anything. What could not even be opened
// is still pending, and the next Sync tries again. A file that was removed since it was placed is no error.
func (b *Batch) Sync() (lost []string, err error) {
	b.mu.Lock()
	files, dirs := b.placed, b.dirs
	b.placed, b.dirs, b.bytes = nil, nil, 0
	b.mu.Unlock()

	var errs []error
	var again []placed
	for _, f := range files {
		switch opened, err := syncPath(f.name, b.DropCache); {
		case err == nil || errors.Is(err, os.ErrNotExist):
		case opened:
			lost = append(lost, f.name)
			errs = append(errs, err)
		default:
			again = append(again, f)
			errs = append(errs, err)
		}
	}
	var dirsAgain []string
	for d := range dirs {
		opened, err := syncPath(d, false)
		if err == nil {
			continue
		}
		errs = append(errs, err)
		if !opened {
			dirsAgain = append(dirsAgain, d)
			continue
		}
		for _, f := range files {
			if filepath.Dir(f.name) == d && !slices.Contains(lost, f.name) {
				lost = append(lost, f.name)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range again {
		b.note(f)
	}
	for _, d := range dirsAgain {
		b.touch(d)
	}
	return lost, errors.Join(errs...)
}

// syncPath flushes a file or a directory; opened says whether it came so far that a second try would lie.
func syncPath(name string, drop bool) (opened bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return true, fmt.Errorf("sync %s: %w", name, err)
	}
	if drop {
		DropCache(f)
	}
	return true, nil
}
