package dnf_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

var bed *managertest.RPM

func TestMain(m *testing.M) {
	var err error
	if bed, err = managertest.NewRPM(); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := bed.Close(); err != nil {
		panic(err)
	}
	os.Exit(code)
}

func TestConformance(t *testing.T) { managertest.Run(t, bed) }

func pkg(name, version string) managertest.Package {
	return managertest.Package{Name: name, Version: version, Conffile: "setting=" + version + "\n"}
}

func TestUpgrade(t *testing.T) {
	bed.Needs(t)
	t.Parallel()
	m := bed.Machine(t, "", pkg("demo", "1.0-1"), pkg("demolib", "1.0-1"))
	m.Auto(t, "demolib")
	repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1"), pkg("demolib", "2.0-1"), pkg("absent", "1.0-1")}})
	mgr := m.Manager(t, tool.Runner{ID: "test-upgrade"})
	plan, err := mgr.Plan(t.Context(), repo.Order())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(manager.Plan{Changes: []packages.Change{{Name: "demo", Arch: "noarch", From: "1.0-1", To: "2.0-1"}, {Name: "demolib", Arch: "noarch", From: "1.0-1", To: "2.0-1"}}}, plan); diff != "" {
		t.Fatal(diff)
	}
	out, err := mgr.Apply(t.Context(), repo.Order(), plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out.Log)
	ps, err := mgr.Installed(t.Context())
	t.Log(ps, err)
	found, err := mgr.Audit(t.Context())
	t.Log(found, err)
}

func TestFaults(t *testing.T) {
	bed.Needs(t)
	for _, f := range bed.Faults() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			m := bed.Machine(t, "", pkg("demo", "1.0-1"), pkg("demolib", "1.0-1"))
			repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{pkg("demo", "2.0-1"), pkg("demolib", "2.0-1")}})
			f.Make(t, repo)
			_, err := m.Manager(t, tool.Runner{ID: "test-fault"}).Plan(t.Context(), repo.Order())
			t.Log(err)
		})
	}
}
