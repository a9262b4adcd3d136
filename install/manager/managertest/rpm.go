package managertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// RPM makes rpm packages with rpmbuild, signs them with rpmsign, and installs them into roots that hold a busybox as
// /bin/sh and nothing else. A package is built once for each directory.
type RPM struct {
	dir string

	mu    sync.Mutex
	built map[string]*build
}

// build is a thing that is made once, by whoever needs it first.
type build struct {
	once sync.Once
	path string
	err  error
}

var _ Bed = (*RPM)(nil)

// NewRPM makes a bed, which keeps what it built until Close.
func NewRPM() (*RPM, error) {
	dir, err := os.MkdirTemp("", "rpmbed")
	return &RPM{dir: dir, built: map[string]*build{}}, err
}

// Close ends the key agents and removes what was built.
func (b *RPM) Close() error {
	for _, k := range []string{goodKey, wrongKey} {
		if it := b.built["key "+k]; it != nil {
			_ = rpmTool(b.dir, []string{"GNUPGHOME=" + it.path}, "gpgconf", "--kill", "gpg-agent")
		}
	}
	return os.RemoveAll(b.dir)
}

// Format is rpm.
func (b *RPM) Format() manifest.Format { return manifest.FormatRPM }

// Arch is noarch.
func (b *RPM) Arch() string { return "noarch" }

// Needs skips where a tool or a right is missing.
func (b *RPM) Needs(t testing.TB) {
	t.Helper()
	for program, pkg := range map[string]string{"dnf-3": "dnf", "rpm": "rpm", "rpmbuild": "rpm", "rpmsign": "rpm", "createrepo_c": "createrepo-c", "gpg": "gnupg", "/bin/busybox": "busybox-static",
		"/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py": "dnf-plugins-core"} {
		if _, err := exec.LookPath(program); err != nil && !(strings.HasSuffix(program, ".py") && exists(program)) {
			t.Skip("needs " + program + ": apt-get install " + pkg)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: rpm --root changes its root directory")
	}
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

// once makes a thing under a key, in a directory of its own.
func (b *RPM) once(t testing.TB, key string, mk func(dir string) (string, error)) string {
	t.Helper()
	b.mu.Lock()
	if b.built[key] == nil {
		b.built[key] = new(build)
	}
	it, dir := b.built[key], filepath.Join(b.dir, fmt.Sprintf("b%d", len(b.built)))
	b.mu.Unlock()
	it.once.Do(func() {
		for {
			if it.err = os.Mkdir(dir, 0o700); !os.IsExist(it.err) {
				break
			}
			dir += "_"
		}
		if it.err == nil {
			it.path, it.err = mk(dir)
		}
	})
	if it.err != nil {
		t.Fatalf("%s: %v", key, it.err)
	}
	return it.path
}

// rpmTool runs a tool of the build side.
func rpmTool(dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}, env...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said)
	}
	return nil
}

// signer makes a key and returns its GnuPG directory, in which key.asc is the public half.
func (b *RPM) signer(t testing.TB, name string) string {
	return b.once(t, "key "+name, func(dir string) (string, error) {
		home := []string{"GNUPGHOME=" + dir}
		err := rpmTool(dir, home, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
		if err != nil {
			return "", err
		}
		return dir, rpmTool(dir, home, "gpg", "--batch", "--quiet", "--armor", "--output", "key.asc", "--export", name)
	})
}

// sign signs a package in place.
func (b *RPM) sign(t testing.TB, by, file string) error {
	home := b.signer(t, by)
	return rpmTool(home, []string{"GNUPGHOME=" + home}, "rpmsign", "--define=_gpg_name "+by, "--define=_gpg_path "+home, "--define=__gpg /usr/bin/gpg", "--addsign", file)
}

// The keys.
const (
	goodKey  = "bundle"
	wrongKey = "stranger"
)

// Build makes a signed package and returns its path.
func (b *RPM) Build(t testing.TB, p Package) string {
	t.Helper()
	return b.once(t, fmt.Sprintf("package %+v", p), func(dir string) (string, error) {
		if err := writeTree(filepath.Join(dir, "tree"), p); err != nil {
			return "", err
		}
		file, err := rpmbuild(dir, spec(p, filepath.Join(dir, "tree")))
		if err != nil {
			return "", err
		}
		return file, b.sign(t, goodKey, file)
	})
}

func writeTree(tree string, p Package) error {
	share := filepath.Join(tree, "usr/share", p.Name)
	files := map[string][]byte{"version": []byte(p.Version + "\n")}
	for i := range p.Files {
		files[fmt.Sprintf("f%d", i)] = fmt.Appendf(nil, "%s %s %d\n", p.Name, p.Version, i)
	}
	if p.Bytes > 0 {
		files["ballast"] = make([]byte, p.Bytes)
		_, _ = rand.NewChaCha8([32]byte{}).Read(files["ballast"])
	}
	if err := os.MkdirAll(share, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(share, name), content, 0o644); err != nil {
			return err
		}
	}
	if p.Unit != "" {
		units := filepath.Join(tree, unitDir)
		if err := errors.Join(os.MkdirAll(units, 0o755), os.WriteFile(filepath.Join(units, p.Name+".service"), []byte(p.Unit), 0o644)); err != nil {
			return err
		}
	}
	if p.Conffile == "" {
		return nil
	}
	if err := os.Mkdir(filepath.Join(tree, "etc"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tree, "etc", p.Name+".conf"), []byte(p.Conffile), 0o644)
}

func spec(p Package, tree string) string {
	version, release, _ := strings.Cut(p.Version, "-")
	s := fmt.Sprintf("Name: %s\nVersion: %s\nRelease: %s\nSummary: test\nLicense: MIT\nBuildArch: noarch\nAutoReqProv: no\n", p.Name, version, release)
	for _, d := range p.Depends {
		s += "Requires: " + d + "\n"
	}
	for _, r := range p.Replaces {
		s += "Obsoletes: " + r + "\nProvides: " + r + "\n"
	}
	s += "%description\ntest\n%install\nmkdir -p %{buildroot}\ncp -a " + tree + "/. %{buildroot}\n%files\n/usr/share/" + p.Name + "\n"
	if p.Conffile != "" {
		s += "%config(noreplace) /etc/" + p.Name + ".conf\n"
	}
	if p.Unit != "" {
		s += "/" + unitDir + "/" + p.Name + ".service\n"
	}
	for section, script := range map[string]string{"pre": p.Pre, "post": p.Post} {
		if script != "" {
			s += "%" + section + "\n" + script + "\n"
		}
	}
	return s
}

// rpmbuild builds the one package of a spec.
func rpmbuild(dir, spec string) (string, error) {
	if err := os.WriteFile(filepath.Join(dir, "a.spec"), []byte(spec), 0o644); err != nil {
		return "", err
	}
	if err := rpmTool(dir, nil, "rpmbuild", "--quiet", "-bb", "--define=_topdir "+dir+"/top", "--define=_rpmdir "+dir, "--define=_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
		"--define=_binary_payload w1.gzdio", "--define=debug_package %{nil}", "--define=__strip /bin/true", "--define=_build_id_links none", "a.spec"); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.rpm"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("built %q", found)
	}
	return found[0], nil
}

// BuildSpec makes a signed package of a spec file of the caller's and returns its path.
func (b *RPM) BuildSpec(t testing.TB, spec string) string {
	t.Helper()
	return b.once(t, "spec "+spec, func(dir string) (string, error) {
		file, err := rpmbuild(dir, spec)
		if err != nil {
			return "", err
		}
		return file, b.sign(t, goodKey, file)
	})
}

// Repo makes a repository.
func (b *RPM) Repo(t testing.TB, s Spec) *Repo { t.Helper(); return b.RepoOf(t, s) }

// RepoOf makes a repository with createrepo_c that holds, beside the packages of s, those that lie at the paths; s.Roles speaks of them too.
func (b *RPM) RepoOf(t testing.TB, s Spec, paths ...string) *Repo {
	t.Helper()
	r := &Repo{Spec: s, Dir: t.TempDir(), List: &packages.List{Schema: packages.Schema, Format: manifest.FormatRPM, Remove: append([]string{}, s.Remove...),
		Keys: []string{"key.asc"}, Conffiles: cmp.Or(s.Conffiles, packages.Keep), Reboot: s.Reboot}}
	copyFile(t, filepath.Join(b.signer(t, goodKey), "key.asc"), filepath.Join(r.Dir, "key.asc"))
	for _, p := range s.Packages {
		paths = append(paths, b.Build(t, p))
	}
	for _, from := range paths {
		file := filepath.Base(from)
		copyFile(t, from, filepath.Join(r.Dir, file))
		out, err := exec.CommandContext(t.Context(), "rpm", "-qp", "--nosignature", "--qf", "%{NAME} %{ARCH} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{SIZE}", from).Output()
		if err != nil {
			t.Fatal(err)
		}
		p := packages.Package{File: file}
		if _, err := fmt.Sscan(string(out), &p.Name, &p.Arch, &p.Version, &p.InstalledBytes); err != nil {
			t.Fatalf("%s: %q: %v", file, out, err)
		}
		p.Role = cmp.Or(s.Roles[p.Name], packages.Update)
		r.List.Packages = append(r.List.Packages, p)
	}
	r.List.Sort()
	index(t, r)
	r.Save(t)
	return r
}

// index makes the metadata of what lies in a repository now.
func index(t testing.TB, r *Repo) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(r.Dir, "repodata")); err != nil {
		t.Fatal(err)
	}
	if err := rpmTool(r.Dir, nil, "createrepo_c", "--quiet", "--simple-md-filenames", "--workers=1", "."); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Faults are those of packages.md section 1.
func (b *RPM) Faults() []Fault {
	file := func(r *Repo, i int) string { return filepath.Join(r.Dir, r.List.Packages[i].File) }
	must := func(t testing.TB, errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(name string) error {
		c, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		c[len(c)/2] ^= 1
		return os.WriteFile(name, c, 0o644)
	}
	unsign := func(t testing.TB, r *Repo, n int) {
		for i := range n {
			must(t, rpmTool(r.Dir, nil, "rpmsign", "--delsign", file(r, i)))
		}
		index(t, r)
	}
	return []Fault{
		{Name: "repository missing", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) { must(t, os.RemoveAll(filepath.Join(r.Dir, "repodata"))) }},
		{Name: "repomd corrupt", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) {
			must(t, os.WriteFile(filepath.Join(r.Dir, "repodata/repomd.xml"), []byte("<repomd"), 0o644))
		}},
		{Name: "primary corrupt", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) { must(t, flip(filepath.Join(r.Dir, "repodata/primary.xml.gz"))) }},
		{Name: "rpm swapped", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) {
			p := r.Spec.Packages[0]
			p.Version = "0.1-1"
			i := slices.IndexFunc(r.List.Packages, func(l packages.Package) bool { return l.Name == p.Name })
			copyFile(t, b.Build(t, p), file(r, i))
		}},
		{Name: "rpm flipped", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) { must(t, flip(file(r, 0))) }},
		{Name: "rpm missing", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) { must(t, os.Remove(file(r, 0))) }},
		{Name: "unsigned", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) { unsign(t, r, len(r.List.Packages)) }},
		{Name: "partly unsigned", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) { unsign(t, r, 1) }},
		{Name: "wrong key", Kind: manager.Untrusted, Make: func(t testing.TB, r *Repo) {
			must(t, rpmTool(r.Dir, nil, "rpmsign", "--delsign", file(r, 0)), b.sign(t, wrongKey, file(r, 0)))
			index(t, r)
		}},
	}
}

// Machine copies a root with a shell in it and has rpm install the packages.
func (b *RPM) Machine(t testing.TB, root string, installed ...Package) Machine {
	t.Helper()
	var paths []string
	for _, p := range installed {
		paths = append(paths, b.Build(t, p))
	}
	return b.MachineOf(t, root, paths...)
}

// MachineOf is Machine with packages that lie at the paths.
func (b *RPM) MachineOf(t testing.TB, root string, paths ...string) Machine {
	t.Helper()
	if root == "" {
		root = t.TempDir()
	}
	if err := rpmTool(root, nil, "cp", "-a", b.base(t)+"/.", root); err != nil {
		t.Fatal(err)
	}
	m := b.MachineAt(root)
	if len(paths) > 0 {
		if err := rpmTool(root, nil, "rpm", append([]string{"--root=" + root, "--nosignature", "--nodeps", "-i"}, paths...)...); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// MachineAt is a machine whose root is there already.
func (b *RPM) MachineAt(root string) Machine { return &rpmMachine{root: root, bed: b} }

// distribution is what Debian ships as dnf.conf; others differ, none in a way that helps.
const distribution = "[main]\ngpgcheck=True\ninstallonly_limit=3\nclean_requirements_on_remove=True\nbest=False\nskip_if_unavailable=True\n"

// base is a root with a shell.
func (b *RPM) base(t testing.TB) string {
	return b.once(t, "base", func(dir string) (string, error) {
		file, err := rpmbuild(dir, `Name: tinybase
Version: 1
Release: 1
Summary: shell
License: GPL-2.0
Provides: /bin/sh
AutoReqProv: no
%description
shell
%install
mkdir -p %{buildroot}/bin
cp /bin/busybox %{buildroot}/bin/busybox
for a in sh sleep touch cat rm echo test mkdir mv kill true false; do ln -s busybox %{buildroot}/bin/$a; done
%files
/bin/*
`)
		if err != nil {
			return "", err
		}
		root := filepath.Join(dir, "root")
		for _, d := range []string{"etc/dnf/plugins", "etc/yum.repos.d", "var/tmp", "tmp", "root"} {
			if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
				return "", err
			}
		}
		for name, text := range map[string]string{"dnf.conf": distribution, "plugins/versionlock.list": ""} {
			if err := os.WriteFile(filepath.Join(root, "etc/dnf", name), []byte(text), 0o644); err != nil {
				return "", err
			}
		}
		return root, rpmTool(dir, nil, "rpm", "--root="+root, "-i", file)
	})
}
