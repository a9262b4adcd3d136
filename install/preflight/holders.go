package preflight

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is one that holds a lock.
type Process struct {
	PID   int
	Name  string    // as the kernel has it, at most 15 bytes
	Since time.Time // when it began; zero: not known
	File  string    // that it has locked
}

func (p Process) String() string { return fmt.Sprintf("pid %d %s", p.PID, p.Name) }

// ManagerLocks are the files that package managers and what drives them lock while they work. That a daemon of theirs
// runs means nothing: PackageKit and the shutdown helper of unattended-upgrades always do.
func ManagerLocks(root string) []string {
	files := []string{
		"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/cache/apt/archives/lock",
		"run/unattended-upgrades.lock", "var/lib/rpm/.rpm.lock", "usr/lib/sysimage/rpm/.rpm.lock", "run/zypp.pid",
	}
	for i, f := range files {
		files[i] = filepath.Join(root, f)
	}
	return files
}

// maxLines bounds what is read of one descriptor's description.
const maxLines = 1000

// Holders says who holds a lock on which of the files, whatever the kind of lock. It looks at what every process has
// open and takes no lock itself, not even for an instant: an application that tries for its own must not find it taken.
// A lock that a shell's helper took for the shell is found with the shell, since the kernel keeps it with the open file.
// Processes that may not be looked at are left out: that is for root.
func Holders(proc string, files []string) ([]Process, error) {
	return holders(proc, files, func(os.FileInfo, os.FileInfo) bool { return true })
}

// rightful says whether a process, by its directory in the process file system, may have business with a lock: it is
// root's, or of whoever owns the file. flock(2) takes no more than the right to read, and rpm's lock may be read by
// everybody: anybody on the machine could keep it from its patches, and from the way back.
func rightful(process, file os.FileInfo) bool {
	p, ok1 := process.Sys().(*syscall.Stat_t)
	f, ok2 := file.Sys().(*syscall.Stat_t)
	return !ok1 || !ok2 || p.Uid == 0 || p.Uid == f.Uid
}

// holders leaves out the processes that do not count for a file.
func holders(proc string, files []string, counts func(process, file os.FileInfo) bool) ([]Process, error) {
	known := map[string]os.FileInfo{}
	for _, name := range files {
		if fi, err := os.Stat(name); err == nil {
			known[name] = fi
		}
	}
	if len(known) == 0 {
		return nil, nil
	}
	es, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		owner, err := os.Stat(dir)
		if err != nil {
			continue
		}
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // it has ended, or is not ours to look at
		}
		held := map[string]bool{}
		for _, fd := range fds {
			fi, err := os.Stat(filepath.Join(dir, "fd", fd.Name()))
			if err != nil || !fi.Mode().IsRegular() {
				continue
			}
			for name, want := range known {
				if !held[name] && os.SameFile(fi, want) && counts(owner, want) && locked(filepath.Join(dir, "fdinfo", fd.Name())) {
					held[name] = true
					out = append(out, Process{PID: pid, Name: attribute(filepath.Join(dir, "comm")), Since: started(dir), File: name})
				}
			}
		}
	}
	return out, nil
}

// locked reports whether the kernel's description of a descriptor names a lock, see proc_pid_fdinfo(5).
func locked(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, 256*maxLines))
	for n := 0; n < maxLines && s.Scan(); n++ {
		if strings.HasPrefix(s.Text(), "lock:") && !strings.Contains(s.Text(), "LEASE") {
			return true
		}
	}
	return false
}

// ticks of a second in /proc/PID/stat: USER_HZ, 100 on every architecture that Linux has in use.
const ticks = 100

// started is when a process began: field 22 of /proc/PID/stat counts from the start of the machine, see proc_pid_stat(5).
func started(dir string) time.Time {
	_, after, ok := strings.Cut(attribute(filepath.Join(dir, "stat")), ") ") // the name may hold blanks
	fields := strings.Fields(after)
	if !ok || len(fields) < 20 {
		return time.Time{}
	}
	n, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}
	}
	boot := bootTime(filepath.Join(filepath.Dir(dir), "stat"))
	if boot.IsZero() {
		return time.Time{}
	}
	return boot.Add(time.Duration(n) * time.Second / ticks)
}

// bootTime reads the line btime of /proc/stat.
func bootTime(name string) time.Time {
	f, err := os.Open(name)
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, 1<<20))
	s.Buffer(nil, 1<<20) // the line of interrupts is long
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), "btime "); ok {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				return time.Unix(n, 0)
			}
		}
	}
	return time.Time{}
}
