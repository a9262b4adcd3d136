package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder"
)

// load parses flags over a file as serve does.
func load(t *testing.T, args ...string) (seeder.Config, error) {
	t.Helper()
	o := defaults()
	var file string
	var cfg seeder.Config
	c := &cobra.Command{Use: "serve", RunE: func(c *cobra.Command, _ []string) (err error) {
		cfg, err = o.load(c, file)
		return err
	}}
	o.addFlags(c)
	c.Flags().StringVar(&file, "config", "", "")
	c.SetArgs(args)
	c.SilenceErrors, c.SilenceUsage = true, true
	return cfg, c.ExecuteContext(t.Context())
}

func TestFlagsWinOverFile(t *testing.T) {
	dir := t.TempDir()
	flags, _ := keys(t, dir)
	file := filepath.Join(dir, "seeder.yaml")
	text := "state: /from/file\nlistenMesh: 127.0.0.1:1\nwanCapTotal: 8Mbit\nmaxActiveSites: 7\nreleaseKeys: [" + flags[1] + "]\npolicyKeys: [" + flags[3] + "]\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := load(t, "--config", file)
	if err != nil || cfg.State != "/from/file" || cfg.ListenMesh != "127.0.0.1:1" || cfg.WANCapTotal != 1e6 || cfg.Leases.MaxActive != 7 || len(cfg.Release.Fingerprints) != 1 {
		t.Errorf("%+v, %v", cfg, err)
	}
	cfg, err = load(t, "--config", file, "--state", "/from/flag", "--wan-cap-total", "0")
	if err != nil || cfg.State != "/from/flag" || cfg.ListenMesh != "127.0.0.1:1" || cfg.WANCapTotal != 0 {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestBadConfigurations(t *testing.T) {
	dir := t.TempDir()
	flags, _ := keys(t, dir)
	write := func(name, text string) string {
		n := filepath.Join(dir, name)
		if err := os.WriteFile(n, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for what, x := range map[string]struct {
		args []string
		code problem.Code
	}{
		"no keys":           {nil, problem.Usage},
		"no policy key":     {flags[:2], problem.Usage},
		"key is not there":  {[]string{"--release-key", filepath.Join(dir, "none")}, problem.InvalidFile},
		"key is no key":     {[]string{"--release-key", write("k", "hello")}, problem.InvalidFile},
		"threshold of two":  {append([]string{"--release-threshold", "2"}, flags...), problem.InvalidFile},
		"threshold of zero": {append([]string{"--release-threshold", "0"}, flags...), problem.InvalidFile},
		"rate":              {append([]string{"--wan-cap-total", "fast"}, flags...), problem.Usage},
		"no sites at all":   {append([]string{"--max-active-sites", "0"}, flags...), problem.Usage},
		"unknown key":       {[]string{"--config", write("a", "stat: /x\n")}, problem.InvalidFile},
		"key twice":         {[]string{"--config", write("b", "state: /x\nstate: /y\n")}, problem.InvalidFile},
		"two documents":     {[]string{"--config", write("c", "state: /x\n---\nstate: /y\n")}, problem.InvalidFile},
		"too large":         {[]string{"--config", write("d", "# "+strings.Repeat("x", maxConfigBytes))}, problem.InvalidFile},
		"not there":         {[]string{"--config", filepath.Join(dir, "none")}, problem.InvalidFile},
	} {
		if _, err := load(t, x.args...); err == nil || problem.CodeOf(err) != x.code {
			t.Errorf("%s: %v, want %s", what, err, x.code)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("state: /var/lib/seeder\nreleaseKeys: [a, b]\nreleaseThreshold: 2\n"))
	f.Add([]byte("state: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o := defaults()
		if err := parseYAML("f", b, &o); err != nil && problem.CodeOf(err) != problem.InvalidFile {
			t.Fatal(err)
		}
	})
}

func TestCommands(t *testing.T) {
	for _, x := range []struct {
		args []string
		exit problem.Exit
		out  string
	}{
		{[]string{"version"}, problem.ExitOK, "seeder "},
		{[]string{"serve", "--state", "/nowhere"}, problem.ExitUsage, ""},
		{[]string{"server"}, problem.ExitUsage, ""},
		{[]string{"--help"}, problem.ExitOK, "Usage"},
	} {
		var out, errs bytes.Buffer
		env := cli.Env{Args: x.args, Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Now: time.Now}
		if got := cli.Run(context.Background(), env, newRoot(env)); got != x.exit || !strings.Contains(out.String(), x.out) {
			t.Errorf("%v: exit %d\n%s%s", x.args, got, &out, &errs)
		}
	}
}
