package collect

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

func needs(t testing.TB, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("needs " + program + ": apt-get install " + debianPackage)
	}
}

// command runs a program, which must succeed, and returns its standard output.
func command(t testing.TB, dir string, env []string, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "LC_ALL=C.UTF-8"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return out
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return name
}

// wantCode wants a problem of a code whose text has these words.
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

// archive is a Debian archive of the test's own, with a suite "stable" and a component "main", signed.
type archive struct {
	t    testing.TB
	dir  string
	key  *signer.KeyFile
	ring string // file of the public key
}

func newArchive(t testing.TB) *archive {
	t.Helper()
	needs(t, "apt-get", "apt")
	needs(t, "apt-ftparchive", "apt-utils")
	needs(t, "dpkg-deb", "dpkg")
	priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: "archive"})
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{t: t, dir: t.TempDir()}
	if a.key, err = signer.FromKey(priv, nil); err != nil {
		t.Fatal(err)
	}
	a.ring = write(t, filepath.Join(t.TempDir(), "archive.gpg"), string(a.key.Public().Raw))
	return a
}

// deb adds a package; extra are more lines of its control file.
func (a *archive) deb(name, version, arch string, extra ...string) {
	a.t.Helper()
	dir := a.t.TempDir()
	os.Chmod(dir, 0o755)
	write(a.t, filepath.Join(dir, "usr/share", name, "version"), name+" "+version+"\n")
	write(a.t, filepath.Join(dir, "DEBIAN/control"), "Package: "+name+"\nVersion: "+version+"\nArchitecture: "+arch+
		"\nMaintainer: test <test@example.org>\nInstalled-Size: 10\n"+strings.Join(append(extra, "Description: test\n"), "\n"))
	os.MkdirAll(filepath.Join(a.dir, "pool"), 0o755)
	_, plain, ok := strings.Cut(version, ":")
	if !ok {
		plain = version
	}
	command(a.t, dir, nil, "dpkg-deb", "--root-owner-group", "-b", dir, filepath.Join(a.dir, "pool", name+"_"+plain+"_"+arch+".deb"))
}

// publish makes and signs the metadata.
func (a *archive) publish() {
	a.t.Helper()
	list := command(a.t, a.dir, nil, "apt-ftparchive", "packages", "pool")
	write(a.t, filepath.Join(a.dir, "dists/stable/main/binary-amd64/Packages"), string(list))
	release := command(a.t, a.dir, nil, "apt-ftparchive", "-o", "APT::FTPArchive::Release::Suite=stable", "-o", "APT::FTPArchive::Release::Components=main",
		"-o", "APT::FTPArchive::Release::Architectures=amd64 i386", "release", "dists/stable")
	in, err := a.key.ClearSign(release, a.key.Public().Created)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, filepath.Join(a.dir, "dists/stable/InRelease"), string(in))
}

// source is the line of sources.list.
func (a *archive) source() string {
	return "deb [signed-by=" + a.ring + "] file:" + a.dir + " stable main"
}

func (a *archive) options(lists ...string) Options {
	return Options{Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64", Format: manifest.FormatDeb},
		Installed: lists, Sources: []string{a.source()}, Dest: filepath.Join(a.t.TempDir(), "collected")}
}

// dpkgStatus writes a status file: "NAME VERSION [LINE...]" each, lines of the stanza separated by semicolons.
func dpkgStatus(t testing.TB, packages ...string) string {
	t.Helper()
	var b strings.Builder
	for _, p := range packages {
		f := strings.Split(p, ";")
		name, version, _ := strings.Cut(f[0], " ")
		b.WriteString("Package: " + name + "\nStatus: install ok installed\nMaintainer: x\nArchitecture: all\nVersion: " + version + "\nDescription: x\n")
		for _, line := range f[1:] {
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
		b.WriteString("\n")
	}
	return write(t, filepath.Join(t.TempDir(), "status"), b.String())
}
