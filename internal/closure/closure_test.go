package closure

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func wantCode(t testing.TB, err error, code problem.Code, words ...string) {
	t.Helper()
	var p *problem.Error
	if !errors.As(err, &p) || p.Code != code {
		t.Fatalf("error %v, want code %s", err, code)
	}
	for _, w := range words {
		if !strings.Contains(p.Text(), w) {
			t.Errorf("the message does not say %q:\n%s", w, p.Text())
		}
	}
}

// each runs a test with the real tools of both formats.
func each(t *testing.T, f func(t *testing.T, bed managertest.Bed)) {
	rpm, err := managertest.NewRPM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rpm.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, bed := range []managertest.Bed{managertest.Deb(), rpm} {
		t.Run(string(bed.Format()), func(t *testing.T) {
			bed.Needs(t)
			for program, pkg := range map[string]string{"apt-ftparchive": "apt-utils", "createrepo_c": "createrepo-c"} {
				if _, err := exec.LookPath(program); err != nil {
					t.Skip("needs " + program + ": apt-get install " + pkg)
				}
			}
			f(t, bed)
		})
	}
}

// build makes a bundle of packages, and proves it on the way.
func build(t *testing.T, bed managertest.Bed, bases Bases, change func(*chunker.PackageOptions), ps ...managertest.Package) (proofs []Proof, err error) {
	t.Helper()
	repo := bed.Repo(t, managertest.Spec{Packages: ps})
	from, out := t.TempDir(), filepath.Join(t.TempDir(), "b")
	for _, p := range repo.List.Packages {
		place(t, filepath.Join(repo.Dir, p.File), filepath.Join(from, filepath.Base(p.File)))
	}
	if bed.Format() == manifest.FormatRPM {
		for _, k := range repo.List.Keys {
			place(t, filepath.Join(repo.Dir, k), filepath.Join(from, chunker.KeysDir, filepath.Base(k)))
		}
	}
	o := chunker.BuildOptions{Name: "till", Version: "1", Sequence: 1, From: from, Out: out, Created: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
		Target: manifest.Target{OS: manifest.Any, Release: manifest.Any, Arch: manifest.Any, Format: bed.Format()}}
	if change != nil {
		change(&o.Packages)
	}
	o.Packages.Prove = func(ctx context.Context, b *chunker.Bundle) (err error) {
		proofs, err = Prove(ctx, b, bases)
		return err
	}
	_, err = chunker.Build(t.Context(), o)
	left, _ := os.ReadDir(filepath.Dir(out))
	if want := map[bool]int{true: 1, false: 0}[err == nil]; len(left) != want {
		t.Errorf("left behind: %v", left)
	}
	return proofs, err
}

func place(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// database is the file that says what a machine has.
func database(t *testing.T, m managertest.Machine) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(m.Root(), "var/lib/dpkg/status")); err == nil {
		return filepath.Join(m.Root(), "var/lib/dpkg/status")
	}
	cmd := exec.Command("rpm", "--eval", "%{_dbpath}")
	cmd.Env = append(os.Environ(), "HOME=/root")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(m.Root(), strings.TrimSpace(string(out)))
}

func version(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "usr/share", name, "version"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// A pair whose halves need each other in the same version: with one left out the build fails and names it.
func TestPair(t *testing.T) {
	each(t, func(t *testing.T, bed managertest.Bed) {
		m := bed.Machine(t, "", managertest.Package{Name: "jq", Version: "1-1", Depends: []string{"libjq1 = 1-1"}}, managertest.Package{Name: "libjq1", Version: "1-1"})
		jq := managertest.Package{Name: "jq", Version: "2-1", Depends: []string{"libjq1 = 2-1"}}
		lib := managertest.Package{Name: "libjq1", Version: "2-1"}
		for name, bases := range map[string]Bases{"database": {Lists: []string{database(t, m)}}, "root": {Roots: []string{m.Root()}}} {
			t.Run(name, func(t *testing.T) {
				_, err := build(t, bed, bases, nil, jq)
				wantCode(t, err, problem.NotClosed, "libjq1", "2-1", "jq")
				proofs, err := build(t, bed, bases, nil, jq, lib)
				if err != nil {
					t.Fatal(err)
				}
				want := []packages.Change{{Name: "jq", Arch: bed.Arch(), From: "1-1", To: "2-1"}, {Name: "libjq1", Arch: bed.Arch(), From: "1-1", To: "2-1"}}
				if len(proofs) != 1 || proofs[0].Installed != (name == "root") || !cmp.Equal(proofs[0].Changes, want) {
					t.Errorf("%+v", proofs)
				}
				if v := version(t, m.Root(), "jq"); v != "1-1" {
					t.Errorf("the base itself was changed to %s", v)
				}
			})
		}
	})
}

func TestRefused(t *testing.T) {
	each(t, func(t *testing.T, bed managertest.Bed) {
		m := bed.Machine(t, "", managertest.Package{Name: "till", Version: "1-1"}, managertest.Package{Name: "oldname", Version: "1-1"})
		lists, roots := Bases{Lists: []string{database(t, m)}}, Bases{Roots: []string{m.Root()}}
		till := managertest.Package{Name: "till", Version: "2-1"}

		t.Run("new dependency", func(t *testing.T) {
			needy := managertest.Package{Name: "till", Version: "2-1", Depends: []string{"driver >= 3-1"}}
			_, err := build(t, bed, lists, nil, needy)
			wantCode(t, err, problem.NotClosed, "driver", "3-1", "till")
			proofs, err := build(t, bed, lists, nil, needy, managertest.Package{Name: "driver", Version: "3-1"})
			if err != nil || len(proofs[0].Changes) != 2 {
				t.Errorf("%+v, %v", proofs, err)
			}
		})
		t.Run("removal", func(t *testing.T) {
			newname := managertest.Package{Name: "newname", Version: "2-1", Replaces: []string{"oldname"}}
			install := func(o *chunker.PackageOptions) { o.Install = []string{"newname"} }
			_, err := build(t, bed, lists, install, newname)
			wantCode(t, err, problem.NotClosed, "oldname", "--remove")
			if _, err := build(t, bed, lists, func(o *chunker.PackageOptions) { install(o); o.Remove = []string{"oldname"} }, newname); err != nil {
				t.Error(err)
			}
		})
		// What a solver cannot see, and an installation can.
		t.Run("script", func(t *testing.T) {
			bad := managertest.Package{Name: "till", Version: "2-1", Post: "exit 1"}
			if _, err := build(t, bed, lists, nil, bad); err != nil {
				t.Errorf("simulated: %v", err)
			}
			_, err := build(t, bed, roots, nil, bad)
			wantCode(t, err, problem.NotClosed, "till")
		})
		t.Run("no machine has it", func(t *testing.T) {
			proofs, err := build(t, bed, lists, nil, till, managertest.Package{Name: "other", Version: "2-1"})
			if err != nil {
				t.Fatal(err)
			}
			l := &packages.List{Packages: []packages.Package{{Name: "other", Arch: bed.Arch(), Version: "2-1"}, {Name: "till", Arch: bed.Arch(), Version: "2-1"}}}
			if got := Unproved(l, proofs); !cmp.Equal(got, []string{"other:" + bed.Arch()}) {
				t.Errorf("%q", got)
			}
		})
		t.Run("no such base", func(t *testing.T) {
			_, err := build(t, bed, Bases{Roots: []string{filepath.Join(m.Root(), "none")}}, nil, till)
			wantCode(t, err, problem.InvalidFile, "none")
			_, err = build(t, bed, Bases{Roots: []string{"/"}}, nil, till)
			wantCode(t, err, problem.InvalidFile, "this machine")
		})
		t.Run("names only", func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "list")
			write := func(text string) Bases {
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return Bases{Lists: []string{name}}
			}
			if bed.Format() == manifest.FormatRPM {
				_, err := build(t, bed, write("till-1-1.noarch\n"), nil, till)
				wantCode(t, err, problem.InvalidFile, "prove nothing", "rpmdb.sqlite")
				return
			}
			needy := managertest.Package{Name: "till", Version: "2-1", Depends: []string{"driver >= 3-1"}}
			_, err := build(t, bed, write("till\t1-1\ndriver:amd64\t2-1\n"), nil, needy)
			wantCode(t, err, problem.NotClosed, "driver", "3-1", "till")
			if _, err := build(t, bed, write("till\t1-1\ndriver:amd64\t3-1\n"), nil, needy); err != nil {
				t.Error(err)
			}
		})
	})
}

// On a base whose own database is not in order nothing can be proved, and the bundle is not to blame.
func TestBrokenBase(t *testing.T) {
	bed := managertest.Deb()
	bed.Needs(t)
	status := filepath.Join(t.TempDir(), "status")
	const stanza = "Package: till\nStatus: install ok %s\nArchitecture: all\nVersion: 1-1\nMaintainer: x\nDescription: x\n"
	for state, code := range map[string]problem.Code{"installed": "", "half-configured": problem.InvalidFile} {
		if err := os.WriteFile(status, []byte(strings.Replace(stanza, "%s", state, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := build(t, bed, Bases{Lists: []string{status}}, nil, managertest.Package{Name: "till", Version: "2-1"})
		if code == "" && err != nil {
			t.Errorf("%s: %v", state, err)
		} else if code != "" {
			wantCode(t, err, code, "not in order", "till")
		}
	}
}
