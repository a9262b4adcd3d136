package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/isolate"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "mesh-install-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "mesh-install")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// do runs the program and decodes its result.
func do(t *testing.T, b *installtest.Bench, args ...string) install.Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(binary, append(args, "--config", b.ConfigFile, "--json")...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r, derr := install.DecodeResult(stdout.Bytes())
	if derr != nil {
		t.Fatalf("%v: %v, %v\n%s%s", args, err, derr, stdout.String(), stderr.String())
	}
	if r.Exit != cmd.ProcessState.ExitCode() {
		t.Fatalf("%v: exit status %d, the result says %d", args, cmd.ProcessState.ExitCode(), r.Exit)
	}
	return r
}

func spec(version string, sequence uint64) installtest.Spec {
	return installtest.Spec{Name: "pos", Version: version, Sequence: sequence, Files: map[string]string{
		"version": version + "\n", "bin/run.sh": "#!/bin/sh\necho " + version + "\n", "data": strings.Repeat(version+" ", 600),
	}}
}

func inForce(t *testing.T, b *installtest.Bench, want *installtest.Bundle, all ...*installtest.Bundle) {
	t.Helper()
	got, err := b.InForce("pos", append(all, want)...)
	if err != nil || got != want {
		t.Fatalf("in force is %v (%v), want %s", got, err, want.Version)
	}
}

func TestProgram(t *testing.T) {
	b := installtest.New(t, nil)
	v1, v2 := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	r := do(t, b, "apply", "--request", b.WriteRequest(t, v1, installtest.Want{}))
	if r.Exit != 0 || r.Reason != install.ReasonInstalled {
		t.Fatalf("%+v", r)
	}
	if r.Isolation != isolate.Isolated && !strings.HasPrefix(r.Isolation, "none: ") {
		t.Errorf("isolation %q", r.Isolation)
	}
	inForce(t, b, v1)
	if r = do(t, b, "apply", "--request", b.WriteRequest(t, v2, installtest.Want{})); r.Exit != 0 || r.Previous.Version != "1" {
		t.Fatalf("%+v", r)
	}
	if r = do(t, b, "rollback", "pos"); r.Exit != 0 || r.Version != "1" {
		t.Fatalf("%+v", r)
	}
	inForce(t, b, v1, v2)
	if r = do(t, b, "apply", "--request", b.WriteRequest(t, v2, installtest.Want{})); r.Exit != install.ExitRolledBack {
		t.Fatalf("what was rolled back by hand comes back by itself: %+v", r)
	}
	if r = do(t, b, "retry", "pos"); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	if r = do(t, b, "apply", "--request", b.WriteRequest(t, v2, installtest.Want{})); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	if r = do(t, b, "recover"); r.Exit != 0 || r.Reason != install.ReasonNothingToDo {
		t.Fatalf("%+v", r)
	}
	out, err := exec.Command(binary, "status", "--config", b.ConfigFile).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "pos     2        2") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = exec.Command(binary, "status", "--config", b.ConfigFile, "--json").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"kind": "InstallStatus"`) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Wrong use changes nothing, says so with a code, and is a deferral.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		exit int
		says string
	}{
		{"help", 0, "Exit status"},
		{"apply --help", 0, "Exit status"},
		{"version", 0, "mesh-install"},
		{"", 1, "E1001"},
		{"frobnicate", 1, "E1001"},
		{"apply", 1, "E1001"},
		{"apply --request", 1, "E1001"},
		{"apply x --request y", 1, "E1001"},
		{"rollback", 1, "E1001"},
		{"rollback a b", 1, "E1001"},
		{"recover a", 1, "E1001"},
		{"status --config /nonexistent.yaml", 1, "E1002"},
		{"worker", 1, "E1001"},
	} {
		var out, talk bytes.Buffer
		if exit := run(t.Context(), strings.Fields(c.args), &out, &talk); exit != c.exit || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit %d, %s", c.args, exit, out.String())
		}
	}
}

// A request file is written by a less privileged user: it is not followed out of its place, and it need not end.
func TestRequestFile(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1", 1))
	good := b.WriteRequest(t, v, installtest.Want{})
	link := filepath.Join(b.Dir, "link.json")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(b.Dir, "big.json")
	if err := os.WriteFile(big, bytes.Repeat([]byte(" "), install.MaxRequestBytes+1), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, big, "/dev/zero", b.Dir, filepath.Join(b.Dir, "absent")} {
		if r := do(t, b, "apply", "--request", name); r.Exit != 1 || r.Code != "E1002" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := do(t, b, "apply", "--request", good); r.Exit != 0 {
		t.Errorf("%+v", r)
	}
}

// The health command runs outside the namespace, where the machine's services are, and its process group dies with
// the time limit.
func TestHealthOutside(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "netns.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nreadlink /proc/self/ns/net > "+dir+"/seen\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := installtest.New(t, func(c *install.Config) { c.Health.Command = []string{script} })
	v := b.Bundle(t, spec("1", 1))
	if r := do(t, b, "apply", "--request", b.WriteRequest(t, v, installtest.Want{})); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	seen, err := os.ReadFile(filepath.Join(dir, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(seen)); got != own {
		t.Errorf("the command ran in %s, the machine's network is %s", got, own)
	}
}

// Two at once: one works, the other says Locked and leaves no trace.
func TestTwoAtOnce(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "wait.sh") // the check blocks on a fifo, so the first run holds the lock for sure
	fifo := filepath.Join(dir, "go")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread x < "+fifo+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := installtest.New(t, func(c *install.Config) { c.Health.Command = []string{script} })
	v := b.Bundle(t, spec("1", 1))
	req := b.WriteRequest(t, v, installtest.Want{})
	first := exec.Command(binary, "apply", "--request", req, "--config", b.ConfigFile, "--json")
	var out bytes.Buffer
	first.Stdout, first.Stderr = &out, io.Discard
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns when the script reads: the first one is in its check
	if err != nil {
		t.Fatal(err)
	}
	if r := do(t, b, "apply", "--request", req); r.Exit != 1 || r.Reason != install.ReasonLocked {
		t.Errorf("%+v", r)
	}
	if _, err := io.WriteString(w, "go\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := first.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	inForce(t, b, v)
}

// Where the kernel allows no namespace, the program says so, or refuses if it is told to.
func TestNoNamespace(t *testing.T) {
	const none = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\""
	if err := exec.Command("unshare", "-Ur", "sh", "-c", none, "sh", "true").Run(); err != nil {
		t.Skip("needs user namespaces: run as root, or allow unprivileged ones")
	}
	for isolation, want := range map[string]string{install.IsolationAuto: "success 0", install.IsolationRequired: "deferred 1"} {
		b := installtest.New(t, func(c *install.Config) { c.Isolation = isolation })
		v := b.Bundle(t, spec("1", 1))
		cmd := exec.Command("unshare", "-Ur", "sh", "-c", none, "sh", binary, "apply", "--request", b.WriteRequest(t, v, installtest.Want{}), "--config", b.ConfigFile, "--json")
		out, _ := cmd.Output() // the status is in the result
		r, err := install.DecodeResult(out)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := fmt.Sprintf("%s %d", r.Outcome, cmd.ProcessState.ExitCode()); got != want {
			t.Errorf("isolation %s: %s: %+v", isolation, got, r)
		}
		if isolation == install.IsolationAuto && !strings.HasPrefix(r.Isolation, "none: ") {
			t.Errorf("it says %q without a namespace", r.Isolation)
		}
		if isolation == install.IsolationRequired && r.Code != "E5104" {
			t.Errorf("%+v", r)
		}
	}
}

// A parent that dies takes its worker with it; the next run takes up what is left.
func TestParentDies(t *testing.T) {
	dir := t.TempDir()
	fifo, script := filepath.Join(dir, "here"), filepath.Join(dir, "here.sh")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\nif [ -p "+fifo+" ]; then echo $PPID > "+fifo+"; exec sleep 1000; fi\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := installtest.New(t, func(c *install.Config) { c.Health.Command = []string{script} })
	v := b.Bundle(t, spec("1", 1))
	req := b.WriteRequest(t, v, installtest.Want{})
	cmd := exec.Command(binary, "apply", "--request", req, "--config", b.ConfigFile, "--json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(fifo); err != nil { // returns when the command has written: the worker waits for its answer
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	os.Remove(fifo)
	// The lock is free as soon as the worker is gone, which the kernel sees to.
	var r install.Result
	for range 1000 {
		if r = do(t, b, "apply", "--request", req); r.Reason != install.ReasonLocked {
			break
		}
	}
	if r.Exit != 0 || !strings.Contains(r.Recovered, "cut off before check: success") {
		t.Errorf("%+v", r)
	}
	inForce(t, b, v)
}
