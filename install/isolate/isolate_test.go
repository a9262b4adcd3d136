package isolate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/isolate"
	"github.com/patchmesh/patchmesh/install/preflight"
)

// The test binary is its own worker.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(worker(os.Args[2], os.Args[3], os.Args[4:]))
	}
	os.Exit(m.Run())
}

// worker says what it is, and whether it reaches the address it is given, directly and through its parent.
func worker(outside, why string, args []string) int {
	fmt.Println(isolate.Enter(outside, why))
	switch args[0] {
	case "dial":
		conn, err := net.DialTimeout("tcp", args[1], 2*time.Second)
		if err == nil {
			conn.Close()
		}
		fmt.Println("reached:", err == nil)
		udp, err := net.Dial("udp", "192.0.2.1:9")
		if err == nil {
			_, err = udp.Write([]byte("x"))
		}
		fmt.Println("sent:", err == nil)
	case "probe":
		p, err := isolate.Parent()
		if err == nil {
			err = p.Probe(context.Background(), health.Check{Bundle: "pos", URL: args[1], Timeout: time.Second})
		}
		var no *health.UnhealthyError
		fmt.Println("healthy:", err == nil, "answered:", err == nil || errors.As(err, &no))
	case "hooks":
		p, err := isolate.Parent()
		if err != nil {
			return 1
		}
		for _, bundle := range args[1:] {
			d, err := p.Hooks(context.Background(), preflight.Call{Phase: preflight.BeforeInstall, Bundle: bundle, Version: "1.0"})
			if d != nil {
				fmt.Printf("%s: %+v\n", bundle, *d)
			} else {
				fmt.Printf("%s: %v\n", bundle, err)
			}
		}
		fmt.Println("reboot:", p.Reboot(context.Background()))
	case "speak": // anything but the known form
		os.NewFile(4, "requests").WriteString(args[1])
		io.Copy(io.Discard, os.NewFile(3, "replies"))
	case "leave": // something behind that has the worker's pipes
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "replies"), os.NewFile(4, "requests")}
		if err := cmd.Start(); err == nil {
			fmt.Println("left", cmd.Process.Pid)
		}
	case "pass": // what a program started by the worker has open
		if _, err := isolate.Parent(); err != nil {
			fmt.Println(err)
		}
		cmd := exec.Command("/bin/ls", "/proc/self/fd")
		cmd.Stdout = os.Stdout
		cmd.Run()
	case "hang":
		os.NewFile(3, "replies").Read(make([]byte, 1))
	}
	return 7
}

// host is the real health check, with hooks and a start of the machine that only answer.
type host struct {
	health.Runner
	asked  *int
	probed func(health.Check) error
}

func (h host) Probe(ctx context.Context, c health.Check) error {
	*h.asked++
	if h.probed != nil {
		return h.probed(c)
	}
	return h.Runner.Probe(ctx, c)
}

func (h host) Hooks(_ context.Context, c preflight.Call) (*preflight.Deferral, error) {
	*h.asked++
	switch c.Bundle {
	case "open":
		return nil, nil
	case "broken":
		return nil, errors.New("cannot\nbe asked")
	}
	return &preflight.Deferral{Reason: preflight.HookDeferred, Detail: c.Bundle + " " + c.Version + " not\nwhile selling", Retry: 90 * time.Second}, nil
}

func (h host) Reboot(context.Context) error { *h.asked++; return errors.New("no") }

func run(t *testing.T, ctx context.Context, require bool, args ...string) (string, int, error) {
	t.Helper()
	var out bytes.Buffer
	w := isolate.Worker{
		Program: "/proc/self/exe", Args: args, Stdout: &out, Stderr: os.Stderr, Require: require,
		Host: host{Runner: health.Runner{Pause: 10 * time.Millisecond}, asked: new(int)},
	}
	code, err := w.Run(ctx)
	return out.String(), code, err
}

func listener(t *testing.T, answer string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 512))
			io.WriteString(c, answer)
			c.Close()
		}
	}()
	return ln.Addr().String()
}

// Inside, the outside cannot be reached, not even the loopback; the same dial outside reaches it.
func TestNoNetworkInside(t *testing.T) {
	addr := listener(t, "")
	out, code, err := run(t, t.Context(), false, "dial", addr)
	if err != nil || code != 7 {
		t.Fatalf("%d, %v", code, err)
	}
	if !strings.HasPrefix(out, isolate.Isolated) {
		t.Skip("needs network namespaces: run as root, or allow unprivileged user namespaces")
	}
	if !strings.Contains(out, "reached: false") || !strings.Contains(out, "sent: false") {
		t.Errorf("the worker has a network:\n%s", out)
	}
	conn, err := net.Dial("tcp", addr) // the positive control
	if err != nil {
		t.Fatalf("nobody can reach it, so the test proves nothing: %v", err)
	}
	conn.Close()
}

// Through the parent the worker learns whether a service on the loopback is well, and nothing else.
func TestProbeThroughParent(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 204 No Content\r\n\r\n": "healthy: true answered: true",
		"HTTP/1.1 503 No\r\n\r\n":         "healthy: false answered: true",
	} {
		out, code, err := run(t, t.Context(), false, "probe", "http://"+listener(t, answer)+"/")
		if err != nil || code != 7 || !strings.Contains(out, want) {
			t.Errorf("%q: %d, %v\n%s", answer, code, err, out)
		}
	}
	out, _, err := run(t, t.Context(), false, "probe", "http://192.0.2.1/")
	if err != nil || !strings.Contains(out, "healthy: false answered: false") {
		t.Errorf("off the loopback: %v\n%s", err, out)
	}
}

// Hooks and a start of the machine are the parent's business too; what they say comes through, on one line.
func TestHooksThroughParent(t *testing.T) {
	out, _, err := run(t, t.Context(), false, "hooks", "open", "pos", "broken")
	want := `open: <nil>
pos: {Reason:HookDeferred Detail:pos 1.0 not while selling Retry:1m30s}
broken: answer of the parent: cannot be asked
reboot: answer of the parent: no
`
	if err != nil || !strings.HasSuffix(out, want) {
		t.Errorf("%v\n%s", err, out)
	}
}

// What is not of the known form ends the conversation.
func TestParentReadsOneForm(t *testing.T) {
	for _, line := range []string{
		"\n", "GET / HTTP/1.1\n", "check pos 1 0 0 - http://192.0.2.1/\n", "check ../x 1 0 0 - -\n", "check pos 99999999 0 0 - -\n",
		"check pos 1 0 0 - http://127.0.0.1/ more\n", strings.Repeat("x", 10000), "check pos 1 0 0 - file:///etc/passwd\n",
		"check pos 1 0 2 command -\n", "hooks preflight pos\n", "hooks preflight ../x 1\n", "hooks preflight pos 1;reboot\n", "hooks later pos 1\n", "reboot now\n", "shell\n",
	} {
		asked := 0
		err := isolate.Serve(t.Context(), strings.NewReader(line), io.Discard, host{asked: &asked})
		if err == nil || asked > 0 {
			t.Errorf("%.40q is accepted", line)
		}
	}
	if _, _, err := run(t, t.Context(), false, "speak", "hello\n"); err != nil {
		t.Logf("the worker ended with: %v", err)
	}
}

// When the program is asked to end, the worker is asked as well; here it dies of it, and that is told.
func TestEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := run(t, ctx, false, "hang")
	var killed *isolate.SignalError
	if !errors.As(err, &killed) {
		t.Errorf("%v", err)
	}
}

// What the worker leaves behind does not hold up its parent, even with the worker's end of the pipes in its hands.
func TestLeftBehind(t *testing.T) {
	out, code, err := run(t, t.Context(), false, "leave")
	var pid int
	for l := range strings.Lines(out) {
		if n, err := fmt.Sscanf(l, "left %d", &pid); err == nil && n == 1 {
			defer syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err != nil || code != 7 || pid == 0 {
		t.Fatalf("%d, %v\n%s", code, err, out)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("nothing was left behind: %v", err)
	}
}

// What the worker starts has no way to the parent.
func TestWayOutIsNotInherited(t *testing.T) {
	out, code, err := run(t, t.Context(), false, "pass")
	if err != nil || code != 7 {
		t.Fatalf("%d, %v\n%s", code, err, out)
	}
	fds := strings.Fields(out[strings.Index(out, "\n"):]) // after what it says of itself; 3 is the directory that ls reads
	if !slices.Contains(fds, "3") || slices.Contains(fds, "4") {
		t.Errorf("open in a child: %q", fds)
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte("check pos 120 5 30 - http://127.0.0.1:8080/healthz\n"))
	f.Add([]byte("check pos 5 0 0 command -\ncheck pos 0 0 0 - -\n"))
	f.Add([]byte("hooks preflight open 1\nhooks rolled-back pos 1.0-1\nreboot\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		asked := 0
		isolate.Serve(context.Background(), bytes.NewReader(b), &out, host{asked: &asked, probed: func(c health.Check) error {
			if c.Validate() != nil {
				t.Fatalf("%+v is asked", c)
			}
			return errors.New("line one\nline two")
		}})
		if bytes.Count(out.Bytes(), []byte("\n")) != asked {
			t.Fatalf("%d questions, answers %q", asked, out.String())
		}
	})
}
