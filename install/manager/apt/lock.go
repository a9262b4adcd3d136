package apt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/patchmesh/patchmesh/install/manager"
)

// lockFiles are what apt, dpkg and their front ends lock, with fcntl. The last two are not needed for a transaction
// of ours, whose lists and cache are its own; but who holds them is about to take the others.
func lockFiles() []string {
	return []string{"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/cache/apt/archives/lock"}
}

// Holder asks the kernel who holds one of the locks, and takes none.
func (m *Manager) Holder() (string, error) {
	for _, name := range lockFiles() {
		pid, held, err := holder(m.path(name))
		if err != nil {
			return "", fmt.Errorf("apt lock: %w", err)
		}
		if held {
			return process(pid), nil
		}
	}
	return "", nil
}

// free returns Busy when somebody holds a lock.
func (m *Manager) free() error {
	who, err := m.Holder()
	if err != nil {
		return err
	}
	if who != "" {
		return &manager.Error{Kind: manager.Busy, Detail: who + " is at work"}
	}
	return nil
}

func holder(name string) (pid int, held bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &l); err != nil {
		return 0, false, err
	}
	return int(l.Pid), l.Type != syscall.F_UNLCK, nil
}

// process names one: "pid 811 apt-get". One of another namespace has no ID here.
func process(pid int) string {
	if pid <= 0 {
		return "a process that cannot be seen from here"
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d %s", pid, strings.TrimSpace(string(comm)))
}
