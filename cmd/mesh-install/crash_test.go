package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/isolate"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/grant"
)

// The crash tests run the real worker under strace and cut it off, or make one call fail, at every file system call
// in turn. Whatever happens, the link must show one release, whole, at once; and after "recover" and another "apply"
// the machine must be where it would have been. The short form takes every call that changes a name and a sample of
// the others; PATCHMESH_LONG=1 takes all.

// naming calls change what a name means, so the short form leaves none of them out.
var naming = []string{"renameat", "renameat2", "rename", "symlinkat", "symlink", "unlinkat", "mkdirat", "mkdir"}

// others are opened, written and flushed by; mode and lock change too.
var others = []string{"openat", "write", "pwrite64", "fsync", "fchmod", "fchmodat", "flock", "getdents64", "readlinkat", "newfstatat", "close"}

// scene is a machine before a run, and what must come of the run.
type scene struct {
	bench *installtest.Bench
	args  []string
	well  func(context.Context, health.Check) error
	// before and after are what may be in force at any instant, in that order in time; nil is nothing. final is what
	// must be in force in the end, when the worker was run again until it is done.
	before, after, final *installtest.Bundle
	all                  []*installtest.Bundle
	request              string
	granted              grant.Grant // by which the request starts; the floor of grants must be up before anything is done
	midway               bool        // the link names the new release before the run
	naive                []string    // run this program instead
}

func yes(context.Context, health.Check) error { return nil }

func no(_ context.Context, c health.Check) error {
	return &health.UnhealthyError{After: c.Timeout, Last: errors.New("not well")}
}

// dirs of a bench that a run changes.
func (s *scene) dirs() []string { return []string{s.bench.Config.Root, s.bench.Config.State} }

// again runs the executor in this process: what comes after a crash needs no strace.
func (s *scene) again(t *testing.T, verb string) install.Result {
	t.Helper()
	in := &install.Installer{
		Config: s.bench.Config, Host: installtest.Host{Well: s.well}, Providers: install.Providers(s.bench.Config), Isolation: "none: test", Built: installtest.Created, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	switch verb {
	case "recover":
		return in.Recover(t.Context())
	case "rollback":
		return in.Rollback(t.Context(), "pos")
	}
	req, err := install.ReadRequest(s.request)
	if err != nil {
		t.Fatal(err)
	}
	return in.Apply(t.Context(), req)
}

// run runs the worker under strace with injections, one a line. It returns the exit status, -1 for a death by signal.
func (s *scene) run(t *testing.T, trace, inject string) (exit int, result install.Result, log string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "trace")
	args := []string{"-f", "-b", "execve", "-qq", "-o", file, "-e", "trace=" + trace} // programs that it starts are let go
	for line := range strings.Lines(inject) {
		args = append(args, "-e", "inject="+strings.TrimSpace(line))
	}
	var stdout, stderr bytes.Buffer
	var cmd *exec.Cmd
	var group errgroup.Group
	if s.naive != nil {
		cmd = exec.Command("strace", append(args, s.naive...)...)
	} else {
		toParent, requests, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		replies, toWorker, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command("strace", append(args, append([]string{binary, "worker", "outside", "-"}, s.args...)...)...)
		cmd.ExtraFiles = []*os.File{replies, requests}
		group.Go(func() error {
			defer toWorker.Close()
			defer toParent.Close()
			return isolate.Serve(t.Context(), toParent, toWorker, installtest.Host{Well: s.well})
		})
		defer func() {
			if err := group.Wait(); err != nil && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
		}()
		defer replies.Close()
		defer requests.Close()
	}
	cmd.Env = []string{"GOMAXPROCS=1"}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	b, rerr := os.ReadFile(file)
	if rerr != nil {
		t.Fatalf("strace left no trace: %v\n%s", errors.Join(err, rerr), stderr.String())
	}
	exit = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit = -1
	}
	result, err = install.DecodeResult(stdout.Bytes())
	if err != nil {
		result = install.Result{}
	}
	return exit, result, string(b)
}

// count returns, for one system call, the largest number of calls by one thread: strace counts each thread apart.
func count(log, call string) int {
	threads, most := map[string]int{}, 0
	for line := range strings.Lines(log) {
		pid, rest, _ := strings.Cut(line, " ")
		if strings.HasPrefix(strings.TrimSpace(rest), call+"(") {
			threads[pid]++
			most = max(most, threads[pid])
		}
	}
	return most
}

// enumerate goes through the calls and returns how many runs were made and what went wrong.
func (s *scene) enumerate(t *testing.T, all bool, faults []string) (runs, hits int, wrong []string) {
	t.Helper()
	template := t.TempDir()
	for i, d := range s.dirs() {
		installtest.CopyTree(t, d, filepath.Join(template, fmt.Sprint(i)))
	}
	restore := func() {
		for i, d := range s.dirs() {
			installtest.CopyTree(t, filepath.Join(template, fmt.Sprint(i)), d)
		}
	}
	calls := append(append([]string{}, naming...), others...)
	_, _, log := s.run(t, strings.Join(calls, ","), "")
	for _, call := range calls {
		n := count(log, call)
		step := 1
		if !all && len(naming) <= indexOf(calls, call) {
			step = max(1, n/4)
		}
		for _, fault := range faults {
			for k := 1; k <= n; k += step {
				restore()
				where := fmt.Sprintf("%s:%s:when=%d", call, fault, k)
				exit, result, log := s.run(t, call, where)
				runs++
				if exit == -1 || strings.Contains(log, "(INJECTED)") {
					hits++
				}
				for _, w := range s.judge(t, exit, result) {
					wrong = append(wrong, where+": "+w)
				}
			}
		}
	}
	restore()
	return runs, hits, wrong
}

func indexOf(list []string, s string) int {
	for i, v := range list {
		if v == s {
			return i
		}
	}
	return -1
}

// judge is the oracle.
func (s *scene) judge(t *testing.T, exit int, result install.Result) (wrong []string) {
	t.Helper()
	bad := func(f string, a ...any) { wrong = append(wrong, fmt.Sprintf(f, a...)) }
	now, err := s.bench.InForce("pos", s.all...)
	if err != nil {
		bad("at once: %v", err)
	} else if now != s.before && now != s.after {
		bad("at once: %s is in force", version(now))
	}
	if s.naive != nil {
		return wrong
	}
	if late := s.floorLate(t, now); late != "" {
		bad("at once: %s", late)
	}
	if result.Outcome != "" && exit != result.Exit {
		bad("exit status %d, the result says %d", exit, result.Exit)
	}
	if exit == 0 && now != s.after || !s.midway && exit > 0 && exit < 5 && result.Reason != install.ReasonInterrupted && s.after != s.before && now != s.before {
		bad("exit status %d (%s, %s) and %s is in force", exit, result.Reason, result.Detail, version(now))
	}
	if r := s.again(t, "recover"); r.Exit == install.ExitRollbackFailed {
		bad("recover: %+v", r)
	}
	if now, err = s.bench.InForce("pos", s.all...); err != nil || now != s.before && now != s.after {
		bad("recovered: %s, %v", version(now), err)
	}
	if litter, err := s.bench.Litter(); err != nil || len(litter) > 0 {
		bad("recovered: litter %v, %v", litter, err)
	}
	st, err := install.ReadStatus(s.bench.Config)
	switch cur := st.Installed.Bundle("pos").Current; {
	case err != nil || st.Damage != "":
		bad("recovered: status %v %s", err, st.Damage)
	case s.before != nil && st.Installed.Bundle("pos").Floor.Sequence < s.before.Sequence:
		bad("recovered: the floor fell to %d", st.Installed.Bundle("pos").Floor.Sequence)
	case cur == nil && now != nil, cur != nil && (now == nil || cur.Dir != now.Dir()):
		bad("recovered: the ledger names %+v, in force is %s", cur, version(now))
	}
	if now != s.final { // the next try: the daemon's, or the person's
		verb := s.args[0]
		if verb == "recover" {
			verb = "apply"
		}
		r := s.again(t, verb)
		if now, err = s.bench.InForce("pos", s.all...); err != nil || now != s.final {
			bad("in the end: %s, %v: %+v", version(now), err, r)
		}
		if litter, err := s.bench.Litter(); err != nil || len(litter) > 0 {
			bad("in the end: litter %v, %v", litter, err)
		}
	}
	return wrong
}

// floorLate says whether the request was acted on before its grant was remembered: then a power cut would let a daemon show
// an older grant.
func (s *scene) floorLate(t *testing.T, now *installtest.Bundle) string {
	t.Helper()
	state := s.bench.Config.State
	_, err := os.Stat(filepath.Join(state, "journal.json"))
	if s.args[0] != "apply" || err != nil && now != s.after {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(state, "installed.json"))
	if err != nil {
		return err.Error()
	}
	l, err := ledger.Parse(b)
	if err != nil {
		return err.Error()
	}
	if g := s.granted; l.Grants[g.Site][g.Policy] != g.Mark() {
		return fmt.Sprintf("begun, and grant %v is not remembered: %v", g.Mark(), l.Grants)
	}
	return ""
}

func version(b *installtest.Bundle) string {
	if b == nil {
		return "nothing"
	}
	return b.Version
}

func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace: apt-get install strace")
	}
	if err := exec.Command("strace", "-qq", "-o", "/dev/null", "true").Run(); err != nil {
		t.Skip("needs the right to trace processes: run as root or set kernel.yama.ptrace_scope to 0")
	}
}

// upgrade is a machine with one release kept, one in force and a third asked for, so that one is pruned.
func upgrade(t *testing.T, well func(context.Context, health.Check) error) *scene {
	t.Helper()
	return upgradeOn(t, well, func(*install.Config) {})
}

func upgradeOn(t *testing.T, well func(context.Context, health.Check) error, change func(*install.Config)) *scene {
	t.Helper()
	b := installtest.New(t, func(c *install.Config) { c.Keep = 1; c.Health.Command = []string{"/bin/true"}; change(c) })
	s := &scene{bench: b, well: yes}
	for i := range 3 {
		sp := spec(fmt.Sprint(i), uint64(i+1))
		sp.Files["sub/dir/file"] = strings.Repeat("x", 1500)
		v := b.Bundle(t, sp)
		s.all = append(s.all, v)
		s.request = b.WriteRequest(t, v, installtest.Want{})
		if i == 2 {
			s.grant(t, v)
		}
		s.args = []string{"apply", "--request", s.request, "--config", b.ConfigFile, "--json"}
		if i < 2 {
			if r := s.again(t, "apply"); r.Exit != 0 {
				t.Fatalf("%+v", r)
			}
		}
	}
	s.well, s.before, s.after, s.final = well, s.all[1], s.all[2], s.all[2]
	return s
}

// grant makes the request one of a rollout.
func (s *scene) grant(t *testing.T, v *installtest.Bundle) {
	t.Helper()
	now := time.Now()
	s.granted = grant.Grant{Schema: grant.Schema, Serial: 7, Created: grant.Timestamp(installtest.Created), Site: "s1", Policy: "pos", Revision: 2, Bundle: v.Name,
		Version: v.Manifest.Version, Checksum: v.Digest, Opens: grant.Timestamp(now.Add(-time.Hour)), Expires: grant.Timestamp(now.Add(24 * time.Hour)),
		Starts: []grant.Start{{Node: "n1", After: grant.Timestamp(now.Add(-time.Hour))}}, MaxUnavailable: 1, Deadline: 60}
	doc, err := s.granted.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r := s.bench.Request(t, v, installtest.Want{Revision: 2, Spec: "  rolloutStrategy: {type: RollingUpdate, batchSize: 1}\n"})
	raw, err := r.WithGrant(installtest.Sign(t, s.bench.Keys.Roster, doc)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, s.request, raw)
}

// scenes are the kinds of run that are cut off.
func scenes(t *testing.T) map[string]*scene {
	first := upgrade(t, yes)
	for _, d := range first.dirs() {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	first.before = nil

	sick := upgrade(t, no)
	sick.final = sick.before

	back := upgrade(t, yes)
	back.args = []string{"rollback", "pos", "--config", back.bench.ConfigFile, "--json"}
	back.before, back.after, back.final = back.all[1], back.all[0], back.all[0]

	// A run that was cut off at its check, and now "recover" is cut off as well.
	cut := upgrade(t, func(context.Context, health.Check) error { return errors.New("nobody answers") })
	if r := cut.again(t, "apply"); r.Reason != install.ReasonInterrupted {
		t.Fatalf("%+v", r)
	}
	cut.args = []string{"recover", "--config", cut.bench.ConfigFile, "--json"}
	cut.well, cut.midway = yes, true

	lost := upgrade(t, yes)
	if err := os.Remove(filepath.Join(lost.bench.Config.State, "installed.json")); err != nil {
		t.Fatal(err)
	}

	return map[string]*scene{"lost": lost, "upgrade": upgrade(t, yes), "first": first, "unhealthy": sick, "rollback": back, "recover": cut}
}

func TestCrash(t *testing.T) {
	needStrace(t)
	long := os.Getenv("PATCHMESH_LONG") != ""
	for name, s := range scenes(t) {
		faults := []string{"signal=KILL"}
		if long {
			faults = append(faults, "error=EIO", "error=ENOSPC")
		} else if name != "upgrade" && name != "unhealthy" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			runs, hits, wrong := s.enumerate(t, long, faults)
			for _, w := range wrong {
				t.Error(w)
			}
			t.Logf("%d runs, %d faults took effect, %d wrong states", runs, hits, len(wrong))
			if hits < 20 {
				t.Errorf("only %d of %d faults took effect: this proves nothing", hits, runs)
			}
		})
	}
}

// The positive control: a switch that removes the link and makes it anew is found out.
func TestCrashIsNoticed(t *testing.T) {
	needStrace(t)
	s := upgrade(t, yes)
	naive := filepath.Join(t.TempDir(), "naive")
	if out, err := exec.Command("go", "build", "-o", naive, "./testdata/naive").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	from := filepath.Join(s.bench.Dir, "from")
	for p, data := range s.after.Files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(p, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(from, p), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	s.naive = []string{naive, filepath.Join(s.bench.Config.Root, "pos"), from, s.after.Dir()}
	_, _, wrong := s.enumerate(t, false, []string{"signal=KILL"})
	var gap bool
	for _, w := range wrong {
		gap = gap || strings.Contains(w, "nothing is in force")
	}
	if !gap {
		t.Errorf("a switch with a gap passes: %q", wrong)
	}
}

// The positive control of the floor: what was begun while an older grant, or none, was remembered is found out.
func TestLateFloorIsNoticed(t *testing.T) {
	s := upgrade(t, yes)
	if r := s.again(t, "apply"); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	if late := s.floorLate(t, s.after); late != "" {
		t.Fatal(late)
	}
	name := filepath.Join(s.bench.Config.State, "installed.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	l.Grants = nil
	if b, err = l.Encode(); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, name, b)
	if s.floorLate(t, s.after) == "" {
		t.Error("a release that came without the floor of its grant passes")
	}
}
