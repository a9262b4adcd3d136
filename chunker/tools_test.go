package chunker

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/bed/gpghome"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// needs skips a test on a machine without a program.
func needs(t testing.TB, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("needs " + program + ": apt-get install " + debianPackage)
	}
}

// command runs a program and returns what it says; it must succeed.
func command(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"LC_ALL=C.UTF-8"}, env...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A bundle can be checked without any program of ours, by the commands that the README shows.
func TestStockTools(t *testing.T) {
	needs(t, "gpgv", "gpgv")
	needs(t, "sha256sum", "coreutils")
	release, policy, _ := keys(t)
	b := build(t, sample())
	ring := func(keyring []byte) string {
		name := filepath.Join(t.TempDir(), "release.gpg")
		if err := os.WriteFile(name, keyring, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := ring(roleKeys(t, 1, release).Keyring)
	for _, name := range []string{ManifestName, SumsName} {
		out := command(t, b.Dir, nil, "gpgv", "--keyring", good, name+".asc", name)
		if !strings.Contains(out, "Good signature") {
			t.Error(out)
		}
	}
	command(t, b.Dir, nil, "sha256sum", "--strict", "--check", SumsName)

	// They see what we see.
	cmd := exec.Command("gpgv", "--keyring", ring(roleKeys(t, 1, policy).Keyring), "manifest.json.asc", "manifest.json")
	cmd.Dir = b.Dir
	if err := cmd.Run(); err == nil {
		t.Error("gpgv accepts a key that is not in the keyring")
	}
	edit(t, filepath.Join(b.Dir, "content/data/map.bin"), func(b []byte) []byte { b[1] ^= 1; return b })
	cmd = exec.Command("sha256sum", "--strict", "--check", SumsName)
	cmd.Dir = b.Dir
	if err := cmd.Run(); err == nil {
		t.Error("sha256sum accepts a changed file")
	}
}

// makeDeb builds a package with dpkg-deb.
func makeDeb(t testing.TB, out, name, version string) {
	t.Helper()
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	os.MkdirAll(filepath.Join(dir, "DEBIAN"), 0o755)
	os.MkdirAll(filepath.Join(dir, "usr/share", name), 0o755)
	os.WriteFile(filepath.Join(dir, "usr/share", name, "version"), []byte(name+" "+version+"\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "DEBIAN/control"), []byte("Package: "+name+"\nVersion: "+version+
		"\nArchitecture: all\nMaintainer: test <test@example.org>\nInstalled-Size: 10\nDescription: test "+name+"\n"), 0o644)
	command(t, dir, []string{"SOURCE_DATE_EPOCH=1700000000"}, "dpkg-deb", "--root-owner-group", "-b", dir,
		filepath.Join(out, name+"_"+version+"_all.deb"))
}

// makeRPM builds a package with rpmbuild.
func makeRPM(t testing.TB, out, name, version string) {
	t.Helper()
	dir := t.TempDir()
	spec := filepath.Join(dir, name+".spec")
	os.WriteFile(spec, []byte(`Name: `+name+`
Version: `+version+`
Release: 1
Summary: test package
License: MIT
BuildArch: noarch
%description
test
%install
mkdir -p %{buildroot}/usr/share/`+name+`
echo "`+name+` `+version+`" > %{buildroot}/usr/share/`+name+`/version
%files
/usr/share/`+name+`
`), 0o644)
	command(t, dir, []string{"HOME=" + dir}, "rpmbuild", "--quiet", "-bb", "--define", "_topdir "+dir+"/top", "--define", "_rpmdir "+out,
		"--define", "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", spec)
}

func ofFormat(f manifest.Format, from string) func(*BuildOptions) {
	return func(o *BuildOptions) { o.Target.Format, o.From = f, from }
}

// repoKey is one key for the repositories of the tests, so that they can be built twice.
func repoKey(t testing.TB) *signer.KeyFile {
	release, _, _ := keys(t)
	return release
}

// vendor makes a key, and signs the rpm packages in dirs with it, which get its public half in keys/.
func vendor(t testing.TB, dirs ...string) {
	t.Helper()
	needs(t, "rpmsign", "rpm")
	needs(t, "gpg", "gnupg")
	home := gpghome.New(t).Dir
	env := []string{"GNUPGHOME=" + home}
	command(t, home, env, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "vendor <vendor@example.org>", "ed25519", "sign", "never")
	public := command(t, home, env, "gpg", "--armor", "--export")
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		rpms, err := filepath.Glob(filepath.Join(dir, "*.rpm"))
		if err != nil || len(rpms) == 0 {
			t.Fatalf("%s: %v, %v", dir, rpms, err)
		}
		command(t, dir, append(env, "HOME="+home), "rpmsign", append([]string{"--addsign", "--define", "_gpg_name vendor", "--define", "__gpg " + gpg}, rpms...)...)
		os.Mkdir(filepath.Join(dir, KeysDir), 0o755)
		if err := os.WriteFile(filepath.Join(dir, KeysDir, "vendor.asc"), []byte(public), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDebBundle(t *testing.T) {
	needs(t, "apt-ftparchive", "apt-utils")
	needs(t, "dpkg-deb", "dpkg")
	v1, v2 := t.TempDir(), t.TempDir()
	makeDeb(t, v1, "demo", "1.0")
	makeDeb(t, v1, "demolib", "1.0")
	makeDeb(t, v1, "gone", "3")
	os.Mkdir(filepath.Join(v2, "pool"), 0o755)
	makeDeb(t, filepath.Join(v2, "pool"), "zlast", "1.0") // the order of the file system is not that of the metadata
	makeDeb(t, v2, "demo", "2.0")
	makeDeb(t, v2, "demolib", "1.0")
	repoBundle(t, manifest.FormatDeb, v1, v2, []string{"InRelease", "Packages", "demo_2.0_all.deb", "demolib_1.0_all.deb", "keys/repository.gpg", "packages.json", "pool/zlast_1.0_all.deb"},
		[]packages.Change{{Name: "demo", Arch: "all", From: "1.0", To: "2.0"}, {Name: "gone", Arch: "all", From: "3"}, {Name: "zlast", Arch: "all", To: "1.0"}})
	os.WriteFile(filepath.Join(v1, "junk.deb"), []byte("junk"), 0o644)
	o := options(v1, filepath.Join(t.TempDir(), "b"))
	o.Target.Format = manifest.FormatDeb
	_, err := Build(t.Context(), o)
	wantCode(t, err, problem.InvalidFile, "junk.deb")
}

func TestRPMBundle(t *testing.T) {
	needs(t, "createrepo_c", "createrepo-c")
	needs(t, "rpmbuild", "rpm")
	v1, v2 := t.TempDir(), t.TempDir()
	makeRPM(t, v1, "demo", "1.0")
	makeRPM(t, v1, "demolib", "1.0")
	makeRPM(t, v2, "demo", "2.0")
	vendor(t, v1, v2)
	if err := os.Link(filepath.Join(v1, "demolib-1.0-1.noarch.rpm"), filepath.Join(v2, "demolib-1.0-1.noarch.rpm")); err != nil {
		t.Fatal(err)
	}
	repoBundle(t, manifest.FormatRPM, v1, v2, nil, []packages.Change{{Name: "demo", Arch: "noarch", From: "1.0-1", To: "2.0-1"}})
	os.WriteFile(filepath.Join(v1, "junk.rpm"), []byte("junk"), 0o644)
	o := options(v1, filepath.Join(t.TempDir(), "b"))
	o.Target.Format = manifest.FormatRPM
	_, err := Build(t.Context(), o)
	wantCode(t, err, problem.SignatureInvalid, "junk.rpm", "rpmsign")
}

// repoBundle builds the second directory twice, from copies made in other orders at other times, and compares it with the first.
func repoBundle(t *testing.T, format manifest.Format, v1, v2 string, paths []string, changes []packages.Change) {
	t.Helper()
	withKey := func(o *BuildOptions) { o.Packages.RepoKey = repoKey(t) }
	old := build(t, sample(), ofFormat(format, v1), withKey)
	b := build(t, sample(), ofFormat(format, v2), withKey)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(v2)); err != nil {
		t.Fatal(err)
	}
	again := build(t, sample(), ofFormat(format, copied), withKey)
	if !bytes.Equal(b.Signed.Doc, again.Signed.Doc) {
		t.Errorf("two manifests from the same packages:\n%s", cmp.Diff(b.Index, again.Index))
	}
	if err := verify(t, b.Dir); err != nil {
		t.Error(err)
	}
	var got []string
	for _, f := range b.Index.Files {
		got = append(got, f.Path)
	}
	if diff := cmp.Diff(paths, got); paths != nil && diff != "" {
		t.Error(diff)
	}
	d, err := Diff(old, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changes, d.Packages); diff != "" {
		t.Error(diff)
	}
	if d.ReusedBytes == 0 || d.NewBytes == 0 || d.NewBytes+d.ReusedBytes != b.Catalog().Bytes() {
		t.Errorf("difference: %+v", d)
	}
	same, err := Diff(b, again)
	if err != nil || same.NewChunks != 0 || len(same.Packages)+len(same.Added)+len(same.Removed)+len(same.Changed) != 0 {
		t.Errorf("difference to itself: %+v, %v", same, err)
	}
}

func TestMissingTool(t *testing.T) {
	for format, c := range map[manifest.Format]struct{ file, program, debianPackage string }{
		manifest.FormatRPM: {"x.rpm", "rpmkeys", "rpm"}, manifest.FormatDeb: {"x.deb", "apt-ftparchive", "apt-utils"},
	} {
		o := options(tree(t, files{c.file: "x", "keys/a.asc": "x"}), filepath.Join(t.TempDir(), "b"))
		o.Target.Format = format
		t.Setenv("PATH", t.TempDir())
		_, err := Build(t.Context(), o)
		wantCode(t, err, problem.MissingTool, c.program, "apt-get install "+c.debianPackage)
		if left := list(t, filepath.Dir(o.Out)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestDiffFiles(t *testing.T) {
	a := build(t, files{"gone": "1", "kept": "2", "mode": "3", "new content": "4"})
	b := build(t, files{"added": "0", "kept": "2", "mode*": "3", "new content": "5"})
	d, err := Diff(a, b)
	if err != nil {
		t.Fatal(err)
	}
	// The index is new as a whole; it travels too.
	want := &Difference{From: a.Digest, To: b.Digest, Packages: []packages.Change{}, Added: []string{"added"}, Removed: []string{"gone"},
		Changed: []string{"mode", "new content"}, NewChunks: 3, NewBytes: 2 + b.Manifest.Index.Size, ReusedChunks: 2, ReusedBytes: 2}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}
