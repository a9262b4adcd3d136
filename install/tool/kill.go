package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// KillLeft kills what is left of a transaction whose executor is gone, and returns how many processes that were. It
// returns only when none is left, or with ctx's error.
func KillLeft(ctx context.Context, id string) (int, error) {
	if id == "" {
		return 0, nil
	}
	n, err := killAll(ctx, 0, id)
	if err != nil {
		return n, err
	}
	return n, awaitExits(ctx)
}

// awaitExits waits for every process that is ending now: such a one shows its mark no longer, and holds its locks still.
func awaitExits(ctx context.Context) error {
	ps, err := processes("")
	if err != nil {
		return err
	}
	for _, p := range ps {
		for now, ok := p, p.exiting; ok && now.exiting && now.start == p.start; now, ok = look(p.pid, "") {
			select {
			case <-ctx.Done():
				return fmt.Errorf("process %d does not end: %w", p.pid, ctx.Err())
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	return nil
}

// killSession kills what a program began. A process that does not die within the time is left to KillLeft.
func killSession(leader int, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := killAll(ctx, leader, id)
	return err
}

// killAll kills until nobody is left: who is killed may have started another meanwhile.
func killAll(ctx context.Context, leader int, id string) (int, error) {
	killed := map[int]bool{}
	for {
		ps, err := processes(id)
		if err != nil {
			return len(killed), err
		}
		left := family(ps, leader)
		if len(left) == 0 {
			return len(killed), nil
		}
		for _, p := range left {
			if p.kill(id) {
				killed[p.pid] = true
			}
		}
		select {
		case <-ctx.Done():
			return len(killed), fmt.Errorf("%d processes of %s do not end: %w", len(left), id, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// process is one that runs, as /proc shows it.
type process struct {
	pid, parent, session int
	start                string // when it was started, in ticks; with pid it is nobody else
	marked               bool
	exiting              bool
}

// flagExiting is PF_EXITING of the kernel's include/linux/sched.h.
const flagExiting = 0x4

// family are those that carry the mark, those of the leader's session, and all that descend from them: a script may
// empty its environment, but not choose its parent.
func family(ps []process, leader int) []process {
	in := map[int]bool{}
	var out []process
	for grew := true; grew; {
		grew = false
		for _, p := range ps {
			if !in[p.pid] && (p.marked || leader > 1 && (p.session == leader || p.pid == leader) || in[p.parent]) {
				in[p.pid], grew = true, true
				out = append(out, p)
			}
		}
	}
	return out
}

// kill kills a process if it still is the one that was looked at. Kernels before 5.3 have no name for a process but its
// ID, which may go to another between the look and the signal.
func (p process) kill(id string) bool {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if now, ok := look(p.pid, id); !ok || now.start != p.start {
		return false
	}
	if errors.Is(err, unix.ENOSYS) {
		return unix.Kill(p.pid, unix.SIGKILL) == nil
	}
	return err == nil && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// processes lists all that run, but not this one.
func processes(id string) ([]process, error) {
	es, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []process
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if p, ok := look(pid, id); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// look reads proc_pid_stat(5) and proc_pid_environ(5). One that has ended and waits to be collected does not count.
func look(pid int, id string) (process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, false
	}
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before may hold anything
	if len(f) < 20 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return process{}, false
	}
	p := process{pid: pid, start: string(f[19])}
	p.parent, _ = strconv.Atoi(string(f[1]))
	p.session, _ = strconv.Atoi(string(f[3]))
	flags, _ := strconv.ParseUint(string(f[6]), 10, 64)
	p.exiting = flags&flagExiting != 0
	if id != "" {
		env, _ := os.ReadFile(dir + "/environ") // a process of the kernel has none
		for v := range bytes.SplitSeq(env, []byte{0}) {
			p.marked = p.marked || string(v) == Mark+"="+id
		}
	}
	return p, true
}
