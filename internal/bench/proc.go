package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// proc is a process in a host of the bed. Its output goes to a file.
type proc struct {
	name  string
	cmd   *exec.Cmd
	done  chan struct{} // closed when it has ended; then ended and err may be read
	ended time.Time
	err   error
}

// crew starts processes in hosts, each with limits, and ends them. One goroutine uses it.
type crew struct {
	bed   *testbed.Bed
	dir   string // working directory of all, and of their logs
	procs []*proc
	work  sync.WaitGroup
}

// start starts a program in a host. args are its arguments, env is added to the environment.
func (c *crew) start(host, name string, env []string, program string, args ...string) (*proc, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &proc{name: name, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.dir, log, log
	p.cmd.Env = append(append(os.Environ(), "HOME="+c.dir), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.bed.Exec(host, p.cmd); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", program, host, err)
	}
	c.procs = append(c.procs, p)
	c.work.Go(func() {
		p.err = p.cmd.Wait()
		p.ended = time.Now()
		close(p.done)
	})
	return p, limit(p.cmd.Process.Pid)
}

// end kills what is left and waits for all.
func (c *crew) end() {
	for _, p := range c.procs {
		p.kill()
	}
	c.work.Wait()
	c.procs = nil
}

// keepLogs copies what the programs said, for a person who asks why.
func (c *crew) keepLogs(dir string) error {
	if dir == "" {
		return nil
	}
	logs, err := filepath.Glob(filepath.Join(c.dir, "*.log"))
	if err != nil {
		return err
	}
	to := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", filepath.Base(c.dir), c.bed.Name(), time.Now().UnixMilli()))
	err = os.MkdirAll(to, 0o755)
	for _, name := range logs {
		b, rerr := os.ReadFile(name)
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(to, filepath.Base(name)), b, 0o644))
	}
	return err
}

func (p *proc) kill() {
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended meanwhile
	}
}

func (p *proc) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// usage of the process so far; of one that has ended, in all.
func (p *proc) usage() (usage, error) {
	if p.running() {
		if u, err := readUsage(p.cmd.Process.Pid); err == nil && u.peak > 0 {
			return u, nil
		}
	}
	<-p.done
	r, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return usage{}, fmt.Errorf("%s: no usage known", p.name)
	}
	return usage{cpu: p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), peak: r.Maxrss << 10}, nil
}

// usage is what a process has taken.
type usage struct {
	cpu       time.Duration
	peak, now int64 // resident bytes
}

// ticksPerSecond of the times in /proc: USER_HZ, 100 on every architecture of Linux.
const ticksPerSecond = 100

// readUsage reads a running process's.
func readUsage(pid int) (u usage, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, err
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the name may hold anything, but it ends here
	f := strings.Fields(after)
	if len(f) < 13 {
		return u, fmt.Errorf("%s/stat: %d fields", dir, len(f))
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64) // proc_pid_stat(5): utime is the 14th, stime the 15th
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	u.cpu = time.Duration(user+system) * time.Second / ticksPerSecond
	kb := func(name string) int64 {
		n, _ := strconv.ParseInt(strings.TrimSuffix(field(string(status), name), " kB"), 10, 64)
		return n << 10
	}
	u.peak, u.now = kb("VmHWM"), kb("VmRSS")
	return u, errors.Join(err1, err2)
}

// resetPeak makes a process's peak of resident memory what it is now (proc_pid_clear_refs(5)).
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// limit bounds what a process may take of the machine, should it go wrong.
func limit(pid int) error {
	for what, most := range map[int]uint64{
		unix.RLIMIT_CPU: 600, unix.RLIMIT_DATA: 4 << 30, unix.RLIMIT_FSIZE: 8 << 30, unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: 16384,
	} {
		err := unix.Prlimit(pid, what, &unix.Rlimit{Cur: most, Max: most}, nil)
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended already
			return fmt.Errorf("limits of process %d: %w", pid, err)
		}
	}
	return nil
}

// limited is a harness's ground whose programs are bounded in the same way.
type limited struct{ harness.Ground }

// Start implements harness.Ground.
func (l limited) Start(host string, cmd *exec.Cmd) error {
	if err := l.Ground.Start(host, cmd); err != nil {
		return err
	}
	return limit(cmd.Process.Pid)
}
