package collect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/packages"
)

// rpm itself takes the stub for a package, in a file and in a database.
func TestStub(t *testing.T) {
	needs(t, "rpm", "rpm")
	dir, db := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "stub.rpm")
	stub := stubRPM(packages.Installed{Name: "till", Version: "2:1.0~rc1-3.el9", Arch: "x86_64"},
		[]provided{{"/usr/bin/till", ""}, {"config(till)", "2:1.0~rc1-3.el9"}, {"libtill.so.1()(64bit)", ""}})
	if err := os.WriteFile(file, stub, 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"HOME=" + dir}
	const qf = `%{EPOCH}:%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\n[%{PROVIDENEVRS}\n]`
	want := "2:till-1.0~rc1-3.el9.x86_64\ntill = 2:1.0~rc1-3.el9\n/usr/bin/till\nconfig(till) = 2:1.0~rc1-3.el9\nlibtill.so.1()(64bit)\n"
	if got := string(command(t, dir, env, "rpm", "-qp", "--qf", qf, file)); got != want {
		t.Errorf("the file says\n%swant\n%s", got, want)
	}
	command(t, dir, env, "rpm", append(strings.Fields(justDB), "--dbpath", db, file)...)
	if got := string(command(t, dir, env, "rpm", "--dbpath", db, "-q", "--whatprovides", "/usr/bin/till", "--qf", qf)); got != want {
		t.Errorf("the database says\n%swant\n%s", got, want)
	}
}
