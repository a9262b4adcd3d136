// Package config_test holds the sample files to the programs that read them: each decodes strictly, and where a file says
// that its values are the defaults, they are.
package config_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/node"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMeshd(t *testing.T) {
	c, err := node.ParseConfig(read(t, "meshd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(node.DefaultConfig(), c, cmpopts.IgnoreFields(node.Config{}, "Now"), cmpopts.IgnoreUnexported(node.Config{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("the sample says that it shows the defaults (-default +sample):\n%s", d)
	}
}

func TestMeshInstall(t *testing.T) {
	c, err := install.ParseConfig(read(t, "mesh-install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := install.DefaultConfig()
	want.Health.Command = c.Health.Command // marked Example
	want.Labels = c.Labels
	want.Site, want.Node = "berlin-7", "pos-01"
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("the sample says that it shows the defaults (-default +sample):\n%s", d)
	}
}

func TestWAN(t *testing.T) {
	p, err := wanprofile.Parse("wan.yaml", read(t, "wan.yaml"))
	if err != nil || len(p.Rules) != 5 {
		t.Fatalf("%+v, %v", p, err)
	}
}

func TestPolicy(t *testing.T) {
	for _, name := range []string{"policy.yaml", "policy-rollout.yaml"} {
		if _, err := policy.ParseFile(name, read(t, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestMeshctl(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.yaml")
	for file, b := range map[string][]byte{name: read(t, "meshctl.yaml"), filepath.Join(dir, "prod.token"): []byte("secret\n")} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, context := range []string{"prod", "local"} {
		var a cli.Access
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		a.AddFlags(f)
		if err := f.Parse([]string{"--config", name, "--context", context}); err != nil {
			t.Fatal(err)
		}
		got, found, err := a.Resolve(func(string) string { return "" })
		if err != nil || !found || len(got.URLs) != 1 {
			t.Errorf("context %s: %+v, %v, %v", context, got, found, err)
		}
	}
}

// The seeder reads its sample up to the first thing that is not on this machine: a key file.
func TestSeeder(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "seeder")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/seeder").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sample := read(t, "seeder.yaml")
	refused := func(content string) string {
		name := filepath.Join(t.TempDir(), "seeder.yaml")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(bin, "serve", "--config", name).CombinedOutput()
		if err == nil {
			t.Fatalf("the seeder started with keys that do not exist:\n%s", out)
		}
		return string(out)
	}
	if got := refused(string(sample)); !strings.Contains(got, "/etc/seeder/release.gpg") {
		t.Errorf("the sample is refused for another reason than the missing key:\n%s", got)
	}
	// The positive control: a field that nobody knows is seen first.
	if got := refused(string(sample) + "nonsense: 1\n"); !strings.Contains(got, "nonsense") {
		t.Errorf("an unknown field is not refused:\n%s", got)
	}
}
