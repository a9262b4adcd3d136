package collect

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// shown is what was collected, a line for each package: role, name, architecture, versions there, version.
func shown(r *Result) (out []string) {
	for _, p := range r.Packages {
		out = append(out, string(p.Role)+" "+p.ID()+" "+strings.Join(p.From, ",")+" -> "+p.Version)
	}
	return out
}

func collectApt(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fleet is an archive and what its cases need: an update with a new dependency, one that is not changed, an exact pair,
// a name that only another package provides, an epoch.
func fleet(t *testing.T) *archive {
	a := newArchive(t)
	a.deb("till", "2.0", "all", "Depends: tilllib (= 2.0), printer-driver, newdep (>= 1)")
	a.deb("tilllib", "2.0", "all")
	a.deb("newdep", "1:1.5+b~1", "all")
	a.deb("escpos", "1.0", "all", "Provides: printer-driver")
	a.deb("laser", "1.0", "all", "Provides: printer-driver")
	a.deb("same", "1.0", "all")
	a.deb("wanted", "3.0", "all", "Depends: newdep")
	a.deb("clash", "2.0", "all", "Conflicts: same")
	a.publish()
	return a
}

func TestApt(t *testing.T) {
	t.Parallel()
	a := fleet(t)
	t.Run("collects", func(t *testing.T) { aptCollects(t, a) })
	t.Run("refuses", func(t *testing.T) { aptRefuses(t, a) })
}

func aptCollects(t *testing.T, a *archive) {
	base := []string{"till 1.0; Depends: tilllib (= 1.0)", "tilllib 1.0", "escpos 1.0; Provides: printer-driver", "same 1.0"}
	status := dpkgStatus(t, base...)
	list := write(t, filepath.Join(t.TempDir(), "list"), "till\t1.0\ntilllib\t1.0\nescpos 1.0\nsame:all 1.0 ii \nlaser 1.0 rc \nnever\n")
	updates := []string{"dependency newdep:all  -> 1:1.5+b~1", "update till:all 1.0 -> 2.0", "update tilllib:all 1.0 -> 2.0"}

	for name, installed := range map[string]string{"status": status, "names and versions": list} {
		t.Run(name, func(t *testing.T) {
			o := a.options(installed)
			r := collectApt(t, o)
			if diff := cmp.Diff(updates, shown(r)); diff != "" {
				t.Error(diff)
			}
			var names []string
			es, err := os.ReadDir(o.Dest)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				names = append(names, e.Name())
			}
			if diff := cmp.Diff([]string{"newdep_1.5+b~1_all.deb", "packages.json", "till_2.0_all.deb", "tilllib_2.0_all.deb"}, names); diff != "" {
				t.Error(diff)
			}
			raw, err := os.ReadFile(filepath.Join(o.Dest, packages.FileName))
			if err != nil {
				t.Fatal(err)
			}
			l, err := packages.ParseList(raw)
			if err != nil || l.Packages[0].InstalledBytes != 10240 || l.Packages[0].File != "newdep_1.5+b~1_all.deb" {
				t.Errorf("%s: %v\n%s", packages.FileName, err, raw)
			}
		})
	}
	t.Run("only", func(t *testing.T) {
		o := a.options(status)
		o.Only = []string{"tilllib", "wanted"}
		// till has to come along because of the exact dependency.
		want := []string{"dependency newdep:all  -> 1:1.5+b~1", "update till:all 1.0 -> 2.0", "update tilllib:all 1.0 -> 2.0", "install wanted:all  -> 3.0"}
		if diff := cmp.Diff(want, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("two kinds of machine", func(t *testing.T) {
		o := a.options(status, dpkgStatus(t, "newdep 1.0", "laser 0.9; Provides: printer-driver"))
		want := []string{"update laser:all 0.9 -> 1.0", "update newdep:all 1.0 -> 1:1.5+b~1", "update till:all 1.0 -> 2.0", "update tilllib:all 1.0 -> 2.0"}
		if diff := cmp.Diff(want, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("no list", func(t *testing.T) {
		o := a.options()
		o.Install = []string{"wanted"}
		o.Only = []string{"wanted"}
		if diff := cmp.Diff([]string{"dependency newdep:all  -> 1:1.5+b~1", "install wanted:all  -> 3.0"}, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("updates and one more", func(t *testing.T) {
		o := a.options(status)
		o.Install = []string{"wanted"}
		if diff := cmp.Diff(append(updates, "install wanted:all  -> 3.0"), shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("kept back", func(t *testing.T) {
		o := a.options(dpkgStatus(t, "same 1.0", "clash 1.0"))
		r := collectApt(t, o)
		if len(r.Packages) != 0 || !cmp.Equal(r.Kept, []string{"clash"}) {
			t.Errorf("%+v", r)
		}
		if _, err := os.Lstat(o.Dest); err == nil {
			t.Error("nothing to do, and a directory was made")
		}
	})
	t.Run("nothing to do", func(t *testing.T) {
		o := a.options(dpkgStatus(t, "same 1.0"))
		if r := collectApt(t, o); len(r.Packages)+len(r.Kept) != 0 {
			t.Errorf("%+v", r)
		}
		if _, err := os.Lstat(o.Dest); err == nil {
			t.Error("a directory was made")
		}
	})
	t.Run("held", func(t *testing.T) {
		o := a.options(write(t, filepath.Join(t.TempDir(), "list"), "till 1.0 hi \nlaser 0.9 hi \n"))
		if r := collectApt(t, o); len(r.Packages) != 0 || !cmp.Equal(r.Kept, []string{"laser", "till"}) {
			t.Errorf("%+v", r)
		}
		o.Only = []string{"laser"} // by name it is collected: the hold is the machine's own affair
		if diff := cmp.Diff([]string{"update laser:all 0.9 -> 1.0"}, shown(collectApt(t, o))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("removal", func(t *testing.T) {
		o := a.options(dpkgStatus(t, "same 1.0"))
		o.Only = []string{"clash"}
		_, err := Run(t.Context(), o)
		wantCode(t, err, problem.PolicyConflict, "same would have to be removed", "--remove")
		o.Remove = []string{"same"}
		r := collectApt(t, o)
		raw, _ := os.ReadFile(filepath.Join(o.Dest, packages.FileName))
		if l, err := packages.ParseList(raw); err != nil || !cmp.Equal(l.Remove, []string{"same"}) || len(r.Packages) != 1 {
			t.Errorf("%v %+v", err, l)
		}
	})
}

// Whatever goes wrong has a name, and leaves nothing behind.
func aptRefuses(t *testing.T, a *archive) {
	status := dpkgStatus(t, "till 1.0", "tilllib 1.0", "escpos 1.0; Provides: printer-driver")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	web := httptest.NewServer(http.FileServer(http.Dir(a.dir)))
	t.Cleanup(web.Close)
	other := newArchive(t)
	spoiled := func(t *testing.T, file string, change func([]byte) []byte) string {
		dir := filepath.Join(t.TempDir(), "archive")
		if err := os.CopyFS(dir, os.DirFS(a.dir)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, file), string(change(b)))
		return strings.ReplaceAll(a.source(), a.dir, dir)
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, o *Options)
		code   problem.Code
		words  []string
	}{
		{"unknown package", func(_ *testing.T, o *Options) { o.Only = []string{"nosuch"} }, problem.NotFound, []string{"nosuch"}},
		{"unreachable", func(_ *testing.T, o *Options) {
			o.Sources = []string{"deb [signed-by=" + a.ring + "] http://" + closed.Addr().String() + " stable main"}
		}, problem.SourceUnreachable, []string{closed.Addr().String()}},
		{"no such release", func(_ *testing.T, o *Options) {
			o.Sources = []string{strings.Replace(strings.ReplaceAll(a.source(), "file:"+a.dir, web.URL), " stable ", " unstable ", 1)}
		}, problem.NotFound, []string{"unstable"}},
		{"no such component", func(_ *testing.T, o *Options) {
			o.Sources = []string{strings.Replace(a.source(), " main", " contrib", 1)}
		}, problem.NotFound, []string{"contrib"}},
		{"no key", func(_ *testing.T, o *Options) { o.Sources = []string{"deb file:" + a.dir + " stable main"} }, problem.SignatureInvalid, []string{"--key"}},
		{"wrong key", func(_ *testing.T, o *Options) {
			o.Sources = []string{strings.ReplaceAll(a.source(), a.ring, other.ring)}
		}, problem.SignatureInvalid, nil},
		{"believed without a signature", func(_ *testing.T, o *Options) {
			o.Sources = []string{"deb [trusted=yes] file:" + a.dir + " stable main"}
		}, problem.SignatureInvalid, []string{"trusted=yes"}},
		{"metadata was changed", func(t *testing.T, o *Options) {
			o.Sources = []string{spoiled(t, "dists/stable/main/binary-amd64/Packages", flip)}
		}, problem.ChecksumMismatch, nil},
		{"signature was changed", func(t *testing.T, o *Options) {
			o.Sources = []string{spoiled(t, "dists/stable/InRelease", func(b []byte) []byte { return []byte(strings.Replace(string(b), "stable", "stapel", 1)) })}
		}, problem.SignatureInvalid, nil},
		{"package was changed", func(t *testing.T, o *Options) { o.Sources = []string{spoiled(t, "pool/till_2.0_all.deb", flip)} }, problem.ChecksumMismatch, []string{"till"}},
		{"unmet", func(t *testing.T, o *Options) {
			bad := newArchive(t)
			bad.deb("till", "2.0", "all", "Depends: missing (>= 3)")
			bad.publish()
			o.Sources, o.Only = []string{bad.source()}, []string{"till"}
		}, problem.NotClosed, []string{"till", "missing (>= 3)"}},
		{"no list and no name", func(_ *testing.T, o *Options) { o.Installed = nil }, problem.Usage, nil},
		{"list of something else", func(t *testing.T, o *Options) {
			o.Installed = []string{write(t, filepath.Join(t.TempDir(), "x"), "Dear all;\n")}
		}, problem.InvalidFile, nil},
		{"own sources of another system", func(_ *testing.T, o *Options) { o.Sources = nil; o.Here.OS = "plan9" }, problem.Usage, []string{"plan9"}},
		{"exists", func(t *testing.T, o *Options) { o.Dest = t.TempDir() }, problem.AlreadyExists, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := a.options(status)
			c.change(t, &o)
			_, err := Run(t.Context(), o)
			wantCode(t, err, c.code, c.words...)
			if c.name != "exists" {
				if es, err := os.ReadDir(filepath.Dir(o.Dest)); err != nil || len(es) != 0 {
					t.Errorf("left behind: %v, %v", es, err)
				}
			}
		})
	}
	// The control: with nothing spoiled all of it is there, also over the network.
	o := a.options(status)
	o.Sources = []string{strings.ReplaceAll(a.source(), "file:"+a.dir, web.URL)}
	if r := collectApt(t, o); len(r.Packages) != 3 {
		t.Errorf("%+v", r)
	}
	o = a.options(status)
	o.Sources, o.Keys = []string{"deb file:" + a.dir + " stable main"}, []string{a.ring}
	if r := collectApt(t, o); len(r.Packages) != 3 {
		t.Errorf("with --key: %+v", r)
	}
}
