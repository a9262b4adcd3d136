// Package harness runs the real programs: a seeder and sites of nodes, each a process with its own state directory and
// its own address, on the loopback interface or on another [Ground]. The examples and the end-to-end tests are built
// on it. It imitates nothing: what it knows of the system it learns from the programs' own output. It needs no root.
//
// A [Lab] owns every process it starts. Close ends them, and so does the death of the program that made the lab. Its
// methods may be used from any goroutine.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Programs are what "make build" makes.
func Programs() []string { return []string{"seeder", "meshd", "mesh-install", "meshctl"} }

// Lab is a directory, the programs, and the processes that run in it.
type Lab struct {
	Bin string // directory of the programs
	Dir string // everything that is written stands below it

	env    []string
	ground Ground
	work   sync.WaitGroup // one waiter for each process

	mu     sync.Mutex // guards the fields below
	procs  []*Proc
	closed bool
}

// New makes a lab on the loopback interface, in a new temporary directory. bin holds the programs.
func New(bin string) (*Lab, error) {
	g := newLoopback()
	l, err := NewOn(g, bin)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return l, nil
}

// NewOn makes a lab on another ground, which is closed with the lab.
func NewOn(g Ground, bin string) (*Lab, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	for _, p := range Programs() {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return nil, fmt.Errorf("program %s is not built: run make build: %w", p, err)
		}
	}
	dir, err := os.MkdirTemp("", "patchmesh-")
	if err != nil {
		return nil, err
	}
	return &Lab{
		Bin: bin, Dir: dir, ground: g,
		env: append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME=", "MESHCTL_SERVER=", "MESHCTL_CONFIG=", "MESHCTL_CONTEXT=", "MESHCTL_TOKEN_FILE=", "MESHCTL_PIN="),
	}, nil
}

// Close kills every process that is left and removes the directory.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	procs := l.procs
	l.mu.Unlock()
	for _, p := range procs {
		p.Kill()
	}
	l.work.Wait()
	return errors.Join(l.ground.Close(), os.RemoveAll(l.Dir))
}

// Path is a path below the lab's directory.
func (l *Lab) Path(elem ...string) string {
	return filepath.Join(append([]string{l.Dir}, elem...)...)
}

// ExitError is a program that ended with another status than 0.
type ExitError struct {
	Command string
	Status  int
	Stderr  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Command, e.Status, strings.TrimSpace(e.Stderr))
}

// Run runs a program to its end and returns what it wrote to standard output, also beside an *ExitError.
func (l *Lab) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	return l.run(ctx, seederHost, nil, program, args...)
}

func (l *Lab) run(ctx context.Context, host string, env []string, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, program), args...)
	cmd.Env, cmd.Dir = append(l.env, env...), l.Dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	err := l.launch(host, cmd, func() {})
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = &ExitError{strings.Join(append([]string{program}, args...), " "), exit.ExitCode(), stderr.String()}
	}
	return stdout.Bytes(), err
}

// Await calls check every interval until it says true, fails, or the context ends. The error then says what was
// waited for and what check said last.
func Await(ctx context.Context, what string, interval time.Duration, check func() (done bool, state string, err error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		done, state, err := check()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last seen: %s", what, context.Cause(ctx), state)
		case <-tick.C:
		}
	}
}

// Tail copies the last lines of every process's log to w, for a person who wants to know why it went wrong.
func (l *Lab) Tail(w io.Writer, lines int) {
	l.mu.Lock()
	procs := l.procs
	l.mu.Unlock()
	for _, p := range procs {
		b, err := os.ReadFile(p.log)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
		fmt.Fprintf(w, "--- %s\n%s\n", filepath.Base(p.log), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
}
