// Package crashtest runs a test binary again, under strace, with one fault at the n-th system call of a kind: a
// SIGKILL or an error. A test goes through all of them and looks at what is on disk afterwards. It is for tests only
// and proves what survives the death of a process; what survives a loss of power needs another kernel, or a copy of
// the file system. One test at a time may use it.
package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// childEnv holds the argument of the child; a process without it is the parent.
const childEnv = "PATCHMESH_CRASHTEST_CHILD"

// Main is the TestMain of a package whose tests use Each: in the child it calls child and exits, with status 0 if
// that returns nil and 3 if it returns an error. The child's work happens on one thread, since strace counts the calls of
// each thread apart.
func Main(m *testing.M, child func(arg string) error) {
	arg, ok := os.LookupEnv(childEnv)
	if !ok {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	if err := child(arg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

// Fault is one fault at one call.
type Fault struct {
	Call string // name of the system call
	Kind string // "signal=KILL", or "error=EIO" and the like
	N    int    // which of the calls, from 1
}

// String is the form that strace takes.
func (f Fault) String() string { return fmt.Sprintf("%s:%s:when=%d", f.Call, f.Kind, f.N) }

// Outcome is how a child ended.
type Outcome struct {
	Fault
	Stdout string
	Stderr string
	Exit   int // -1 if it was killed
}

// maxCalls ends a loop that would not: no child here makes so many calls of one kind.
const maxCalls = 500

// Each runs the child once for every call of the given kinds that it makes and every kind of fault. prepare is called
// before each run and returns the child's argument; check is called after it. It returns the number of runs in which
// the fault happened.
func Each(t *testing.T, calls, kinds []string, prepare func() (arg string), check func(Outcome)) (runs int) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace: apt-get install strace")
	}
	if err := exec.Command("strace", "-qq", "-o", os.DevNull, "true").Run(); err != nil {
		t.Skip("needs the right to trace its own children: allow ptrace in the container or sandbox")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	for _, kind := range kinds {
		before := runs
		for _, call := range calls {
			for n := 1; ; n++ {
				if n > maxCalls {
					t.Fatalf("%s: more than %d calls", call, maxCalls)
				}
				f := Fault{call, kind, n}
				o, happened := run(t, f, trace, prepare())
				if !happened {
					break
				}
				runs++
				check(o)
			}
		}
		if runs == before { // with --seccomp-bpf, for one, strace kills nothing
			t.Fatalf("%s never happened: this strace proves nothing", kind)
		}
	}
	return runs
}

// run runs the child with one fault and reports whether the fault happened.
func run(t *testing.T, f Fault, trace, arg string) (Outcome, bool) {
	t.Helper()
	cmd := exec.Command("strace", "-f", "-qq", "-o", trace, "-e", "trace="+f.Call, "-e", "inject="+f.String(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+arg, "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("%s: %v", f, err)
	}
	log, err := os.ReadFile(trace)
	if err != nil {
		t.Fatalf("%s: %v\n%s", f, err, stderr.String())
	}
	// A call that is killed has no result in the log.
	happened := strings.Contains(string(log), "(INJECTED)") || cmd.ProcessState.ExitCode() < 0
	return Outcome{f, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, happened
}
