package preflight

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LocksDir is where applications lock the machine against patches.
const LocksDir = "/run/meshd/locks"

// Bounds of application locks.
const (
	maxLocks     = 64   // more files are not looked at
	maxLockBytes = 1024 // of one file

	// MaxLease is how far ahead of its writing the end of a lease may lie: what claims more, ends then.
	MaxLease = 24 * time.Hour
	// LockOverdue is after what time a lock without an end is named Overdue. It still counts: somebody works under it.
	LockOverdue = 4 * time.Hour
)

// Lock is a file in LocksDir by which an application asks not to be disturbed. Either a process holds it by flock(2),
// for as long as it lives and wants:
//
//	flock /run/meshd/locks/till  COMMAND
//
// or its one line is a lease, which ends by itself, with the time of its end in seconds since 1970 or as RFC 3339, then
// who wants it, with the process by which it stands and falls if there is one, and why:
//
//	echo "@$(( $(date +%s) + 1200 )) pos-till:$$ card batch" > /run/meshd/locks/till
//
// A lease that is past its end, longer ago written than MaxLease, or whose process is gone does not count, and neither
// does a file that nobody holds and that names no end. Under an flock, too, the end counts if the file names one.
type Lock struct {
	Name  string    // of the file
	Who   string    // who has it, as the file or the kernel says
	Why   string    // may be empty
	PID   int       // that holds it; 0: a lease that names none
	Since time.Time // when it was taken, as far as can be known
	Until time.Time // its end; zero: it has none
}

// Overdue reports whether a lock is held for longer than any application should need.
func (k Lock) Overdue(now time.Time) bool {
	return k.Until.IsZero() && !k.Since.IsZero() && now.Sub(k.Since) >= LockOverdue
}

// retry is when to ask again.
func (k Lock) retry(now time.Time) time.Duration {
	if k.Until.IsZero() {
		return retryLock
	}
	return min(max(k.Until.Sub(now), retryLeast), retryPerson)
}

func (k Lock) describe(now time.Time) string {
	var b strings.Builder
	if k.Overdue(now) {
		b.WriteString("Overdue: ")
	}
	b.WriteString(k.Name)
	if k.Why != "" {
		fmt.Fprintf(&b, " (%s)", k.Why)
	}
	b.WriteString(", by")
	if k.PID != 0 {
		fmt.Fprintf(&b, " pid %d", k.PID)
	}
	fmt.Fprintf(&b, " %s", k.Who)
	if !k.Since.IsZero() {
		fmt.Fprintf(&b, ", %s", max(0, now.Sub(k.Since)).Round(time.Second))
	}
	if !k.Until.IsZero() {
		fmt.Fprintf(&b, "; lease ends %s", k.Until.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// line is what a lock file says.
type line struct {
	until time.Time
	who   string
	pid   int
	why   string
}

// parseLine reads the first line of a lock file. An empty file says nothing, which is fine for one that is held.
func parseLine(b []byte) (line, error) {
	first, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(strings.ToValidUTF8(strings.Map(printable, first), "?"))
	if len(f) == 0 {
		return line{}, nil
	}
	var l line
	if sec, ok := strings.CutPrefix(f[0], "@"); ok {
		n, err := strconv.ParseInt(sec, 10, 64)
		if err != nil || n < 0 || n > 1<<40 {
			return line{}, fmt.Errorf("%q is no time", f[0])
		}
		l.until = time.Unix(n, 0)
	} else {
		t, err := time.Parse(time.RFC3339, f[0])
		if err != nil {
			return line{}, fmt.Errorf("%q is no time", f[0])
		}
		l.until = t
	}
	if len(f) < 2 {
		return line{}, errors.New("it does not say who")
	}
	l.who, l.why = f[1], strings.Join(f[2:], " ")
	if who, pid, ok := strings.Cut(l.who, ":"); ok {
		n, err := strconv.Atoi(pid)
		if err != nil || n < 1 {
			return line{}, fmt.Errorf("%q is no process", pid)
		}
		l.who, l.pid = who, n
	}
	if l.who == "" {
		return line{}, errors.New("it does not say who")
	}
	return l, nil
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// judge says whether a lock file counts now; if not, why it does not, where somebody should know. holder is nil when
// nobody has locked the file, lives whether a process was there already when the file was written.
func judge(name string, l line, bad error, written time.Time, holder *Process, lives func(int, time.Time) bool, now time.Time) (*Lock, string) {
	k := &Lock{Name: name, Who: l.who, Why: l.why, PID: l.pid, Since: written, Until: l.until}
	if end := written.Add(MaxLease); !k.Until.IsZero() && k.Until.After(end) {
		k.Until = end
	}
	if holder != nil {
		k.PID, k.Who = holder.PID, holder.Name
		if holder.Since.After(k.Since) {
			k.Since = holder.Since
		}
		if !k.Until.IsZero() && !k.Until.After(now) {
			return nil, fmt.Sprintf("lock %s is held by %s past its end, %s: it does not count", name, holder, k.Until.UTC().Format(time.RFC3339))
		}
		return k, ""
	}
	switch {
	case bad != nil:
		return nil, fmt.Sprintf("lock %s is held by nobody and is no lease: %v: it does not count", name, bad)
	case k.Until.IsZero(): // what flock leaves behind
		return nil, ""
	case !k.Until.After(now):
		return nil, ""
	case l.pid != 0 && !lives(l.pid, written):
		return nil, fmt.Sprintf("lock %s: its process %d is gone: it does not count", name, l.pid)
	}
	return k, ""
}

// Locks returns the application locks that count, and notes on those that do not and should not be there. Nothing in
// the directory is trusted: no link is followed, nothing is waited for, and little is read.
func Locks(dir, proc string, now time.Time) (count []Lock, notes []string, err error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if len(es) > maxLocks {
		notes = append(notes, fmt.Sprintf("%s holds %d files: only the first %d are looked at", dir, len(es), maxLocks))
		es = es[:maxLocks]
	}
	paths := make([]string, len(es))
	for i, e := range es {
		paths[i] = filepath.Join(dir, e.Name())
	}
	holders, err := Holders(proc, paths)
	if err != nil {
		return nil, notes, err
	}
	lives := func(pid int, written time.Time) bool {
		p := filepath.Join(proc, strconv.Itoa(pid))
		if _, err := os.Stat(p); err != nil {
			return false
		}
		return !started(p).After(written.Add(2 * time.Second)) // both are rounded: else the number is in use again
	}
	for i, e := range es {
		b, written, err := readLock(paths[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var l line
		if err == nil {
			l, err = parseLine(b)
		}
		var holder *Process
		if j := slices.IndexFunc(holders, func(p Process) bool { return p.File == paths[i] }); j >= 0 {
			holder = &holders[j]
		}
		k, note := judge(e.Name(), l, err, written, holder, lives, now)
		if k != nil {
			count = append(count, *k)
		}
		if note != "" {
			notes = append(notes, note)
		}
	}
	return count, notes, nil
}

// readLock reads a lock file and when it was last written.
func readLock(name string) ([]byte, time.Time, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fi.ModTime(), errors.New("it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxLockBytes))
	return b, fi.ModTime(), err
}
