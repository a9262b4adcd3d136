package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Proc is a daemon that runs in the background. Its output goes to log/NAME.log in the lab's directory.
type Proc struct {
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and was waited for
	err  error         // how it ended; read it after done
}

// Start starts a daemon on a host, which is also the name of its log. It runs until it is stopped or killed, or the lab is closed.
func (l *Lab) Start(host, program string, args ...string) (*Proc, error) {
	if err := os.MkdirAll(l.Path("log"), 0o755); err != nil {
		return nil, err
	}
	logName := l.Path("log", host+".log")
	f, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(filepath.Join(l.Bin, program), args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = l.env, l.Dir, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a group of its own, so that a kill takes its children along
	p := &Proc{log: logName, cmd: cmd, done: make(chan struct{})}

	err = l.launch(host, cmd, func() {
		l.work.Go(func() {
			p.err = cmd.Wait()
			close(p.done)
		})
		l.procs = append(l.procs, p)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// launch starts a command and does what belongs to that, unless the lab is closed.
func (l *Lab) launch(host string, cmd *exec.Cmd, then func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("start %s: the lab is closed", filepath.Base(cmd.Path))
	}
	if err := l.ground.Start(host, cmd); err != nil {
		return fmt.Errorf("start %s on %s: %w", filepath.Base(cmd.Path), host, err)
	}
	then()
	return nil
}

// Running reports whether the process has not ended.
func (p *Proc) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process and its children as a power cut would, and waits until it is gone.
func (p *Proc) Kill() {
	if p.Running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended meanwhile
	}
	<-p.done
}

// patience is how long a daemon may take to stop when it is asked to.
const patience = 20 * time.Second

// Stop asks the process to end, and returns an error if it does not or ends with another status than 0 and 130.
func (p *Proc) Stop(ctx context.Context) error {
	if p.Running() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended meanwhile
	}
	return p.await(ctx)
}

// await waits until the process has ended by itself.
func (p *Proc) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 && code != 130 {
			return fmt.Errorf("%s ended with %w", filepath.Base(p.log), p.err)
		}
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not stop: %w", filepath.Base(p.log), ctx.Err())
	}
}

// PID is the process's number.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Log returns everything that the process and its predecessors of the same name have written.
func (p *Proc) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// ended is the error for a process that should be running.
func (p *Proc) ended() error {
	lines := strings.Split(strings.TrimSpace(p.Log()), "\n")
	return fmt.Errorf("%s ended: %s: %s", filepath.Base(p.log), p.cmd.ProcessState, strings.Join(lines[max(0, len(lines)-3):], " | "))
}
