package install_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/tool"
)

// The tests here run this binary again as an executor that is cut off: its process is killed from within a script of a
// package, that is in the middle of a real transaction, while the tools go on.

const childEnv = "PATCHMESH_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child is the executor's process: it applies the request of a bench whose configuration is at hand.
func child(dir string) {
	config, err := install.ReadConfig(filepath.Join(dir, "mesh-install.yaml"))
	if err != nil {
		panic(err)
	}
	r, err := install.ReadRequest(filepath.Join(dir, "child.json"))
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(config.Machine, "run/pid"), fmt.Append(nil, os.Getpid()), 0o644); err != nil {
		panic(err)
	}
	in := installer(&installtest.Bench{Config: config})
	in.Host, in.Providers = installtest.Host{}, install.Providers(config)
	if err := in.Apply(context.Background(), r).WriteText(os.Stdout); err != nil {
		panic(err)
	}
}

// cut applies a bundle in a process of its own. The script of the bundle ends it with die.
func (p *patchBench) cut(b *installtest.Bundle, spec ...string) {
	p.t.Helper()
	p.rev++
	doc, err := p.Request(p.t, b, installtest.Want{Revision: p.rev, Spec: strings.Join(spec, "")}).Encode()
	if err != nil {
		p.t.Fatal(err)
	}
	installtest.WriteFile(p.t, filepath.Join(p.Dir, "child.json"), doc)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{childEnv + "=" + p.Dir}
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		p.t.Fatalf("the executor was not cut off: %v\n%s", err, out)
	}
}

// die is a script that kills the executor, which waits for it somewhere above, and lives on.
const die = "kill -9 $(cat /run/pid); sleep 60"

func TestPackagesCut(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		for _, where := range []string{"pre", "post"} {
			t.Run(where, func(t *testing.T) {
				p := newPatchBench(t, bed, pair("1.0-1")...)
				p.keep()
				ps := pair("2.0-1")
				if where == "pre" {
					ps[0].Pre = die
				} else {
					ps[0].Post = die
				}
				two := p.bundle("2", 2, managertest.Spec{Packages: ps})
				for try := 1; try <= 3; try++ {
					p.cut(two)
					st, err := install.ReadStatus(p.Config)
					if err != nil || st.Open == nil || st.Open.Step != journal.Transact || st.Open.Attempt != try {
						t.Fatalf("try %d: open %+v, %v", try, st.Open, err)
					}
					r := p.installer().Recover(t.Context())
					if n, err := tool.KillLeft(t.Context(), st.Open.Packages.ID); n > 0 || err != nil {
						t.Errorf("%d processes of the tools lived on: %v", n, err)
					}
					wanted := "deferred 1 Deferred Interrupted E5101"
					if try == 3 {
						wanted = "install_failure 4 Quarantined Interrupted E5101"
					}
					want(t, r, wanted)
					if d := p.differs(); len(d) > 0 {
						t.Fatalf("try %d: %q", try, d)
					}
					p.clean()
				}
				want(t, p.apply(two), "install_failure 4 Quarantined TooManyAttempts E5101")
				good := p.bundle("3", 3, managertest.Spec{Packages: pair("3.0-1")})
				want(t, p.apply(good), done)
			})
		}
	})
}

// Without a snapshot, which the policy allows, there is only the way forward: what was cut is brought to its end, and
// what cannot be is said.
func TestPackagesNoSnapshot(t *testing.T) {
	const none = "    snapshot: {provider: none, required: false}\n"
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, pair("1.0-1")...)
		ps := pair("2.0-1")
		ps[0].Post = "if test -e /tmp/once; then exit 0; fi; touch /tmp/once; " + die
		two := p.bundle("2", 2, managertest.Spec{Packages: ps})
		p.cut(two, none)
		r := p.installer().Recover(t.Context())
		want(t, r, done)
		if p.version("demo") != "2.0-1" || r.Snapshot != "" || len(r.Changes) != 2 {
			t.Errorf("demo %s, %+v", p.version("demo"), r)
		}
		ps = pair("3.0-1")
		ps[0].Post = "false"
		three := p.bundle("3", 3, managertest.Spec{Packages: ps})
		r = p.apply(three, none)
		want(t, r, "install_failure 5 InstallFailed NoSnapshot E5102")
		if r.Installed == nil || r.Installed.Version != "2" {
			t.Errorf("installed %+v", r.Installed)
		}
		p.clean()
		four := p.bundle("4", 4, managertest.Spec{Packages: pair("4.0-1")})
		want(t, p.apply(four, none), done) // what was left out of order is brought forward with it
		if p.version("demo") != "4.0-1" {
			t.Errorf("demo %s", p.version("demo"))
		}
	})
}

// Whatever became of the bundle, the way back needs only the snapshot; and where that is gone too, the transaction ends
// all the same, and says so.
func TestPackagesDamagedWayBack(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		for name, c := range map[string]struct {
			damage func(*patchBench)
			want   string
		}{
			"release gone":  {func(p *patchBench) { os.RemoveAll(filepath.Join(p.Config.Root, "os")) }, "deferred 1 Deferred Interrupted E5101"},
			"foreseen gone": {func(p *patchBench) { os.Remove(filepath.Join(p.Config.State, "foreseen.json")) }, "deferred 1 Deferred Interrupted E5101"},
			"journal damaged": {func(p *patchBench) {
				installtest.WriteFile(p.t, filepath.Join(p.Config.State, "journal.json"), []byte("decay"))
			}, nothing},
			"snapshot gone": {func(p *patchBench) { os.RemoveAll(filepath.Join(p.Config.State, "snapshots")) }, "install_failure 5 InstallFailed NoSnapshot E5102"},
		} {
			t.Run(name, func(t *testing.T) {
				p := newPatchBench(t, bed, pair("1.0-1")...)
				p.keep()
				ps := pair("2.0-1")
				ps[0].Post = "if test -e /tmp/once; then exit 0; fi; touch /tmp/once; " + die
				p.cut(p.bundle("2", 2, managertest.Spec{Packages: ps}))
				c.damage(p)
				r := p.installer().Recover(t.Context())
				want(t, r, c.want)
				if d := p.differs(); r.Exit != install.ExitRollbackFailed && len(d) > 0 {
					t.Errorf("%q", d)
				}
				p.clean()
				want(t, p.apply(p.bundle("3", 3, managertest.Spec{Packages: pair("3.0-1")})), done)
			})
		}
	})
}
