// Package health asks whether a machine is well with a new release: an HTTP URL on the loopback answers 2xx, and a
// command of the local configuration ends with status 0, both within one time limit. It asks again at an interval
// until the answer is yes, and where that is asked for has been yes for a while without a break, or time is up. It
// leaves no process behind. It never leaves the loopback. A Runner may be
// used from any goroutine.
package health

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Limits of a check.
const (
	MaxTimeout     = 24 * time.Hour // as policies may say
	DefaultTimeout = 2 * time.Minute
	MinInterval    = time.Second
	MaxInterval    = 5 * time.Second
	// maxTry bounds one try of the URL, so that a service that hangs on its first request is asked again.
	maxTry = 10 * time.Second
	// maxTail bounds what is kept of a command's output, in bytes.
	maxTail = 512
)

// Check is what to ask.
type Check struct {
	Bundle  string // handed to the command as MESH_BUNDLE
	URL     string // empty: no URL
	Command bool   // run the command of the local configuration
	Timeout time.Duration
	// Interval is the pause between two questions; 0: a twenty-fourth of the time limit, from MinInterval to MaxInterval.
	Interval time.Duration
	Hold     time.Duration // the answer must be yes for so long without a break; 0: once is enough
}

// Empty reports whether there is nothing to ask.
func (c Check) Empty() bool { return c.URL == "" && !c.Command }

// Validate checks a Check that came through a pipe or a file.
func (c Check) Validate() error {
	if c.Timeout <= 0 || c.Timeout > MaxTimeout {
		return fmt.Errorf("health check timeout %s: want up to %s", c.Timeout, MaxTimeout)
	}
	if c.Hold < 0 || c.Hold > c.Timeout || c.Interval < 0 || c.Interval > c.Timeout {
		return fmt.Errorf("health check every %s, well for %s: want both within the timeout %s", c.Interval, c.Hold, c.Timeout)
	}
	if c.URL == "" {
		return nil
	}
	_, err := parseURL(c.URL)
	return err
}

// Runner asks. It needs the machine's own network, because the service to ask lives there.
type Runner struct {
	Command []string      // program and arguments; absolute path; no shell
	Pause   time.Duration // between two tries, whatever the check says; 0: as the check says
}

// UnhealthyError is the answer no, with what was seen last.
type UnhealthyError struct {
	After time.Duration
	Last  error
}

func (e *UnhealthyError) Error() string {
	return fmt.Sprintf("not healthy within %s: %v", e.After, e.Last)
}

// Unwrap returns what was seen last.
func (e *UnhealthyError) Unwrap() error { return e.Last }

// Probe returns nil as soon as everything that was asked for is well in one round, or has been in every round for as long
// as Hold, *UnhealthyError when time is up, and the context's error when the caller gave up.
func (r Runner) Probe(ctx context.Context, c Check) error {
	if c.Empty() {
		return nil
	}
	if err := c.Validate(); err != nil {
		return err
	}
	pause := r.Pause
	if pause == 0 {
		pause = c.Interval
	}
	if pause == 0 {
		pause = min(max(c.Timeout/24, MinInterval), MaxInterval)
	}
	limited, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var last error
	var since time.Time // well without a break; zero: not well
	for {
		err := r.once(limited, c)
		switch {
		case err != nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		if err == nil && time.Since(since) >= c.Hold {
			return nil
		}
		// A try that was cut off by the end of time says less than the one before it.
		if err != nil && (last == nil || limited.Err() == nil && !timedOut(err)) {
			last = err
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if last == nil {
				last = fmt.Errorf("well for %s only, %s is asked for", time.Since(since).Round(time.Second), c.Hold)
			}
			return &UnhealthyError{c.Timeout, last}
		case <-tick.C:
		}
	}
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (r Runner) once(ctx context.Context, c Check) error {
	if c.URL != "" {
		try, cancel := context.WithTimeout(ctx, maxTry)
		defer cancel()
		if err := get(try, c.URL); err != nil {
			return fmt.Errorf("%s: %w", c.URL, err)
		}
	}
	if c.Command {
		return r.command(ctx, c.Bundle)
	}
	return nil
}

// command runs the local command in a process group of its own, which is killed whole when time is up. Should this
// program be killed itself, the command dies as well.
func (r Runner) command(ctx context.Context, bundle string) error {
	if len(r.Command) == 0 {
		return errors.New("no health command is configured")
	}
	cmd := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...)
	cmd.Env = append(os.Environ(), "MESH_BUNDLE="+bundle)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a grandchild that left the group may hold the output open
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("health command %s: %w: %s", r.Command[0], err, out.String())
	}
	return nil
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > maxTail {
		t.b = append([]byte(nil), t.b[len(t.b)-maxTail:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(t.b), "?")), " ")
}
