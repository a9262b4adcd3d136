package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what the daemon uses of a machine that has other work to do.
//
// Memory, whatever peers do, in a site of N nodes:
//
//	program and runtime     about 20 MiB, most of it pages of the binary
//	a neighbour             2 x 256 KiB of a chunk on its way in, 128 KiB on their way out (xfer's AheadBytes), 68 KiB while a
//	                        frame is written, 4 receive windows that only fill when our disk is slow
//	chunks to be served     freshBytes, and maxSpare buffers
//	a bundle                about 100 bytes a chunk, and a bit of it for each neighbour; maxManifests bundles
//	documents               4 MiB of signed documents at most that a policy in force names
//	the outbox              maxOutbox reports of at most 16 KiB, the rest on the disk
//
// MemoryBytes makes the collector work harder before that is used up; it is not a wall. A wall is a cgroup's, and the
// test in cmd/meshd fills a node behind one of 64 MiB.
const (
	DefaultMemoryBytes = 64 << 20
	leastMemoryBytes   = 40 << 20

	// programBytes of the limit are not the collector's: pages of the binary, and threads' stacks.
	programBytes = 24 << 20
)

// garbagePercent is how much garbage there may be beside what is in use, see GOGC in package runtime. Nearly all buffers
// are lent and used again, so that the collector has little to do and may do it often.
const garbagePercent = 50

// LimitMemory tells the collector how much memory the process may use; GOMEMLIMIT and GOGC, where they are set, win.
func (c Config) LimitMemory() {
	if c.MemoryBytes == 0 {
		return
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(c.MemoryBytes, leastMemoryBytes) - programBytes)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// calmAfter is how long there must have been nothing to fetch before memory goes back to the machine.
const calmAfter = 10 * time.Second

// giveBack returns to the machine what a fill, or the start, has left in the collector's hands: by itself it would do
// that over minutes, and keep what the next fill might need.
func (n *Node) giveBack(now time.Time) {
	if n.active || n.calm.IsZero() || now.Sub(n.calm) < calmAfter {
		return
	}
	n.calm = time.Time{}
	n.group.Go(func() error {
		n.store.GiveBack()
		debug.FreeOSMemory()
		return nil
	})
}

// The priorities.
const (
	PriorityBackground = "background"
	PriorityNormal     = "normal"
)

// The background's: half-way down for the processor, and of the disk's best-effort class the last. The idle class would
// starve on a machine whose disk is always busy, and with it the lease.
const (
	backgroundNice  = 10
	ioprioBestLast  = 2<<13 | 7 // IOPRIO_CLASS_BE, level 7, see ioprio_set(2)
	ioprioWhoThread = 1         // IOPRIO_WHO_PROCESS, which means a thread
)

// GiveWay puts the whole process in the background if the configuration says so. Priorities are of threads: it sets
// those there are, and new ones inherit from them. Call it at the start. The installer that the daemon starts is in the
// background too; a transaction is not in a hurry.
func (c Config) GiveWay() error {
	if c.Priority != PriorityBackground {
		return nil
	}
	var errs []error
	for range 2 { // a thread started meanwhile by one that was not yet set is found the second time
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil || len(tasks) == 0 {
			return fmt.Errorf("threads of this process: %w", errors.Join(err, os.ErrNotExist))
		}
		errs = errs[:0]
		for _, t := range tasks {
			id, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				continue
			}
			errs = append(errs, giveWay(id))
		}
	}
	return errors.Join(errs...)
}

func giveWay(thread int) error {
	// Only downwards: a service manager may have put us lower.
	if now, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err == nil && 20-now >= backgroundNice {
		// the raw call returns 20 - nice
	} else if err := unix.Setpriority(unix.PRIO_PROCESS, thread, backgroundNice); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("nice of thread %d: %w", thread, err)
	}
	if now, _, e := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoThread, uintptr(thread), 0); e == 0 && now >= ioprioBestLast {
		return nil // last of its class, or idle
	}
	if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoThread, uintptr(thread), ioprioBestLast); e != 0 && e != unix.ESRCH {
		return fmt.Errorf("disk priority of thread %d: %w", thread, e)
	}
	return nil
}
