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
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// free says Busy when another package manager is at work.
func (m *Manager) free() error {
	who, err := m.Holder()
	if err == nil && who != "" {
		err = &manager.Error{Kind: manager.Busy, Detail: who}
	}
	return err
}

// dnfLock is dnf's own lock: a file with the ID of the process that holds it.
const dnfLock = "var/lib/dnf/rpmdb_lock.pid"

// Holder names who is in a transaction: by dnf's own lock, and by rpm's, which every program that writes the database
// takes (yum, PackageKit, rpm itself). Both are left where they are.
func (m *Manager) Holder() (string, error) {
	pid, err := m.dnfHolder()
	if err != nil {
		return "", err
	}
	if pid > 0 {
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

// dnfHolder is who holds dnf's lock; 0: nobody. dnf takes any process with that ID for the holder, so a power cut in a
// transaction locks it out when the next boot gives the ID to somebody else: who began after the file was written did
// not write it.
func (m *Manager) dnfHolder() (int, error) {
	name := m.path(dnfLock)
	b, err := readAtMost(name, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	fi, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, nil
	}
	begun, ok := begin(pid)
	if !ok || begun.After(fi.ModTime().Add(2*time.Second)) { // the kernel says it to a second
		return 0, nil
	}
	return pid, nil
}

// dropStaleLock removes a lock that nobody holds and dnf would believe in.
func (m *Manager) dropStaleLock() error {
	if err := m.free(); err != nil {
		return err
	}
	return durable.Remove(m.path(dnfLock))
}

// ticksPerSecond is USER_HZ, in which Linux tells all programs its times.
const ticksPerSecond = 100

// begin is when a process began; false: there is none, or it has ended and only waits to be collected.
func begin(pid int) (time.Time, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, false
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) > 0 && (f[0] == "Z" || f[0] == "X") {
		return time.Time{}, false
	}
	system, err := os.ReadFile("/proc/stat")
	if err != nil || len(f) < 20 {
		return time.Time{}, true
	}
	_, rest, _ := strings.Cut(string(system), "\nbtime ")
	boot, _, _ := strings.Cut(rest, "\n")
	at, err1 := strconv.ParseInt(boot, 10, 64)
	ticks, err2 := strconv.ParseInt(f[19], 10, 64)
	if err1 != nil || err2 != nil {
		return time.Time{}, true // not known: taken for old
	}
	return time.Unix(at+ticks/ticksPerSecond, 0), true
}

func describe(pid int) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(fmt.Sprintf("pid %d %s", pid, bytes.TrimSpace(comm)))
}
