// Package tool runs one program of the distribution for the executor and leaves nothing of it behind: the program and
// whatever it starts are a session of their own, marked with the transaction's ID in their environment. When the
// context ends, every process of that session is killed; what a killed executor left is found again by the mark and
// killed by the next run (KillLeft), before it looks at the machine.
//
// Why not only a process group: apt, dpkg and the maintainer scripts make groups of their own, and killing apt leaves
// dpkg and the script at work. Why not a PID namespace: scripts stop and start the services of the machine by their
// process IDs. A Runner belongs to one goroutine.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mark is the variable by which the processes of a transaction are known.
const Mark = "PATCHMESH_TRANSACTION"

// MaxOutput bounds what is kept of each stream, in bytes; more is read and dropped from the front.
const MaxOutput = 32 << 20

// Runner runs programs for one transaction.
type Runner struct {
	ID  string        // of the transaction; letters, digits, dashes
	Out io.Writer     // gets everything both streams say as it comes, for the log; nil: nobody
	Env []string      // beside the fixed ones
	Max time.Duration // for one program; 0: only the context ends it
}

// Command is one program.
type Command struct {
	Path string // looked up in the fixed PATH
	Args []string
	Dir  string   // working directory; empty: "/"
	Env  []string // beside those of the Runner
}

// Result is how it ended.
type Result struct {
	Exit   int // -1: by a signal
	Signal syscall.Signal
	Stdout []byte
	Stderr []byte
	Both   []byte // both streams in the order in which they came
}

// searchPath is what maintainer scripts expect.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// env is all that a program sees: nothing of the caller's environment reaches it.
func (r Runner) env(c Command) []string {
	e := []string{"PATH=" + searchPath, "HOME=/root", "LC_ALL=C.UTF-8", "LANGUAGE=", "TZ=UTC", "DEBIAN_FRONTEND=noninteractive",
		"DEBCONF_NONINTERACTIVE_SEEN=true", "APT_LISTCHANGES_FRONTEND=none", "NEEDRESTART_SUSPEND=1", Mark + "=" + r.ID}
	return append(append(e, r.Env...), c.Env...)
}

// ErrKilled is the cause when a program was ended because the context or its time did.
var ErrKilled = errors.New("killed with everything it had started")

// Run runs a program to its end. An exit status other than 0 is no error: a Result says it. An error says that the
// program could not be started, or was killed because ctx or Max ended (ErrKilled and the context's error).
func (r Runner) Run(ctx context.Context, c Command) (Result, error) {
	if r.Max > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Max)
		defer cancel()
	}
	path, err := find(c.Path)
	if err != nil {
		return Result{Exit: -1}, err
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Env, cmd.Dir = r.env(c), c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // a service that a script started may hold the output open
	cmd.Cancel = func() error { return killSession(cmd.Process.Pid, r.ID) }
	var both ring
	out, errs := &ring{also: &both, log: r.Out}, &ring{also: &both, log: r.Out}
	cmd.Stdout, cmd.Stderr = out, errs
	err = cmd.Run()
	res := Result{Stdout: out.bytes(), Stderr: errs.bytes(), Both: both.bytes()}
	if st := cmd.ProcessState; st != nil {
		res.Exit = st.ExitCode()
		if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			res.Signal = ws.Signal()
		}
	}
	if ctx.Err() != nil {
		return res, fmt.Errorf("%s: %w: %w", c.Path, ErrKilled, ctx.Err())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return res, fmt.Errorf("%s: %w", c.Path, err)
	}
	return res, nil
}

// find looks a program up in the fixed PATH, not in the caller's.
func find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		p := dir + "/" + name
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// Has reports whether a program is there.
func Has(name string) bool { _, err := find(name); return err == nil }

// ring keeps the last MaxOutput bytes. exec copies each stream in a goroutine of its own; the lock of what is shared
// is in the one they both write to.
type ring struct {
	mu   sync.Mutex // only of the shared one
	buf  bytes.Buffer
	also *ring
	log  io.Writer
}

func (w *ring) Write(p []byte) (int, error) {
	w.keep(p)
	if w.also != nil {
		w.also.mu.Lock()
		defer w.also.mu.Unlock()
		w.also.keep(p)
		if w.log != nil {
			_, _ = w.log.Write(p) // a log that is full must not stop a transaction
		}
	}
	return len(p), nil
}

func (w *ring) keep(p []byte) {
	w.buf.Write(p)
	if over := w.buf.Len() - MaxOutput; over > 0 {
		w.buf.Next(over)
	}
}

func (w *ring) bytes() []byte { return w.buf.Bytes() }

// KillLeft kills what is left of a transaction whose executor is gone, and returns how many processes that were. It
// returns only when none is left, or with ctx's error.
func KillLeft(ctx context.Context, id string) (int, error) {
	killed := map[int]bool{}
	for {
		left, err := marked(id)
		if err != nil {
			return len(killed), err
		}
		if len(left) == 0 {
			return len(killed), nil
		}
		for _, pid := range left {
			killed[pid] = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return len(killed), ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// killSession kills the session that leader began, then whatever carries the mark in a session of its own.
func killSession(leader int, id string) error {
	_ = syscall.Kill(-leader, syscall.SIGKILL)
	for range 1000 {
		left, err := marked(id)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("processes of %s do not end", id)
}

// marked lists the processes that carry the mark of a transaction and are not just waiting to be collected.
func marked(id string) ([]int, error) {
	if id == "" {
		return nil, nil
	}
	es, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	want := []byte(Mark + "=" + id)
	var out []int
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ") // empty for one that has ended
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, want) {
				out = append(out, pid)
				break
			}
		}
	}
	return out, nil
}
