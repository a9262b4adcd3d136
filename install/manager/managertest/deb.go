package managertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/manager/apt"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// Deb is the bed of apt and dpkg: roots with nothing but a static shell and an empty dpkg database, in which the
// apt-get and dpkg of this machine work.
func Deb() Bed { return deb{} }

type deb struct{}

func (deb) Format() manifest.Format { return manifest.FormatDeb }

func (deb) Arch() string { return "all" }

func (deb) Needs(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: dpkg sets owners and changes the root of scripts, run as root")
	}
	for name, from := range map[string]string{"apt-get": "apt", "apt-ftparchive": "apt-utils", "dpkg-deb": "dpkg", "busybox": "busybox-static", "perl": "perl-base", "gpgv": "gpgv"} {
		if !tool.Has(name) {
			t.Skip("needs " + name + ": apt-get install " + from)
		}
	}
}

// debKey is one to sign with.
type debKey struct {
	secret *openpgp.Entity
	public []byte // armoured
}

// debKeys sign the repositories of a test binary: the first is the one whose public half travels in the bundle.
var debKeys = sync.OnceValues(func() (keys [2]debKey, err error) {
	for i := range keys {
		priv, pub, _, err := signer.GenerateKey(signer.KeyOptions{Name: "repository", Email: strconv.Itoa(i) + "@example.com"})
		if err != nil {
			return keys, err
		}
		ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(priv))
		if err != nil {
			return keys, err
		}
		keys[i] = debKey{ring[0], pub}
	}
	return keys, nil
})

// output runs a tool of the bed and ends the test when it fails.
func output(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LC_ALL=C.UTF-8", "APT_CONFIG=/dev/null", "DEBIAN_FRONTEND=noninteractive"}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, errs.String())
	}
	return string(out)
}

func write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(content), mode)
	}
	if err == nil {
		err = os.Chmod(name, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const unitDir = "usr/lib/systemd/system"

// tree writes the files of a package below dir.
func tree(t testing.TB, dir string, p Package) {
	t.Helper()
	share := filepath.Join(dir, "usr/share", p.Name)
	write(t, filepath.Join(share, "version"), p.Version+"\n", 0o644)
	for i := range p.Files {
		write(t, filepath.Join(share, fmt.Sprintf("f%d", i)), fmt.Sprintf("%s %s %d\n", p.Name, p.Version, i), 0o644)
	}
	if p.Bytes > 0 {
		f, err := os.Create(filepath.Join(share, "ballast"))
		if err == nil {
			_, err = io.CopyN(f, rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32.32s", p.Name+p.Version)))), p.Bytes)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if p.Conffile != "" {
		write(t, filepath.Join(dir, "etc", p.Name+".conf"), p.Conffile, 0o644)
	}
	if p.Unit != "" {
		write(t, filepath.Join(dir, unitDir, p.Name+".service"), p.Unit, 0o644)
	}
}

// build makes one package in dir and returns its name.
func (deb) build(t testing.TB, dir string, p Package) string {
	t.Helper()
	from, err := os.MkdirTemp(dir, "tree")
	if err == nil {
		err = os.Chmod(from, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	tree(t, from, p)
	var c strings.Builder
	fmt.Fprintf(&c, "Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: test <test@example.com>\nInstalled-Size: %d\nDescription: test\n", p.Name, p.Version, 10+int64(p.Files)+p.Bytes/1024)
	list := func(field string, words []string) {
		if len(words) > 0 {
			fmt.Fprintf(&c, "%s: %s\n", field, strings.Join(words, ", "))
		}
	}
	var needs []string
	for _, d := range p.Depends {
		if name, version, ok := strings.Cut(d, " "); ok {
			d = name + " (" + version + ")"
		}
		needs = append(needs, d)
	}
	list("Depends", needs)
	list("Conflicts", p.Replaces)
	list("Replaces", p.Replaces)
	list("Provides", p.Replaces)
	write(t, filepath.Join(from, "DEBIAN/control"), c.String(), 0o644)
	if p.Conffile != "" {
		write(t, filepath.Join(from, "DEBIAN/conffiles"), "/etc/"+p.Name+".conf\n", 0o644)
	}
	for name, script := range map[string]string{"preinst": p.Pre, "postinst": p.Post} {
		if script != "" {
			write(t, filepath.Join(from, "DEBIAN", name), "#!/bin/sh\n"+script+"\n", 0o755)
		}
	}
	name := fmt.Sprintf("%s_%s_all.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"))
	output(t, dir, "dpkg-deb", "-Znone", "--root-owner-group", "-b", from, name)
	if err := os.RemoveAll(from); err != nil {
		t.Fatal(err)
	}
	return name
}

func (d deb) Repo(t testing.TB, s Spec) *Repo {
	t.Helper()
	r := &Repo{Spec: s, Dir: t.TempDir(), List: &packages.List{
		Schema: packages.Schema, Format: manifest.FormatDeb, Packages: []packages.Package{}, Remove: append([]string{}, s.Remove...),
		Keys: []string{"keys/repository.asc"}, Conffiles: s.Conffiles, Reboot: s.Reboot,
	}}
	if s.Conffiles == "" {
		r.List.Conffiles = packages.Keep
	}
	for _, p := range s.Packages {
		name := d.build(t, r.Dir, p)
		role := s.Roles[p.Name]
		if role == "" {
			role = packages.Update
		}
		r.List.Packages = append(r.List.Packages, packages.Package{Name: p.Name, Arch: "all", Version: p.Version, File: name, Role: role, InstalledBytes: 10<<10 + p.Bytes})
	}
	r.List.Sort()
	keys, err := debKeys()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.Dir, r.List.Keys[0]), string(keys[0].public), 0o644)
	write(t, filepath.Join(r.Dir, "Packages"), output(t, r.Dir, "apt-ftparchive", "packages", "."), 0o644)
	release(t, r, keys[0])
	r.Save(t)
	return r
}

// release writes InRelease; fields are more of its lines, or others in the place of the same.
func release(t testing.TB, r *Repo, key debKey, fields ...string) {
	t.Helper()
	os.Remove(filepath.Join(r.Dir, "InRelease"))
	text := output(t, r.Dir, "apt-ftparchive", "-o", "APT::FTPArchive::Release::Origin=test", "-o", "APT::FTPArchive::Release::Suite=test", "release", ".")
	for _, f := range fields {
		name, _, _ := strings.Cut(f, ":")
		lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.HasPrefix(l, name+":") })
		text = f + "\n" + strings.Join(lines, "\n")
	}
	text = strings.TrimSuffix(text, "\n")
	// RFC 9580, section 7: no line begins with a dash, and the end of the last line is not signed.
	var b bytes.Buffer
	fmt.Fprintf(&b, "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n%s\n", text)
	if err := openpgp.ArmoredDetachSign(&b, []*openpgp.Entity{key.secret}, strings.NewReader(text), &openpgp.SignParams{TextSig: true}); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	write(t, filepath.Join(r.Dir, "InRelease"), b.String(), 0o644)
}

// edit changes a file of a repository in place.
func edit(t testing.TB, r *Repo, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.Dir, name), string(change(b)), 0o644)
}

func (deb) Faults() []Fault {
	sign := func(which int, fields ...string) func(testing.TB, *Repo) {
		return func(t testing.TB, r *Repo) {
			keys, err := debKeys()
			if err != nil {
				t.Fatal(err)
			}
			release(t, r, keys[which], fields...)
		}
	}
	day := func(days int) string { return time.Now().UTC().AddDate(0, 0, days).Format(time.RFC1123) }
	change := func(name string, f func([]byte) []byte) func(testing.TB, *Repo) {
		return func(t testing.TB, r *Repo) { edit(t, r, name, f) }
	}
	file := func(r *Repo) string { return r.List.Packages[0].File }
	return []Fault{
		{Name: "wrong key", Make: sign(1), Believed: true, Kind: manager.Untrusted},
		{Name: "unsigned", Believed: true, Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) {
			edit(t, r, "InRelease", func(b []byte) []byte {
				_, text, _ := bytes.Cut(b, []byte("\n\n"))
				text, _, _ = bytes.Cut(text, []byte("-----BEGIN"))
				write(t, filepath.Join(r.Dir, "Release"), string(text), 0o644)
				return nil
			})
			os.Remove(filepath.Join(r.Dir, "InRelease"))
		}},
		{Name: "no key in the list", Make: func(_ testing.TB, r *Repo) { r.List.Keys = []string{} }, Kind: manager.Untrusted},
		{Name: "tampered InRelease", Make: change("InRelease", func(b []byte) []byte { return bytes.Replace(b, []byte("Suite: test"), []byte("Suite: evil"), 1) }), Believed: true, Kind: manager.Untrusted},
		{Name: "tampered Packages", Make: change("Packages", func(b []byte) []byte {
			return bytes.Replace(b, []byte("Description: test"), []byte("Description: evil"), 1)
		}), Believed: true, Kind: manager.Untrusted},
		{Name: "expired Valid-Until", Make: sign(0, "Date: "+day(-30), "Valid-Until: "+day(-20)), Believed: true, Harmless: true},
		{Name: "Date in the future", Make: sign(0, "Date: "+day(400)), Believed: true, Harmless: true},
		{Name: "package flipped", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) {
			edit(t, r, file(r), func(b []byte) []byte { b[len(b)-600] ^= 1; return b })
		}},
		{Name: "package swapped", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) {
			p := r.Spec.Packages[0]
			p.Post = "touch /evil"
			deb{}.build(t, r.Dir, p)
		}},
		{Name: "package missing", Kind: manager.Unresolved, Make: func(_ testing.TB, r *Repo) { os.Remove(filepath.Join(r.Dir, file(r))) }},
	}
}

func (d deb) Machine(t testing.TB, root string, installed ...Package) Machine {
	t.Helper()
	if root == "" {
		root = t.TempDir()
	}
	for _, dir := range []string{"usr/bin", "bin", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "var/lib/dpkg/info", "var/lib/dpkg/updates",
		"var/lib/dpkg/triggers", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, root)
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "", 0o644)
	write(t, filepath.Join(root, "var/lib/dpkg/available"), "", 0o644)
	if len(installed) > 0 {
		dir := t.TempDir()
		args := []string{"--root=" + root, "--force-depends", "-i"}
		for _, p := range installed {
			args = append(args, d.build(t, dir, p))
		}
		output(t, dir, "dpkg", args...)
	}
	return &debMachine{root: root}
}

// shell puts a static busybox into a root, and what scripts call.
func shell(t testing.TB, root string) {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "bin/busybox"), string(b), 0o755)
	for _, a := range []string{"sh", "sleep", "touch", "cat", "rm", "echo", "test", "false", "true"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
}

type debMachine struct{ root string }

func (m *debMachine) Root() string { return m.root }

func (m *debMachine) Manager(t testing.TB, r tool.Runner) manager.Manager {
	t.Helper()
	return apt.New(apt.Config{Root: m.root, Dir: t.TempDir(), Runner: r})
}

func (m *debMachine) Hold(t testing.TB, name string) {
	t.Helper()
	cmd := exec.Command("dpkg", "--root="+m.root, "--set-selections")
	cmd.Stdin = strings.NewReader(name + " hold\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("hold %s: %v\n%s", name, err, out)
	}
}

func (m *debMachine) Pin(t testing.TB, name, version string) {
	t.Helper()
	write(t, filepath.Join(m.root, "etc/apt/preferences.d", name), fmt.Sprintf("Package: %s\nPin: version %s\nPin-Priority: -1\n", name, version), 0o644)
}

func (m *debMachine) Auto(t testing.TB, name string) {
	t.Helper()
	arch := strings.TrimSpace(output(t, m.root, "dpkg", "--print-architecture"))
	f := filepath.Join(m.root, "var/lib/apt/extended_states")
	b, _ := os.ReadFile(f)
	write(t, f, fmt.Sprintf("%sPackage: %s\nArchitecture: %s\nAuto-Installed: 1\n\n", b, name, arch), 0o644)
}

func (m *debMachine) AddSource(t testing.TB, repo *Repo) {
	t.Helper()
	write(t, filepath.Join(m.root, "etc/apt/sources.list.d/other.list"), m.source(repo), 0o644)
}

func (m *debMachine) source(repo *Repo) string {
	return fmt.Sprintf("deb [signed-by=%s] file:%s ./\n", filepath.Join(repo.Dir, "keys/repository.asc"), repo.Dir)
}

func (m *debMachine) Locks() []Lock {
	var out []Lock
	for _, name := range []string{"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/cache/apt/archives/lock"} {
		out = append(out, Lock{Name: name, Stops: true, Take: func(t testing.TB) (int, func()) {
			return lockFile(t, filepath.Join(m.root, name))
		}})
	}
	return out
}

// lockFile has another process hold a lock of fcntl, as apt takes it. (No lock of flock: the two do not meet.)
func lockFile(t testing.TB, name string) (pid int, release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "perl", "-e", `use Fcntl qw(:DEFAULT :flock); open(F, ">>", $ARGV[0]) or die; my $l = pack("s s x4 q q l x4", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; $| = 1; print "held\n"; sleep 600`, name)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 5))
	}
	release = sync.OnceFunc(func() { cancel(); _ = cmd.Wait() })
	t.Cleanup(release)
	if err != nil {
		t.Fatalf("lock %s: %v", name, err)
	}
	return cmd.Process.Pid, release
}

func (m *debMachine) Naive(t testing.TB, repo *Repo) (int, string) {
	t.Helper()
	write(t, filepath.Join(m.root, "etc/apt/sources.list"), m.source(repo), 0o644)
	conf := filepath.Join(t.TempDir(), "apt.conf")
	write(t, conf, strings.ReplaceAll(`Dir "ROOT/"; Dir::State::status "ROOT/var/lib/dpkg/status"; Dir::Bin::dpkg "/usr/bin/dpkg"; Dir::Bin::methods "/usr/lib/apt/methods";
DPkg::Options { "--root=ROOT"; "--force-confdef"; "--force-confold"; }; Dir::Etc::parts "ROOT/etc/apt/apt.conf.d"; APT::Sandbox::User "root"; Acquire::Languages "none";
`, "ROOT", m.root), 0o644)
	exit, said := 0, ""
	for _, args := range [][]string{{"update"}, {"-y", "upgrade"}} { // "apt-get update; apt-get -y upgrade"
		cmd := exec.Command("apt-get", args...)
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "APT_CONFIG=" + conf}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		exit, said = cmd.ProcessState.ExitCode(), said+string(out)
	}
	return exit, said
}
