package dnf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/manager"
)

// lockFile is dnf's own lock.
const lockFile = "var/lib/dnf/rpmdb_lock.pid"

// free says Busy when another package manager is at work.
func (m *Manager) free() error {
	who, err := m.Holder()
	if err == nil && who != "" {
		err = &manager.Error{Kind: manager.Busy, Detail: who}
	}
	return err
}

// Holder names who is in a transaction: dnf's own lock, a file with a process ID, and rpm's, which every program that
// writes the database takes (yum, PackageKit, rpm itself). Both are left where they are.
func (m *Manager) Holder() (string, error) {
	b, err := readAtMost(m.path(lockFile), 64)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// dnf's rule: who wrote it holds it as long as the process is there.
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 0 && alive(pid) {
		return describe(pid), nil
	}
	db, err := m.rpmdb(context.Background())
	if err != nil {
		return "", err
	}
	f, err := os.Open(db + "/.rpm.lock")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l); err != nil {
		return "", fmt.Errorf("lock of rpm: %w", err)
	}
	if l.Type == unix.F_UNLCK {
		return "", nil
	}
	return describe(int(l.Pid)), nil
}

// alive reports whether a process is there and has not ended: one that was killed stays in the list until somebody has
// collected it. The state stands behind the name, see proc_pid_stat(5).
func alive(pid int) bool {
	b, err := readAtMost(fmt.Sprintf("/proc/%d/stat", pid), 4096)
	if err != nil {
		return false
	}
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	return !bytes.HasPrefix(rest, []byte(" Z")) && !bytes.HasPrefix(rest, []byte(" X"))
}

func describe(pid int) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(fmt.Sprintf("pid %d %s", pid, bytes.TrimSpace(comm)))
}
