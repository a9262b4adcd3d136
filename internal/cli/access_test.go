package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
)

func TestAccess(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, perm os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), perm); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := write("home/.config/meshctl/config.yaml",
		"current: prod\ncontexts:\n  prod: {urls: ['https://a:1', 'https://b:1'], pin: P, tokenFile: prod.token}\n  lab: {urls: ['unix:///lab.sock']}\n", 0o644)
	write("home/.config/meshctl/prod.token", "secret\n", 0o600)
	admin := write("admin.json", `{"urls":["unix:///s.sock"],"pin":"Q","token":"T"}`, 0o600)
	token := write("token", " other\n", 0o600)
	loose := write("loose", "open\n", 0o644)
	unknown := write("unknown.yaml", "current: prod\ncontext: {}\n", 0o644)
	home := map[string]string{"HOME": filepath.Join(dir, "home")}
	with := func(more ...string) map[string]string {
		m := map[string]string{"HOME": home["HOME"]}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	for _, c := range []struct {
		name  string
		args  string
		env   map[string]string
		want  api.Access
		found bool
		err   string // part of it
	}{
		{"nothing anywhere", "", map[string]string{"HOME": dir}, api.Access{}, false, ""},
		{"current context", "", home, api.Access{URLs: []string{"https://a:1", "https://b:1"}, Pin: "P", Token: "secret"}, true, ""},
		{"named context", "--context lab", home, api.Access{URLs: []string{"unix:///lab.sock"}}, true, ""},
		{"context of the environment", "", with("MESHCTL_CONTEXT", "lab"), api.Access{URLs: []string{"unix:///lab.sock"}}, true, ""},
		{"the seeder's own file", "--config " + admin, home, api.Access{URLs: []string{"unix:///s.sock"}, Pin: "Q", Token: "T"}, true, ""},
		{"a server takes no token from the file", "--server https://evil:1", home, api.Access{URLs: []string{"https://evil:1"}}, true, ""},
		{"server, pin and token of the environment", "", with("MESHCTL_SERVER", "https://c:1", "MESHCTL_PIN", "R", "MESHCTL_TOKEN_FILE", token),
			api.Access{URLs: []string{"https://c:1"}, Pin: "R", Token: "other"}, true, ""},
		{"flags win", "--pin S --token-file " + token, with("MESHCTL_PIN", "R"),
			api.Access{URLs: []string{"https://a:1", "https://b:1"}, Pin: "S", Token: "other"}, true, ""},
		{"token for all to read", "--token-file " + loose, home, api.Access{}, false, "can be read by others"},
		{"unknown context", "--context dev", home, api.Access{}, false, `no context "dev"`},
		{"unknown field", "--config " + unknown, home, api.Access{}, false, "field context not found"},
		{"missing file that was asked for", "--config " + config + ".gone", home, api.Access{}, false, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a cli.Access
			f := pflag.NewFlagSet("", pflag.ContinueOnError)
			a.AddFlags(f)
			if err := f.Parse(strings.Fields(c.args)); err != nil {
				t.Fatal(err)
			}
			got, found, err := a.Resolve(func(k string) string { return c.env[k] })
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil || found != c.found {
				t.Fatalf("found %v, error %v", found, err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
