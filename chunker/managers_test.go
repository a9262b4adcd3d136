package chunker

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// aptRoot makes an empty root in which the apt-get and dpkg of this machine work, configured by one file that is read
// instead of the machine's own configuration. Nothing outside of the root is read or changed.
func aptRoot(t *testing.T, repo string) (root string, env []string) {
	t.Helper()
	root = t.TempDir()
	for _, d := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d", "var/lib/dpkg/info", "var/lib/dpkg/updates",
		"var/lib/dpkg/triggers", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		full := filepath.Join(root, name)
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return full
	}
	write("var/lib/dpkg/status", "")
	write("var/lib/dpkg/available", "")
	write("etc/apt/sources.list", "deb [signed-by="+repo+"/keys/repository.gpg] file:"+repo+" ./\n")
	conf := write("etc/apt/own.conf", strings.ReplaceAll(`Dir "ROOT/"; Dir::Etc "ROOT/etc/apt"; Dir::Etc::parts "ROOT/etc/apt/apt.conf.d"; Dir::Etc::main "none";
Dir::Etc::sourceparts "-"; Dir::State "ROOT/var/lib/apt"; Dir::State::status "ROOT/var/lib/dpkg/status"; Dir::Cache "ROOT/var/cache/apt";
Dir::Log "ROOT/var/log/apt"; Dir::Bin::dpkg "/usr/bin/dpkg"; Dir::Bin::methods "/usr/lib/apt/methods";
DPkg::Options { "--root=ROOT"; "--force-not-root"; "--force-bad-path"; }; Dpkg::Use-Pty "0"; APT::Sandbox::User "root";
APT::Update::Error-Mode "any"; Acquire::Languages "none"; APT::Architecture "amd64";
`, "ROOT", root))
	return root, []string{"APT_CONFIG=" + conf, "DEBIAN_FRONTEND=noninteractive"}
}

// The real apt-get installs and upgrades from the content of a bundle as it is.
func TestAptAcceptsTheRepository(t *testing.T) {
	needs(t, "apt-get", "apt")
	needs(t, "apt-ftparchive", "apt-utils")
	needs(t, "dpkg-deb", "dpkg")
	if os.Getuid() != 0 {
		t.Skip("needs root: dpkg sets the owner of what it unpacks, run as root")
	}
	repo := filepath.Join(t.TempDir(), "repo")
	root, env := aptRoot(t, repo)
	for _, version := range []string{"1.0", "2.0"} {
		debs := t.TempDir()
		makeDeb(t, debs, "demo", version)
		makeDeb(t, debs, "demolib", version)
		b := build(t, sample(), ofFormat(manifest.FormatDeb, debs))
		os.RemoveAll(repo)
		if err := os.CopyFS(repo, os.DirFS(filepath.Join(b.Dir, ContentName))); err != nil {
			t.Fatal(err)
		}
		out := command(t, root, env, "apt-get", "update")
		out += command(t, root, env, "apt-get", "-y", "install", "demo="+version, "demolib="+version)
		if got, err := os.ReadFile(filepath.Join(root, "usr/share/demo/version")); err != nil || string(got) != "demo "+version+"\n" {
			t.Errorf("%s: installed %q, %v\n%s", version, got, err, out)
		}
	}
	// The control: apt compares what it reads with Release.
	edit(t, filepath.Join(repo, "Packages"), func(b []byte) []byte { return append(b, "\nPackage: evil\n"...) })
	os.RemoveAll(filepath.Join(root, "var/lib/apt/lists"))
	os.MkdirAll(filepath.Join(root, "var/lib/apt/lists/partial"), 0o755)
	cmd := exec.Command("apt-get", "update")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("apt-get update accepts a changed Packages file\n%s", out)
	}
}

// The real dnf installs and upgrades from the content of a bundle as it is.
func TestDnfAcceptsTheRepository(t *testing.T) {
	needs(t, "dnf", "dnf")
	needs(t, "createrepo_c", "createrepo-c")
	needs(t, "rpmbuild", "rpm")
	if os.Getuid() != 0 {
		t.Skip("needs root: rpm works in a root of its own, run as root")
	}
	root, home := t.TempDir(), t.TempDir()
	for _, version := range []string{"1.0", "2.0"} {
		rpms := t.TempDir()
		makeRPM(t, rpms, "demo", version)
		makeRPM(t, rpms, "demolib", version)
		vendor(t, rpms)
		b := build(t, sample(), ofFormat(manifest.FormatRPM, rpms))
		out := command(t, root, []string{"HOME=" + home}, "dnf", "--installroot="+root, "--releasever=1", "--setopt=reposdir=/dev/null",
			"--setopt=cachedir="+t.TempDir(), "--setopt=logdir="+t.TempDir(), "--setopt=plugins=0", "--setopt=install_weak_deps=0", "--setopt=skip_if_unavailable=False",
			"--disablerepo=*", "--repofrompath=local-patch,file://"+filepath.Join(b.Dir, ContentName), "--enablerepo=local-patch",
			"--setopt=local-patch.gpgcheck=1", "--setopt=local-patch.gpgkey=file://"+filepath.Join(b.Dir, ContentName, "keys/vendor.asc"), "-y", "install", "demo-"+version, "demolib-"+version)
		if got, err := os.ReadFile(filepath.Join(root, "usr/share/demo/version")); err != nil || string(got) != "demo "+version+"\n" {
			t.Errorf("%s: installed %q, %v\n%s", version, got, err, out)
		}
	}
}

// A node's clock may show anything: apt accepts the repository in 1970 and in 2099. A Release with the date of the build,
// as repositories usually have it, is refused by the clock that is behind (the control).
func TestAptAcceptsAnyClock(t *testing.T) {
	needs(t, "apt-get", "apt")
	needs(t, "apt-ftparchive", "apt-utils")
	needs(t, "dpkg-deb", "dpkg")
	needs(t, "faketime", "faketime")
	debs := t.TempDir()
	makeDeb(t, debs, "demo", "1.0")
	b := build(t, sample(), ofFormat(manifest.FormatDeb, debs))
	repo := filepath.Join(b.Dir, ContentName)
	update := func(repo, clock string) error {
		root, env := aptRoot(t, repo)
		cmd := exec.Command("faketime", "-f", clock, "apt-get", "update")
		cmd.Dir, cmd.Env = root, append(append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8"), env...)
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %v\n%s", clock, err, out)
		return err
	}
	for _, clock := range []string{"@1970-01-01 00:01:00", "@2026-11-21 10:00:00", "@2099-12-31 23:59:59"} {
		if err := update(repo, clock); err != nil {
			t.Errorf("at %s: %v", clock, err)
		}
	}
	// The control.
	altered := filepath.Join(t.TempDir(), "altered")
	if err := os.CopyFS(altered, os.DirFS(repo)); err != nil {
		t.Fatal(err)
	}
	text := command(t, repo, nil, "gpgv", "--keyring", RepoKeyName, "--output", "-", "--quiet", "InRelease")
	text = text[strings.Index(text, "Date:"):strings.Index(text, "gpgv:")]
	signed, err := repoKey(t).ClearSign([]byte(strings.Replace(text, repoDate.Format(releaseDate), created.Format(releaseDate), 1)), created)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(altered, "InRelease"), signed, 0o644)
	os.WriteFile(filepath.Join(altered, RepoKeyName), repoKey(t).Public().Raw, 0o644)
	if err := update(altered, "@2026-11-21 10:00:00"); err != nil {
		t.Errorf("the control is refused by a right clock: %v", err)
	}
	if err := update(altered, "@1970-01-01 00:01:00"); err == nil {
		t.Error("a Release of today is accepted in 1970: this test sees nothing")
	}
}
