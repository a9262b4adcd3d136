package testbed

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A thread, not a process, belongs to a network namespace: sockets made and processes started by a thread belong to
// its namespace for good. So whatever is to happen in a host happens on a thread that has gone there and comes back.

// inside runs f on a thread in the namespace. f may start processes, listen and dial, and must not start goroutines
// that do.
func inside(namespace string, f func() error) error {
	return apart(func() error {
		fd, err := unix.Open(mountOf(namespace), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", namespace, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("namespace %s: %w", namespace, err)
		}
		return f()
	})
}

// apart runs f on a thread that may change its network namespace, and waits for it.
func apart(f func() error) (err error) {
	var g sync.WaitGroup
	g.Go(func() {
		runtime.LockOSThread()
		var home int
		if home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer unix.Close(home)
		err = f()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("return from a namespace: %w", back))
			return // the thread stays locked and ends with its goroutine
		}
		runtime.UnlockOSThread()
	})
	g.Wait()
	return err
}

func mayMakeNamespaces() error {
	return apart(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}
