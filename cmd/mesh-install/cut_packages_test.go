package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// The real program installs real packages with the real tools on an ext4 in a file, and is cut off at an instant drawn
// by lot, in one of two ways:
//
//	kill   the program is killed with -9 and everything it had started lives on, as when somebody kills the executor
//	power  every process is gone at once, and of the disk there is what had been flushed
//
// and the run that takes it up is sometimes cut off in the same way. Then "recover" runs to its end, and the machine must
// be the old one, to the byte, or the new one: every version, a clean audit. PATCHMESH_CUTS says how many instants; the
// same PATCHMESH_SEED draws the same ones, though a busy machine comes less far in the same time.

// cutScene is a machine before an update, flushed, and kept as an image.
type cutScene struct {
	*installtest.Bench
	t        *testing.T
	disk     *disk
	template string
	request  string
	bed      managertest.Bed
	machine  managertest.Machine
	list     *packages.List
	takes    time.Duration // of an update that is not cut off
}

// fleet is a few packages with what takes time: files, bytes, scripts.
func fleet(version string) []managertest.Package {
	script := "i=0; while [ $i -lt 20 ]; do echo " + version + " >> /etc/demo.state; i=$((i+1)); done"
	return []managertest.Package{
		{Name: "demo", Version: version, Depends: []string{"demolib = " + version}, Conffile: "setting=" + version + "\n", Pre: "true", Post: script},
		{Name: "demolib", Version: version, Files: 60},
		{Name: "zlast", Version: version, Bytes: 1 << 20, Post: "sync"},
	}
}

func newCutScene(t *testing.T, bed managertest.Bed, update []managertest.Package) *cutScene {
	t.Helper()
	bed.Needs(t)
	s := &cutScene{t: t, disk: newDisk(t, "256m"), bed: bed}
	s.Bench = installtest.New(t, func(c *install.Config) {
		c.Root, c.State, c.Machine = s.disk.mount+"/root", s.disk.mount+"/state", s.disk.mount+"/machine"
	})
	if err := os.MkdirAll(s.Config.Machine, 0o755); err != nil {
		t.Fatal(err)
	}
	s.machine = bed.Machine(t, s.Config.Machine, fleet("1.0-1")...)
	if _, err := tree.Copy(t.Context(), s.Config.Machine, filepath.Join(s.Dir, "first"), tree.Options{}); err != nil {
		t.Fatal(err)
	}
	repo := bed.Repo(t, managertest.Spec{Packages: update})
	s.list = repo.List
	s.request = s.WriteRequest(t, s.Packages(t, repo, "2", 2), installtest.Want{})
	unix.Sync()
	s.template = s.disk.image + ".template"
	s.disk.off(t)
	copyFile(t, s.disk.image, s.template)
	s.disk.on(t, s.disk.image)
	return s
}

// measure lets an update come to its end, once.
func (s *cutScene) measure() {
	s.t.Helper()
	began := time.Now()
	if r := do(s.t, s.Bench, "apply", "--request", s.request); r.Exit != install.ExitDone {
		s.t.Fatalf("not cut off, and yet: %+v", r)
	}
	s.takes = time.Since(began)
}

// program is mesh-install on the bench. alone gives it a process ID space of its own: when the program goes, all go.
func (s *cutScene) program(alone bool, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, append(args, "--config", s.ConfigFile, "--json")...)
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if alone {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	cmd.WaitDelay = time.Second // orphans hold the output open
	return cmd
}

// cut runs the program and cuts it off after a time, unless it has ended before. It returns the step in which it was.
func (s *cutScene) cut(power bool, after time.Duration, args ...string) journal.Step {
	s.t.Helper()
	cmd := s.program(power, args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	alarm := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // how it ended is for the oracle to see
	alarm.Stop()
	if power {
		lost := s.disk.image + ".lost"
		copyFile(s.t, s.disk.image, lost)
		s.disk.off(s.t)
		if err := os.Rename(lost, s.disk.image); err != nil {
			s.t.Fatal(err)
		}
		s.disk.on(s.t, s.disk.image)
	}
	st, err := install.ReadStatus(s.Config)
	switch {
	case err != nil:
		return journal.Step(err.Error())
	case st.Open == nil:
		return "none"
	}
	return st.Open.Step
}

// judge says whether the machine is the old one or the new one, and what is wrong if it is neither.
func (s *cutScene) judge() (state string, wrong []string) {
	s.t.Helper()
	var differs []string
	err := tree.Compare(s.t.Context(), filepath.Join(s.Dir, "first"), s.Config.Machine,
		tree.Options{Exclude: append(slices.DeleteFunc(install.DefaultExclude(), func(p string) bool { return p == "/root" }), "/root/.rpmdb/rpmdb.sqlite-shm")},
		func(d tree.Diff) error { differs = append(differs, d.String()); return nil })
	if err != nil {
		return "", []string{err.Error()}
	}
	if len(differs) == 0 {
		return "old", nil
	}
	m := s.machine.Manager(s.t, tool.Runner{ID: "judge-" + strconv.Itoa(os.Getpid())})
	have, err := m.Installed(s.t.Context())
	if err != nil {
		return "", []string{err.Error()}
	}
	for _, p := range s.list.Packages {
		if !slices.ContainsFunc(have, func(i packages.Installed) bool {
			return i.ID() == p.ID() && i.Version == p.Version && i.State == ""
		}) {
			wrong = append(wrong, p.ID()+" is not "+p.Version)
		}
		b, err := os.ReadFile(filepath.Join(s.Config.Machine, "usr/share", p.Name, "version"))
		if err != nil || strings.TrimSpace(string(b)) != p.Version {
			wrong = append(wrong, fmt.Sprintf("%s on the disk: %q %v", p.Name, b, err))
		}
	}
	findings, err := m.Audit(s.t.Context())
	if err != nil {
		findings = append(findings, err.Error())
	}
	if wrong = append(wrong, findings...); len(wrong) > 0 {
		return "neither", append(wrong, differs[:min(5, len(differs))]...)
	}
	return "new", nil
}

// fresh puts the machine back to before the update.
func (s *cutScene) fresh() {
	s.t.Helper()
	s.disk.off(s.t)
	copyFile(s.t, s.template, s.disk.image)
	s.disk.on(s.t, s.disk.image)
}

// cutsWanted is how many instants, and the seed they are drawn by.
func cutsWanted(t *testing.T, short int) (n int, seed uint64) {
	t.Helper()
	n, seed = short, uint64(time.Now().UnixNano())
	if os.Getenv("PATCHMESH_LONG") != "" {
		n = 40
	}
	for name, set := range map[string]func(uint64){"PATCHMESH_CUTS": func(v uint64) { n = int(v) }, "PATCHMESH_SEED": func(v uint64) { seed = v }} {
		if text := os.Getenv(name); text != "" {
			v, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			set(v)
		}
	}
	return n, seed
}

func cutBeds(t *testing.T, f func(t *testing.T, bed managertest.Bed)) {
	t.Run("deb", func(t *testing.T) { t.Parallel(); f(t, managertest.Deb()) })
	t.Run("rpm", func(t *testing.T) {
		t.Parallel()
		rpm, err := managertest.NewRPM()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := rpm.Close(); err != nil {
				t.Error(err)
			}
		})
		f(t, rpm)
	})
}

func TestCrashPackagesAtRandom(t *testing.T) {
	cutBeds(t, func(t *testing.T, bed managertest.Bed) {
		n, seed := cutsWanted(t, 4)
		lot := rand.New(rand.NewPCG(seed, 0))
		s := newCutScene(t, bed, fleet("2.0-1"))
		s.measure()
		ended, during, again, bad := map[string]int{}, map[journal.Step]int{}, 0, 0
		for k := range n {
			s.fresh()
			power := k%4 != 3
			what := fmt.Sprintf("seed %d, cut %d, power %t", seed, k, power)
			during[s.cut(power, time.Duration(lot.Int64N(int64(s.takes))), "apply", "--request", s.request)]++
			for lot.IntN(4) == 0 {
				again++
				s.cut(power, time.Duration(lot.Int64N(int64(s.takes/2))), "recover")
			}
			st, err := install.ReadStatus(s.Config)
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			r := do(t, s.Bench, "recover")
			if r.Exit == install.ExitRollbackFailed {
				t.Errorf("%s: %+v", what, r)
			}
			if st.Open != nil && st.Open.Packages.ID != "" {
				if left, err := tool.KillLeft(t.Context(), st.Open.Packages.ID); left > 0 || err != nil {
					t.Errorf("%s: %d processes lived on, %v", what, left, err)
				}
			}
			state, wrong := s.judge()
			if ended[state]++; len(wrong) > 0 {
				bad++
				t.Errorf("%s: %s after %+v: %q", what, state, r, wrong)
			}
			if now, err := install.ReadStatus(s.Config); err != nil || now.Open != nil || now.Damage != "" ||
				(now.Installed.Bundle("os").Current != nil) != (state == "new") {
				bad++
				t.Errorf("%s: the machine is %s, and its memory %+v, %v", what, state, now, err)
			}
			if k%5 == 0 { // nothing that was left stands in the way of the next try
				if r := do(t, s.Bench, "apply", "--request", s.request); r.Exit != install.ExitDone {
					bad++
					t.Errorf("%s: asked again: %+v", what, r)
				}
				if state, wrong := s.judge(); state != "new" {
					bad++
					t.Errorf("%s: asked again: %s %q", what, state, wrong)
				}
			}
		}
		t.Logf("%d cuts (%d more in the run after), seed %d, an update takes %v: %v, %d bad; the journal said %v", n, again, seed, s.takes.Round(time.Millisecond), ended, bad, during)
	})
}

// The positive control: what the tools leave when all are killed within a script, and nobody takes it up, is neither.
func TestCrashPackagesIsNoticed(t *testing.T) {
	cutBeds(t, func(t *testing.T, bed managertest.Bed) {
		update := fleet("2.0-1")
		update[0].Post += "; sleep 600"
		s := newCutScene(t, bed, update)
		cmd := s.program(true, "apply", "--request", s.request)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		reached := func() bool {
			b, err := os.ReadFile(filepath.Join(s.Config.Machine, "etc/demo.state"))
			return err == nil && bytes.Contains(b, []byte("2.0-1"))
		}
		for tick := time.NewTicker(5 * time.Millisecond); !reached() && t.Context().Err() == nil; <-tick.C {
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if state, wrong := s.judge(); state != "neither" {
			t.Errorf("cut off within a script it is %s %q: the test above proves nothing", state, wrong)
		}
		if r := do(t, s.Bench, "recover"); r.Exit != install.ExitDeferred {
			t.Errorf("%+v", r)
		}
		if state, wrong := s.judge(); state != "old" {
			t.Errorf("taken up it is %s %q", state, wrong)
		}
	})
}
