package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

func needTools(t *testing.T, packages map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run as root, package managers chown what they install")
	}
	for tool, pkg := range packages {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool + ": apt-get install " + pkg)
		}
	}
}

// sh runs a program, without a network, and ends the test when it fails.
func sh(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("unshare", append([]string{"-n"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, env...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, name, []byte(content))
}

// layOut makes a bundle of a repository and applies it: laid out, and deferred because nobody installs packages yet.
func layOut(t *testing.T, b *installtest.Bench, repo string, format manifest.Format, sequence uint64) {
	t.Helper()
	files, err := installtest.Tree(repo)
	if err != nil {
		t.Fatal(err)
	}
	v := b.Bundle(t, installtest.Spec{Name: "os", Version: fmt.Sprint(sequence), Sequence: sequence, Format: format, Files: files})
	req := b.WriteRequest(t, v, installtest.Want{})
	for range 2 { // the second time there is nothing to do, and it still says what is missing
		r := do(t, b, "apply", "--request", req)
		if r.Exit != install.ExitDeferred || r.Reason != install.ReasonInstallerMissing || r.Installed == nil || r.Installed.Sequence != sequence {
			t.Fatalf("%+v", r)
		}
	}
	if got, err := b.InForce("os", v); err != nil || got != v {
		t.Fatalf("in force: %v, %v", got, err)
	}
}

// The real apt installs, and then upgrades, from what was laid out, with the fragment as its only source.
func TestAptAcceptsIt(t *testing.T) {
	needTools(t, map[string]string{"apt-ftparchive": "apt-utils", "dpkg-deb": "dpkg", "apt-get": "apt", "unshare": "util-linux"})
	b := installtest.New(t, nil)
	root := filepath.Join(b.Dir, "machine")
	for _, d := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d", "var/lib/dpkg/info", "var/lib/dpkg/updates",
		"var/lib/dpkg/triggers", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root+"/var/lib/dpkg/status", "")
	write(t, root+"/var/lib/dpkg/available", "")
	// All settings in one file: what is named by APT_CONFIG is read before the machine's own configuration.
	write(t, root+"/apt.conf", fmt.Sprintf(`Dir "%[1]s/"; Dir::Etc "%[1]s/etc/apt"; Dir::Etc::parts "%[1]s/etc/apt/apt.conf.d"; Dir::Etc::main "none";
Dir::Etc::sourceparts "-"; Dir::Etc::sourcelist "%[2]s/os/patchmesh-os.list";
Dir::State "%[1]s/var/lib/apt"; Dir::State::status "%[1]s/var/lib/dpkg/status"; Dir::Cache "%[1]s/var/cache/apt"; Dir::Log "%[1]s/var/log/apt";
Dir::Bin::dpkg "/usr/bin/dpkg"; Dir::Bin::methods "/usr/lib/apt/methods"; DPkg::Options { "--root=%[1]s"; }; Dpkg::Use-Pty "0";
APT::Sandbox::User "root"; APT::Update::Error-Mode "any"; Acquire::Languages "none";
`, root, b.Config.Root))
	env := []string{"APT_CONFIG=" + root + "/apt.conf"}
	for n, version := range []string{"1.0", "2.0"} {
		repo, build := t.TempDir(), t.TempDir()
		if err := os.Chmod(build, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, build+"/DEBIAN/control", "Package: demo\nVersion: "+version+"\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: demo\n")
		write(t, build+"/usr/share/demo/version", "demo "+version+"\n")
		sh(t, repo, nil, "dpkg-deb", "--root-owner-group", "-b", build, filepath.Join(repo, "demo_"+version+"_all.deb"))
		write(t, repo+"/Packages", sh(t, repo, nil, "apt-ftparchive", "packages", "."))
		release := sh(t, repo, nil, "apt-ftparchive", "release", ".")
		write(t, repo+"/Release", release)
		layOut(t, b, repo, manifest.FormatDeb, uint64(n+1))
		sh(t, "/", env, "apt-get", "update")
		sh(t, "/", env, "apt-get", "-y", "install", "demo="+version)
		if got, err := os.ReadFile(root + "/usr/share/demo/version"); err != nil || string(got) != "demo "+version+"\n" {
			t.Fatalf("installed %q, %v", got, err)
		}
	}
}

// The real dnf installs, and then upgrades, from what was laid out, with the fragment as its only repository and with
// the signatures of the packages checked.
func TestDnfAcceptsIt(t *testing.T) {
	needTools(t, map[string]string{"rpmbuild": "rpm", "rpmsign": "rpm", "createrepo_c": "createrepo-c", "dnf": "dnf", "gpg": "gnupg", "unshare": "util-linux"})
	b := installtest.New(t, nil)
	root, home := filepath.Join(b.Dir, "machine"), filepath.Join(b.Dir, "home")
	for _, d := range []string{root, home} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"HOME=" + home, "GNUPGHOME=" + home}
	sh(t, "/", env, "gpg", "--batch", "--passphrase", "", "--quick-generate-key", "packages@example.com", "rsa3072", "sign", "never")
	defer exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() // the agent that gpg started for this home
	write(t, home+"/key.asc", sh(t, "/", env, "gpg", "--armor", "--export", "packages@example.com"))
	sh(t, "/", env, "rpmkeys", "--root", root, "--import", home+"/key.asc")
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Fatal(err)
	}
	for n, version := range []string{"1.0", "2.0"} {
		repo, top := t.TempDir(), t.TempDir()
		write(t, top+"/demo.spec", "Name: demo\nVersion: "+version+"\nRelease: 1\nSummary: demo\nLicense: MIT\nBuildArch: noarch\n%description\ndemo\n"+
			"%install\nmkdir -p %{buildroot}/usr/share/demo\necho demo "+version+" > %{buildroot}/usr/share/demo/version\n%files\n/usr/share/demo/version\n")
		sh(t, top, env, "rpmbuild", "--quiet", "-bb", "--define", "_topdir "+top, "--define", "_rpmdir "+repo, "--define", "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", top+"/demo.spec")
		sh(t, repo, env, "rpmsign", "--addsign", "--define", "_gpg_name packages@example.com", "--define", "__gpg "+gpg, "demo-"+version+"-1.noarch.rpm")
		sh(t, repo, env, "createrepo_c", "-q", ".")
		layOut(t, b, repo, manifest.FormatRPM, uint64(n+1))
		verb := []string{"install", "upgrade"}[n]
		// --refresh: metadata_expire=0 in the fragment lets a cache live for a second, and this test is quicker.
		sh(t, "/", env, "dnf", "--installroot="+root, "--releasever=1", "--setopt=reposdir="+filepath.Join(b.Config.Root, "os"), "--setopt=cachedir="+b.Dir+"/cache",
			"--setopt=plugins=0", "--setopt=install_weak_deps=0", "--disablerepo=*", "--enablerepo=patchmesh-os", "--refresh", "-y", verb, "demo")
		if got, err := os.ReadFile(root + "/usr/share/demo/version"); err != nil || string(got) != "demo "+version+"\n" {
			t.Fatalf("installed %q, %v", got, err)
		}
	}
}
