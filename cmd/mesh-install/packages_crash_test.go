package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/apt"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/tool"
)

// patching is a machine of packages before a run of the executor that is cut off at one of its own system calls. The
// tools that it starts are real, and are not cut off here.
type patching struct {
	*scene
}

func (p *patching) dirs() []string { return append(p.scene.dirs(), p.bench.Config.Machine) }

// clone copies a directory with everything that belongs to its files.
func clone(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(from); err != nil {
		return
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// state says what the packages of the machine are: old, to the byte; new, in order; or what is wrong.
func (p *patching) state(t *testing.T, old string) string {
	t.Helper()
	var differs []string
	err := tree.Compare(t.Context(), old, p.bench.Config.Machine, tree.Options{Exclude: install.DefaultExclude()}, func(d tree.Diff) error {
		differs = append(differs, d.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(differs) == 0 {
		return "old"
	}
	back := apt.New(apt.Config{Root: p.bench.Config.Machine, Dir: t.TempDir(), Runner: tool.Runner{ID: "crash-test"}})
	audit, err := back.Audit(t.Context())
	if err != nil || len(audit) > 0 {
		return fmt.Sprintf("out of order: %q, %v", audit, err)
	}
	for _, name := range []string{"demo", "demolib"} {
		if v, err := os.ReadFile(filepath.Join(p.bench.Config.Machine, "usr/share", name, "version")); err != nil || strings.TrimSpace(string(v)) != "2.0-1" {
			return fmt.Sprintf("%s is %q, %v; it differs in %q", name, v, err, differs)
		}
	}
	return "new"
}

// judge looks at the machine after a cut, after the next run, and after the one that tries again.
func (p *patching) judge(t *testing.T, old string, exit int, result install.Result) (wrong []string) {
	t.Helper()
	bad := func(f string, a ...any) { wrong = append(wrong, fmt.Sprintf(f, a...)) }
	if exit == 0 && p.state(t, old) != "new" {
		bad("exit status 0 and the packages are %s", p.state(t, old))
	}
	for _, verb := range []string{"recover", "apply"} {
		r := p.again(t, verb)
		if r.Exit == install.ExitRollbackFailed {
			bad("%s: %+v", verb, r)
		}
		now := p.state(t, old)
		force, err := p.bench.InForce("os", p.all...)
		st, serr := install.ReadStatus(p.bench.Config)
		cur := st.Installed.Bundle("os").Current
		switch {
		case err != nil || serr != nil || st.Damage != "":
			bad("%s: %v, %v %s", verb, err, serr, st.Damage)
		case now != "old" && now != "new":
			bad("%s: %s (%s, %s)", verb, now, r.Reason, r.Detail)
		case (now == "new") != (force != nil) || (cur != nil) != (force != nil):
			bad("%s: packages %s, in force %s, ledger %+v", verb, now, version(force), cur)
		case verb == "apply" && now != "new":
			bad("in the end the packages are old: %s, %s", r.Reason, r.Detail)
		}
		litter, err := p.bench.Litter()
		for _, name := range []string{"foreseen.json", "manager"} {
			if _, err := os.Stat(filepath.Join(p.bench.Config.State, name)); err == nil {
				litter = append(litter, name)
			}
		}
		if err != nil || len(litter) > 0 {
			bad("%s: litter %v, %v", verb, litter, err)
		}
	}
	return wrong
}

// The executor is cut off, or refused something, at its own system calls while it installs packages: afterwards the
// machine is old or new, in order, the ledger agrees, and the next try succeeds.
func TestCrashOfPackages(t *testing.T) {
	needStrace(t)
	long := os.Getenv("PATCHMESH_LONG") != ""
	bed := managertest.Deb()
	pair := func(version string) []managertest.Package {
		return []managertest.Package{{Name: "demo", Version: version}, {Name: "demolib", Version: version}}
	}
	b := onMachine(t, bed, pair("1.0-1")...)
	two := b.Packages(t, bed.Repo(t, managertest.Spec{Packages: pair("2.0-1")}), "2", 2)
	p := &patching{scene: &scene{bench: b, all: []*installtest.Bundle{two}, well: yes, request: b.WriteRequest(t, two, installtest.Want{})}}
	p.args = []string{"apply", "--request", p.request, "--config", b.ConfigFile, "--json"}
	template := t.TempDir()
	kept := func(i int) string { return filepath.Join(template, fmt.Sprint(i)) }
	for i, d := range p.dirs() {
		clone(t, d, kept(i))
	}
	old := kept(len(p.dirs()) - 1)
	restore := func() {
		for i, d := range p.dirs() {
			clone(t, kept(i), d)
		}
	}
	calls := slices.Concat(naming, others)
	_, _, log := p.run(t, strings.Join(calls, ","), "")
	if s := p.state(t, old); s != "new" {
		t.Fatalf("without a cut the packages are %s", s)
	}
	faults := []string{"signal=KILL"}
	if long {
		faults = append(faults, "error=EIO", "error=ENOSPC")
	} else { // a name is changed last of all, when something is complete; the long form takes all of these and a sample of the others
		calls = []string{"renameat"}
	}
	var counts []string
	for _, call := range calls {
		counts = append(counts, fmt.Sprintf("%s %d", call, count(log, call)))
	}
	t.Logf("calls of the executor's own: %s", strings.Join(counts, ", "))
	var runs, hits int
	for _, call := range calls {
		n := count(log, call)
		for _, fault := range faults {
			step := 1
			switch {
			case !long:
				step = max(1, n/6)
			case !slices.Contains(naming, call) || fault != "signal=KILL":
				step = max(1, n/10)
			}
			for k := 1; k <= n; k += step {
				restore()
				where := fmt.Sprintf("%s:%s:when=%d", call, fault, k)
				exit, result, log := p.run(t, call, where)
				runs++
				if exit == -1 || strings.Contains(log, "(INJECTED)") {
					hits++
				}
				for _, w := range p.judge(t, old, exit, result) {
					t.Errorf("%s: %s", where, w)
				}
			}
		}
	}
	t.Logf("%d runs, %d faults took effect", runs, hits)
	if hits < 5 {
		t.Errorf("only %d of %d faults took effect: this proves nothing", hits, runs)
	}
}
