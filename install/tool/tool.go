// Package tool runs one program of the distribution for the executor and leaves nothing of it behind when it has to
// stop: the program begins a session of its own and carries the transaction's ID in its environment, and so does
// whatever it starts. When the context ends, all of that is killed; what a killed executor left is found again by the
// ID and killed by the next run (KillLeft), before it looks at the machine.
//
// Why not only a process group: apt, dpkg and the maintainer scripts make groups of their own, and killing apt leaves
// dpkg and the script at work. Why not a PID namespace: scripts stop and start the services of the machine by their
// process IDs. A service that a script started itself, without an init system, is of the family too: it lives on when
// the program ends by itself, and dies with it when it is killed.
//
// Not for programs that ask questions: there is no input. A Runner belongs to one goroutine.
package tool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	Exit    int // -1: by a signal
	Signal  syscall.Signal
	Stdout  []byte
	Stderr  []byte
	Both    []byte // both streams in the order in which they came
	Dropped int64  // bytes that Stdout lacks at its front; who parses it must not go on
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
	// The kernel sends the death signal when the thread ends that started the program, not only with the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	if err := keepDescriptors(); err != nil {
		return Result{Exit: -1}, err
	}
	out := output{log: r.Out}
	stdout, err1 := out.open()
	stderr, err2 := out.open()
	defer closeAll(stdout.r, stderr.r)
	defer closeAll(stdout.w, stderr.w)
	if err := errors.Join(err1, err2); err != nil {
		return Result{Exit: -1}, err
	}
	var killed atomic.Bool
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = r.env(c), cmp.Or(c.Dir, "/"), stdout.w, stderr.w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		killed.Store(true)
		return killSession(cmd.Process.Pid, r.ID)
	}
	err = cmd.Start()
	closeAll(stdout.w, stderr.w)
	var copying sync.WaitGroup
	if err == nil {
		copying.Go(stdout.copy)
		copying.Go(stderr.copy)
		err = cmd.Wait()
		stdout.stop()
		stderr.stop()
		copying.Wait()
	}

	res := Result{Exit: -1, Stdout: stdout.kept.bytes(), Stderr: stderr.kept.bytes(), Both: out.both.bytes(), Dropped: stdout.kept.dropped}
	if st := cmd.ProcessState; st != nil {
		res.Exit = st.ExitCode()
		if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			res.Signal = ws.Signal()
		}
	}
	var exit *exec.ExitError
	switch {
	case killed.Load() || cmd.Process == nil && ctx.Err() != nil:
		return res, fmt.Errorf("%s: %w: %w", c.Path, ErrKilled, ctx.Err())
	case err == nil, errors.As(err, &exit):
		return res, nil
	}
	return res, fmt.Errorf("%s: %w", c.Path, err)
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close() // of a pipe that could not be made it is nil, and a second time does nothing
	}
}

// keepDescriptors has no program inherit what the executor itself inherited, as its pipes to the process outside its
// namespace. What Go opens is not inherited anyway.
func keepDescriptors() error {
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range es {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
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
