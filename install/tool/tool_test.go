package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// helper makes the test binary an executor that runs a script and waits for it.
const helper = "TOOL_TEST_SCRIPT"

func TestMain(m *testing.M) {
	if script := os.Getenv(helper); script != "" {
		_, err := Runner{ID: os.Getenv("TOOL_TEST_ID")}.Run(context.Background(), Command{Path: "sh", Args: []string{"-c", script}})
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// family4 starts, beside itself, one process in a session of its own, one whose parent has ended (with an environment),
// one that has emptied its environment, and tells their IDs in a file.
const family4 = `
setsid sh -c 'echo $$ >>FILE; exec sleep 1000' &
(setsid sh -c 'echo $$ >>FILE; exec sleep 1000' &)
env -i sh -c 'echo $$ >>FILE; exec sleep 1000' &
echo $$ >>FILE
wait`

// started waits until a script has told n IDs.
func started(t *testing.T, file string, n int) (pids []int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		if f := strings.Fields(string(b)); len(f) == n && bytes.HasSuffix(b, []byte("\n")) {
			for _, s := range f {
				pid, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			return pids
		}
	}
	t.Fatal("the script did not start")
	return nil
}

// running counts those that are alive.
func running(pids []int) (n int) {
	for _, p := range pids {
		if _, ok := look(p, ""); ok {
			n++
		}
	}
	return n
}

// end kills what a test left.
func end(t *testing.T, pids []int) {
	t.Helper()
	for _, p := range pids {
		if _, ok := look(p, ""); ok {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
	}
}

func id(t *testing.T) string { return fmt.Sprintf("test-%s-%d", filepath.Base(t.Name()), os.Getpid()) }

func TestResult(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		want         Result
	}{
		{"both streams", "echo one; echo two >&2", Result{Stdout: []byte("one\n"), Stderr: []byte("two\n")}},
		{"status", "exit 3", Result{Exit: 3}},
		{"signal", "kill -TERM $$", Result{Exit: -1, Signal: syscall.SIGTERM}},
		{"no input", "cat; echo $?", Result{Stdout: []byte("0\n")}},
		{"directory", "pwd", Result{Stdout: []byte("/\n")}},
		{"session of its own", `set -- $(cat /proc/$$/stat); test $6 = $$ && echo yes`, Result{Stdout: []byte("yes\n")}},
		{"no descriptor of ours", "exec ls /proc/self/fd", Result{Stdout: []byte("0\n1\n2\n3\n")}}, // the last is the directory
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := Runner{ID: id(t)}.Run(t.Context(), Command{Path: "sh", Args: []string{"-c", c.script}})
			if err != nil {
				t.Fatal(err)
			}
			got.Both = nil
			if diff := cmp.Diff(c.want, got, cmp.Comparer(bytes.Equal)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEnvironmentIsFixed(t *testing.T) {
	t.Setenv("LD_PRELOAD_NOT", "/tmp/evil.so")
	t.Setenv("PATH", "/tmp:"+os.Getenv("PATH"))
	got, err := Runner{ID: "e-1", Env: []string{"OF=runner"}}.Run(t.Context(), Command{Path: "env", Env: []string{"OF_COMMAND=1"}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(got.Stdout)), "\n")
	slices.Sort(lines)
	want := []string{"APT_LISTCHANGES_FRONTEND=none", "DEBCONF_NONINTERACTIVE_SEEN=true", "DEBIAN_FRONTEND=noninteractive", "HOME=/root",
		"LANGUAGE=", "LC_ALL=C.UTF-8", "NEEDRESTART_SUSPEND=1", "OF=runner", "OF_COMMAND=1", "PATCHMESH_TRANSACTION=e-1", "PATH=" + searchPath, "TZ=UTC"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestOutputInOrderAndBounded(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	got, err := Runner{ID: id(t), Out: &log}.Run(t.Context(), Command{Path: "sh", Args: []string{"-c",
		"echo first; sleep 0.05; echo second >&2; sleep 0.05; echo third"}})
	if err != nil || string(got.Both) != "first\nsecond\nthird\n" || log.String() != string(got.Both) {
		t.Errorf("%v: %q, log %q", err, got.Both, &log)
	}
	got, err = Runner{ID: id(t)}.Run(t.Context(), Command{Path: "sh", Args: []string{"-c",
		fmt.Sprintf("yes begun | head -c 6000; yes 1234567 | head -c %d; echo at the end", MaxOutput-2000)}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Stdout) != MaxOutput || got.Dropped != 4000+11 || !bytes.HasSuffix(got.Stdout, []byte("1234567\nat the end\n")) || !bytes.HasSuffix(got.Both, []byte("at the end\n")) {
		t.Errorf("kept %d bytes, dropped %d, ends in %q", len(got.Stdout), got.Dropped, got.Stdout[len(got.Stdout)-30:])
	}
}

type fullLog struct{}

func (fullLog) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestLogThatIsFullStopsNothing(t *testing.T) {
	t.Parallel()
	got, err := Runner{ID: id(t), Out: fullLog{}}.Run(t.Context(), Command{Path: "echo", Args: []string{"on"}})
	if err != nil || string(got.Stdout) != "on\n" {
		t.Errorf("%q, %v", got.Stdout, err)
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"no-such-program", "/no/such/program", "/etc/passwd"} {
		if got, err := (Runner{ID: id(t)}).Run(t.Context(), Command{Path: path}); err == nil || got.Exit != -1 || errors.Is(err, ErrKilled) {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Runner{ID: id(t)}).Run(ctx, Command{Path: "true"}); !errors.Is(err, ErrKilled) || !errors.Is(err, context.Canceled) {
		t.Errorf("context that had ended: %v", err)
	}
	if Has("no-such-program") || !Has("sh") {
		t.Error("Has")
	}
}

func TestContextEndsTheFamily(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := Runner{ID: id(t)}.Run(ctx, Command{Path: "sh", Args: []string{"-c", strings.ReplaceAll(family4, "FILE", file)}})
		ended <- err
	}()
	pids := started(t, file, 4)
	defer end(t, pids)
	if n := running(pids); n != 4 {
		t.Fatalf("%d of 4 run", n)
	}
	cancel()
	if err := <-ended; !errors.Is(err, ErrKilled) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := running(pids); n != 0 {
		t.Errorf("%d processes live on", n)
	}
}

// TestGroupIsNotEnough is the control: what everybody does, killing the process group, leaves two of the four.
func TestGroupIsNotEnough(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	cmd := exec.Command("sh", "-c", strings.ReplaceAll(family4, "FILE", file))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := started(t, file, 4)
	defer end(t, pids)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	if n := running(pids); n < 2 {
		t.Errorf("%d live on: the family is too easy to kill", n)
	}
}

func TestTimeEndsTheFamily(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	// The time runs out whether or not the family is complete; whoever has told its ID must be gone.
	_, err := Runner{ID: id(t), Max: 300 * time.Millisecond}.Run(t.Context(), Command{Path: "sh", Args: []string{"-c", strings.ReplaceAll(family4, "FILE", file)}})
	if !errors.Is(err, ErrKilled) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if ps, err := processes(id(t)); err != nil || len(family(ps, 0)) > 0 {
		t.Errorf("%v live on, %v", family(ps, 0), err)
	}
}

// TestKillLeft kills an executor with -9 in the middle and has the next one clean up.
func TestKillLeft(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	executor := exec.Command("/proc/self/exe")
	executor.Env = append(os.Environ(), helper+"="+strings.ReplaceAll(family4, "FILE", file), "TOOL_TEST_ID="+id(t))
	if err := executor.Start(); err != nil {
		t.Fatal(err)
	}
	pids := started(t, file, 4)
	defer end(t, pids)

	// Strangers: no mark, the mark of another transaction, of one whose ID begins alike, and one that only names it.
	var strangers []int
	for _, env := range []string{"A=1", Mark + "=another", Mark + "=" + id(t) + "0", "A=" + Mark + "=" + id(t)} {
		s := exec.Command("sleep", "1000", Mark+"="+id(t))
		s.Args = []string{"sleep", "1000"}
		s.Env = []string{env}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, s.Process.Pid)
		defer func() { _, _ = s.Process.Kill(), s.Wait() }()
	}

	if err := executor.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = executor.Wait()
	// The control: without KillLeft some of the family work on while the next executor looks at the machine.
	if n := running(pids); n == 0 {
		t.Fatal("nobody was left: the test shows nothing")
	}
	n, err := KillLeft(t.Context(), id(t))
	if err != nil || n == 0 {
		t.Errorf("killed %d, %v", n, err)
	}
	left := slices.DeleteFunc(slices.Clone(pids), func(p int) bool { _, ok := look(p, ""); return !ok })
	for _, p := range left {
		// One emptied its environment and lost its parent: nothing says any more whose it was.
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p)); err == nil && bytes.Contains(env, []byte(Mark)) {
			t.Errorf("process %d of the transaction lives on", p)
		}
	}
	if len(left) > 1 {
		t.Errorf("%d of the family live on", len(left))
	}
	if n := running(strangers); n != len(strangers) {
		t.Errorf("%d of %d strangers live", n, len(strangers))
	}
	if n, err := KillLeft(t.Context(), id(t)); n != 0 || err != nil {
		t.Errorf("a second time: %d, %v", n, err)
	}
	if n, err := KillLeft(t.Context(), ""); n != 0 || err != nil {
		t.Errorf("no ID: %d, %v", n, err)
	}
}

func TestFamily(t *testing.T) {
	t.Parallel()
	ps := []process{
		{pid: 1}, {pid: 10, parent: 1, session: 10}, {pid: 11, parent: 10, session: 10}, // a session
		{pid: 20, parent: 1, session: 20, marked: true}, {pid: 31, parent: 30, session: 31}, {pid: 30, parent: 20, session: 30}, // a mark, a child's child listed first
		{pid: 40, parent: 1, session: 1}, // nobody's
	}
	ids := func(ps []process) (out []int) {
		for _, p := range ps {
			out = append(out, p.pid)
		}
		slices.Sort(out)
		return out
	}
	for leader, want := range map[int][]int{0: {20, 30, 31}, 10: {10, 11, 20, 30, 31}, 1: {20, 30, 31}} {
		if diff := cmp.Diff(want, ids(family(ps, leader))); diff != "" {
			t.Errorf("leader %d: %s", leader, diff)
		}
	}
}

// A service that a script starts keeps its output open for ever: Run comes back, and the service lives.
func TestServiceHoldsTheOutput(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	got, err := Runner{ID: id(t)}.Run(t.Context(), Command{Path: "sh", Args: []string{"-c",
		strings.ReplaceAll("(setsid sh -c 'echo $$ >>FILE; exec sleep 1000' &); while ! test -s FILE; do :; done; echo done", "FILE", file)}})
	if err != nil || got.Exit != 0 || string(got.Stdout) != "done\n" {
		t.Errorf("%+v, %v", got, err)
	}
	pids := started(t, file, 1)
	defer end(t, pids)
	if running(pids) != 1 {
		t.Error("the service was killed although the program had ended well")
	}
	if n, err := KillLeft(t.Context(), id(t)); n != 1 || err != nil {
		t.Errorf("killed %d, %v", n, err)
	}
}

// TestNothingIsLeft counts descriptors and goroutines around many runs; alone, so that the counts are its own.
func TestNothingIsLeft(t *testing.T) {
	count := func() (int, int) {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(es), runtime.NumGoroutine()
	}
	r := Runner{ID: id(t)}
	_, _ = r.Run(t.Context(), Command{Path: "true"}) // what the runtime opens once
	fds, goroutines := count()
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		_, _ = r.Run(ctx, Command{Path: "sh", Args: []string{"-c", "setsid sleep 0.01 & sleep 0.01; exit 1"}})
		cancel()
	}
	if n, err := KillLeft(t.Context(), r.ID); err != nil {
		t.Error(n, err)
	}
	f, g := count()
	for range 1000 { // one that has done its work may not have returned yet
		if g <= goroutines {
			break
		}
		runtime.Gosched()
		f, g = count()
	}
	if f != fds || g > goroutines {
		t.Errorf("descriptors %d, then %d; goroutines %d, then %d", fds, f, goroutines, g)
	}
}
