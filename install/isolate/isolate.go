// Package isolate splits the executor in two. The worker, which reads what strangers wrote, runs in a network
// namespace of its own in which no interface is up. The parent stays outside and does a few things for it, see Host: it
// asks whether the machine is healthy, because the services to ask live on the host's loopback. The two talk in
// lines of a fixed form over two pipes; the parent reads nothing else.
//
// Where the kernel allows no namespace the worker runs without, and says so in its result. A namespace takes away
// the network, not the power of root: it is a second wall, not the first.
package isolate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Isolated is what a worker without a network says of itself; anything else begins with "none: ".
const Isolated = "network namespace"

// Descriptors of the pipes in the worker.
const (
	fdReplies  = 3
	fdRequests = 4
)

const namespaceLink = "/proc/self/ns/net"

// Worker is a program to be run apart.
type Worker struct {
	Program string   // usually /proc/self/exe
	Args    []string // the worker's arguments; two more come before them, see Enter
	Stdout  io.Writer
	Stderr  io.Writer
	Host    Host
	Require bool // refuse to run without a namespace
}

// ErrRefused is returned when Require is set and the kernel allows no namespace.
var ErrRefused = errors.New("the kernel allows no network namespace, and the configuration requires one")

// SignalError says that the worker was killed.
type SignalError struct{ Signal syscall.Signal }

func (e *SignalError) Error() string { return "the worker was killed: " + e.Signal.String() }

// Run starts the worker, answers it, and returns its exit status when it has ended. When ctx ends the worker gets
// SIGTERM and is waited for: it decides itself where it can stop. It dies with its parent.
func (w Worker) Run(ctx context.Context) (int, error) {
	// The worker's death signal is tied to the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	toParent, requests, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer toParent.Close()
	defer requests.Close()
	replies, toWorker, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer replies.Close()
	defer toWorker.Close()

	cmd, err := w.start(replies, requests)
	if err != nil {
		return 0, err
	}
	requests.Close()
	replies.Close()

	ended := make(chan struct{})
	var group errgroup.Group
	asking, stop := context.WithCancel(ctx)
	defer stop()
	group.Go(func() error {
		defer toWorker.Close()
		return Serve(asking, toParent, toWorker, w.Host)
	})
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return cmd.Process.Signal(syscall.SIGTERM)
		case <-ended:
			return nil
		}
	})
	werr := cmd.Wait()
	close(ended)
	stop()
	// Whoever else may hold the worker's end of the pipe has nothing to ask.
	_ = toParent.SetReadDeadline(time.Now())
	gerr := group.Wait()
	if errors.Is(gerr, os.ErrDeadlineExceeded) {
		gerr = nil
	}
	var exit *exec.ExitError
	if errors.As(werr, &exit) {
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return 0, &SignalError{st.Signal()}
		}
		return exit.ExitCode(), nil
	}
	if werr != nil {
		return 0, werr
	}
	if gerr != nil && ctx.Err() == nil {
		return 0, gerr
	}
	return 0, nil
}

// start tries to start the worker in an empty network namespace, and without one if that is refused.
func (w Worker) start(replies, requests *os.File) (*exec.Cmd, error) {
	outside, err := os.Readlink(namespaceLink)
	if err != nil {
		outside = "unknown"
	}
	apart := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		apart.Cloneflags |= syscall.CLONE_NEWUSER
		apart.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		apart.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	cmd := w.command(replies, requests, apart, outside, "-")
	refused := cmd.Start()
	if refused == nil {
		return cmd, nil
	}
	if w.Require {
		return nil, fmt.Errorf("%w: %w", ErrRefused, refused)
	}
	why := strings.Join(strings.Fields(refused.Error()), " ")
	cmd = w.command(replies, requests, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, outside, why)
	return cmd, cmd.Start()
}

func (w Worker) command(replies, requests *os.File, attr *syscall.SysProcAttr, outside, why string) *exec.Cmd {
	cmd := exec.Command(w.Program, append([]string{"worker", outside, why}, w.Args...)...)
	cmd.Stdout, cmd.Stderr = w.Stdout, w.Stderr
	cmd.ExtraFiles = []*os.File{fdReplies - 3: replies, fdRequests - 3: requests}
	cmd.Env = []string{}
	cmd.SysProcAttr = attr
	return cmd
}

// Enter is called first in the worker with the two arguments that precede Worker.Args. It says what holds now, by
// looking: how the worker was started proves nothing.
func Enter(outside, why string) (isolation string) {
	inside, err := os.Readlink(namespaceLink)
	switch {
	case err != nil:
		return "none: " + err.Error()
	case inside == outside && why != "-":
		return "none: " + why
	case inside == outside:
		return "none: the network namespace is the one outside"
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return "none: " + err.Error()
	}
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 {
			return "none: interface " + i.Name + " is up in the network namespace"
		}
	}
	return Isolated
}

// Outside asks the parent. It belongs to one goroutine of the worker.
type Outside struct{ replies, requests *os.File }

// Parent returns the way to the parent.
func Parent() (*Outside, error) {
	// The way out is the worker's alone: what it starts does not inherit it.
	syscall.CloseOnExec(fdReplies)
	syscall.CloseOnExec(fdRequests)
	// Only a descriptor that does not block can be closed under a read that waits.
	if err := syscall.SetNonblock(fdReplies, true); err != nil {
		return nil, fmt.Errorf("pipe from the parent: %w", err)
	}
	return &Outside{os.NewFile(fdReplies, "replies"), os.NewFile(fdRequests, "requests")}, nil
}
