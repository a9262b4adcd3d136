package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// readmeBlock returns the block of commands in README.md that stands under the given comment.
func readmeBlock(t *testing.T, comment string) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), "<!-- "+comment+" -->\n```sh\n")
	block, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatalf("README.md has no block under %q", comment)
	}
	return block
}

func meshctl(t *testing.T, args ...string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.System()
	env.Args, env.Stdout, env.Stderr = args, &out, &errs
	if exit := cli.Run(t.Context(), env, newRoot(env)); exit != problem.ExitOK {
		t.Fatalf("meshctl %v: exit status %d\n%s", args, exit, errs.String())
	}
}

// The README promises that stock tools can check a bundle: its own words are run, on a good bundle and on bad ones.
func TestReadmeVerify(t *testing.T) {
	if _, err := exec.LookPath("gpgv"); err != nil {
		t.Skip("needs gpgv: apt-get install gpgv")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "readme.sh")
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(script, "set -e\n"+readmeBlock(t, "A test runs this block as it stands."))
	write(filepath.Join(dir, "app/hello"), "hello\n")
	write(filepath.Join(dir, "app/a name with spaces"), "spaces\n")
	meshctl(t, "key", "generate", filepath.Join(dir, "release"))
	meshctl(t, "key", "generate", filepath.Join(dir, "other"))
	bundle := filepath.Join(dir, "app-1.2.bundle")
	meshctl(t, "bundle", "build", "--name", "app", "--version", "1.2", "--sequence", "12", "--from", filepath.Join(dir, "app"), "--out", bundle,
		"--key", filepath.Join(dir, "release.key"))

	check := func() error {
		cmd := exec.Command("bash", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := check(); err != nil {
		t.Fatalf("a good bundle is refused: %v", err)
	}
	for _, name := range []string{"content/hello", "index.json", "manifest.json", "SHA256SUMS"} {
		path := filepath.Join(bundle, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		write(path, string(bad))
		if check() == nil {
			t.Errorf("a flipped bit in %s is accepted", name)
		}
		write(path, string(good))
	}
	ring, err := os.ReadFile(filepath.Join(dir, "other.gpg"))
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "release.gpg"), string(ring))
	if check() == nil {
		t.Error("a signature by another key is accepted")
	}
}
