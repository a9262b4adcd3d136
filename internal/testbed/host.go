package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// Namespace is the name of a host's network namespace, for "ip netns exec".
func (b *Bed) Namespace(host string) string { return b.guard.namespace(host) }

// Inside runs f in a host: the sockets that f opens and the processes that it starts belong there, for good. f must
// not leave that to other goroutines.
func (b *Bed) Inside(host string, f func() error) error {
	return inside(b.guard.namespace(host), f)
}

// Exec starts a command in a host. It runs there until it ends by itself or the bed goes down; the caller waits for
// it as for any command that was started.
func (b *Bed) Exec(host string, cmd *exec.Cmd) error { return b.Inside(host, cmd.Start) }

// Kill ends every process in a host with SIGKILL and waits until they are gone, Stop and Cont freeze and thaw them:
// the programs are still there, and silent.
func (b *Bed) Kill(host string) error { return empty(b.guard.namespace(host)) }
func (b *Bed) Stop(host string) error { return b.signal(host, unix.SIGSTOP) }
func (b *Bed) Cont(host string) error { return b.signal(host, unix.SIGCONT) }

func (b *Bed) signal(host string, sig unix.Signal) error {
	pids, err := processes(b.guard.namespace(host))
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("host %s: nothing runs in it", host)
	}
	for _, p := range pids {
		if err := unix.Kill(p, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("host %s: signal process %d: %w", host, p, err)
		}
	}
	return nil
}

// processes lists those in a namespace, dead ones that nobody has waited for excepted. This process and its parent
// are never among them: one of their threads may be there for a moment.
func processes(namespace string) (pids []int, err error) {
	var ns unix.Stat_t
	if err := unix.Stat(mountOf(namespace), &ns); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+name+"/ns/net", &st) == nil && st.Ino == ns.Ino && st.Dev == ns.Dev { // of a zombie there is none
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
