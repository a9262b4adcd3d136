package collect

import (
	"net"
	"net/http"
	"net/http/httptest"
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
)

// vendor is a dnf repository of the test's own, with signed packages.
type vendor struct {
	t    testing.TB
	dir  string // the repository
	home string // of gpg
	key  string // file of the public key
	old  string // packages that are not in the repository
}

func newVendor(t testing.TB) *vendor {
	t.Helper()
	needs(t, "dnf", "dnf")
	needs(t, "rpmbuild", "rpm")
	needs(t, "rpmsign", "rpm")
	needs(t, "createrepo_c", "createrepo-c")
	if os.Getuid() != 0 {
		t.Skip("needs root: dnf resolves for nobody else, run as root")
	}
	v := &vendor{t: t, dir: t.TempDir(), home: gpghome.New(t).Dir, old: t.TempDir()}
	command(t, v.home, v.env(), "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "vendor <vendor@example.org>", "ed25519", "sign", "never")
	v.key = write(t, filepath.Join(t.TempDir(), "vendor.asc"), string(command(t, v.home, v.env(), "gpg", "--armor", "--export")))
	return v
}

func (v *vendor) env() []string { return []string{"GNUPGHOME=" + v.home, "HOME=" + v.home} }

// rpm makes a package in dir; extra are more lines of the spec's head.
func (v *vendor) rpm(dir, name, version string, extra ...string) {
	v.t.Helper()
	top := v.t.TempDir()
	spec := write(v.t, filepath.Join(top, name+".spec"), "Name: "+name+"\nVersion: "+version+"\nRelease: 1\nSummary: test\nLicense: MIT\nBuildArch: noarch\n"+
		strings.Join(extra, "\n")+"\n%description\ntest\n%install\nmkdir -p %{buildroot}/usr/bin\necho "+version+" > %{buildroot}/usr/bin/"+name+"\n%files\n/usr/bin/"+name+"\n")
	command(v.t, top, v.env(), "rpmbuild", "--quiet", "-bb", "--define", "_topdir "+top+"/top", "--define", "_rpmdir "+dir,
		"--define", "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", spec)
}

// publish signs the packages and makes the metadata.
func (v *vendor) publish() {
	v.t.Helper()
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		v.t.Fatal(err)
	}
	rpms, err := filepath.Glob(filepath.Join(v.dir, "*.rpm"))
	if err != nil {
		v.t.Fatal(err)
	}
	command(v.t, v.dir, v.env(), "rpmsign", append([]string{"--addsign", "--define", "_gpg_name vendor", "--define", "__gpg " + gpg}, rpms...)...)
	command(v.t, v.dir, nil, "createrepo_c", "--quiet", ".")
}

// database enters what v.old holds, and returns the file of rpm's database.
func (v *vendor) database(names ...string) string {
	v.t.Helper()
	db := v.t.TempDir()
	for _, n := range names {
		command(v.t, v.old, v.env(), "rpm", append(strings.Fields(justDB), "--dbpath", db, filepath.Join(v.old, n+".noarch.rpm"))...)
	}
	return filepath.Join(db, "rpmdb.sqlite")
}

func (v *vendor) options(lists ...string) Options {
	return Options{Target: manifest.Target{OS: "rhel", Release: "9.4", Arch: "amd64", Format: manifest.FormatRPM},
		Installed: lists, Sources: []string{"file://" + v.dir}, Keys: []string{v.key}, Dest: filepath.Join(v.t.TempDir(), "collected")}
}

// rpmFleet is like fleet: an update with a new dependency and an exact pair, a program that a file provides, one that is
// not changed, a new name.
func rpmFleet(t *testing.T) *vendor {
	v := newVendor(t)
	v.rpm(v.dir, "till", "2", "Requires: tilllib = 2, printer-driver, /usr/bin/same, newdep")
	v.rpm(v.dir, "tilllib", "2")
	v.rpm(v.dir, "newdep", "5", "Epoch: 1")
	v.rpm(v.dir, "escpos", "1", "Provides: printer-driver")
	v.rpm(v.dir, "laser", "1", "Provides: printer-driver")
	v.rpm(v.dir, "same", "1")
	v.rpm(v.dir, "wanted", "3", "Requires: newdep")
	v.rpm(v.dir, "newname", "2", "Obsoletes: oldname < 2", "Provides: oldname = 2")
	v.publish()
	v.rpm(v.old, "till", "1", "Requires: tilllib = 1")
	v.rpm(v.old, "tilllib", "1")
	v.rpm(v.old, "escpos", "1", "Provides: printer-driver")
	v.rpm(v.old, "same", "1")
	v.rpm(v.old, "oldname", "1")
	return v
}

func TestDnf(t *testing.T) {
	t.Parallel()
	v := rpmFleet(t)
	t.Run("collects", func(t *testing.T) { dnfCollects(t, v) })
	t.Run("refuses", func(t *testing.T) { dnfRefuses(t, v) })
}

func dnfCollects(t *testing.T, v *vendor) {
	base := []string{"till-1-1", "tilllib-1-1", "escpos-1-1", "same-1-1"}
	database := v.database(base...)
	list := write(t, filepath.Join(t.TempDir(), "list"), strings.Join(base, ".noarch\n")+".noarch\ngpg-pubkey-1-2.(none)\n")
	updates := []string{"dependency newdep:noarch  -> 1:5-1", "update till:noarch 1-1 -> 2-1", "update tilllib:noarch 1-1 -> 2-1"}
	for name, installed := range map[string]string{"database": database, "names and versions": list} {
		t.Run(name, func(t *testing.T) {
			o := v.options(installed)
			if diff := cmp.Diff(updates, shown(collectApt(t, o))); diff != "" {
				t.Error(diff)
			}
			raw, err := os.ReadFile(filepath.Join(o.Dest, packages.FileName))
			if err != nil {
				t.Fatal(err)
			}
			l, err := packages.ParseList(raw)
			if err != nil || l.Packages[0].InstalledBytes == 0 || l.Packages[0].File != "newdep-5-1.noarch.rpm" || !cmp.Equal(l.Keys, []string{"keys/1.asc"}) {
				t.Errorf("%s: %v\n%s", packages.FileName, err, raw)
			}
		})
	}
	t.Run("only", func(t *testing.T) {
		o := v.options(database)
		o.Only = []string{"tilllib", "wanted"}
		want := append(updates[:3:3], "install wanted:noarch  -> 3-1")
		if diff := cmp.Diff(want, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("updates and one more, two kinds of machine", func(t *testing.T) {
		o := v.options(database, write(t, filepath.Join(t.TempDir(), "list"), "newdep-1-1.noarch\n"))
		o.Install = []string{"wanted"}
		want := []string{"update newdep:noarch 1-1 -> 1:5-1", updates[1], updates[2], "install wanted:noarch  -> 3-1"}
		if diff := cmp.Diff(want, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a new name", func(t *testing.T) {
		o := v.options(v.database("oldname-1-1"))
		_, err := Run(t.Context(), o)
		wantCode(t, err, problem.PolicyConflict, "oldname would have to be removed", "--remove")
		o.Remove = []string{"oldname"}
		if diff := cmp.Diff([]string{"dependency newname:noarch  -> 2-1"}, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("nothing to do", func(t *testing.T) {
		o := v.options(v.database("same-1-1"))
		if r := collectApt(t, o); len(r.Packages) != 0 {
			t.Errorf("%+v", r)
		}
		if _, err := os.Lstat(o.Dest); err == nil {
			t.Error("a directory was made")
		}
	})
}

// Whatever goes wrong has a name, and leaves nothing behind.
func dnfRefuses(t *testing.T, v *vendor) {
	database := v.database("till-1-1", "tilllib-1-1", "escpos-1-1", "same-1-1")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	web := httptest.NewServer(http.FileServer(http.Dir(v.dir)))
	t.Cleanup(web.Close)
	unsigned := newVendor(t)
	unsigned.rpm(unsigned.dir, "till", "2")
	command(t, unsigned.dir, nil, "createrepo_c", "--quiet", ".")
	changed := t.TempDir()
	if err := os.CopyFS(changed, os.DirFS(v.dir)); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(filepath.Join(changed, "till-2-1.noarch.rpm"))
	b[len(b)-40] ^= 1
	write(t, filepath.Join(changed, "till-2-1.noarch.rpm"), string(b))
	for _, c := range []struct {
		name   string
		change func(o *Options)
		code   problem.Code
		words  []string
	}{
		{"unknown package", func(o *Options) { o.Only = []string{"nosuch"} }, problem.NotFound, []string{"nosuch"}},
		{"unreachable", func(o *Options) { o.Sources = []string{"http://" + closed.Addr().String()} }, problem.SourceUnreachable, nil},
		{"no such repository", func(o *Options) { o.Sources = []string{web.URL + "/nosuch"} }, problem.NotFound, nil},
		{"no key", func(o *Options) { o.Keys = nil }, problem.SignatureInvalid, []string{"--key"}},
		{"wrong key", func(o *Options) { o.Keys = []string{unsigned.key} }, problem.SignatureInvalid, nil},
		{"not signed", func(o *Options) { o.Sources, o.Keys = []string{"file://" + unsigned.dir}, []string{unsigned.key} }, problem.SignatureInvalid, nil},
		{"gpgcheck switched off", func(o *Options) {
			o.Sources, o.Files = nil, []string{write(t, filepath.Join(t.TempDir(), "x.repo"), "[x]\nname=x\nbaseurl=file://"+unsigned.dir+"\ngpgcheck=0\ngpgkey=file://"+unsigned.key+"\n")}
		}, problem.SignatureInvalid, nil},
		{"package was changed", func(o *Options) { o.Sources = []string{"file://" + changed} }, problem.ChecksumMismatch, nil},
		{"unmet", func(o *Options) { o.Only, o.Sources = []string{"needy"}, append(o.Sources, "file://"+needy(t)) }, problem.NotClosed, []string{"missing", "needy"}},
		{"no architecture", func(o *Options) { o.Target.Arch = manifest.Any }, problem.Usage, nil},
		{"list of something else", func(o *Options) { o.Installed = []string{write(t, filepath.Join(t.TempDir(), "x"), "Dear all,\n")} }, problem.InvalidFile, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := v.options(database)
			c.change(&o)
			_, err := Run(t.Context(), o)
			wantCode(t, err, c.code, c.words...)
			if es, err := os.ReadDir(filepath.Dir(o.Dest)); err != nil || len(es) != 0 {
				t.Errorf("left behind: %v, %v", es, err)
			}
		})
	}
	// The control: with nothing spoiled all of it is there, also over the network and with the key from the .repo file.
	o := v.options(database)
	o.Keys, o.Sources = nil, nil
	o.Files = []string{write(t, filepath.Join(t.TempDir(), "x.repo"), "[x]\nname=x\nbaseurl="+web.URL+"\ngpgcheck=0\ngpgkey=\n  file://"+v.key+"\n")}
	if r := collectApt(t, o); len(r.Packages) != 3 {
		t.Errorf("%+v", r)
	}
}

// needy is a repository with a package that needs what nobody has.
func needy(t *testing.T) string {
	v := newVendor(t)
	v.rpm(v.dir, "needy", "1", "Requires: missing >= 3")
	v.publish()
	return v.dir
}
