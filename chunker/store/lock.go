package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// takeLock holds DIR/lock until the file is closed, also by the death of the process.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, mapError(fmt.Errorf("store lock: %w", err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, problem.New(problem.Locked, "store %s is in use by another process", dir).
				WithNext("stop the daemon that uses it, or ask the daemon itself")
		}
		return nil, fmt.Errorf("store lock: %w", err)
	}
	return f, nil
}
