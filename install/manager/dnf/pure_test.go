package dnf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

func have(name, arch, version string) packages.Installed {
	return packages.Installed{Name: name, Arch: arch, Version: version}
}

func TestParseSolution(t *testing.T) {
	t.Parallel()
	got, err := parseSolution([]byte(`upgrade demo-1.0-1.noarch@@System demo-1:2.0-1.noarch@bundle
install new-thing-0:3-1.el9.x86_64@bundle
erase lib-1.0-1.noarch@@System demo-2.0-1.noarch@bundle
erase old-1.0-1.noarch@@System

downgrade down-2-1.noarch@@System down-1-1.noarch@bundle
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{come: have("demo", "noarch", "1:2.0-1"), gone: []packages.Installed{have("demo", "noarch", "1.0-1")}},
		{come: have("new-thing", "x86_64", "3-1.el9")},
		{gone: []packages.Installed{have("lib", "noarch", "1.0-1")}},
		{gone: []packages.Installed{have("old", "noarch", "1.0-1")}},
		{come: have("down", "noarch", "1-1"), gone: []packages.Installed{have("down", "noarch", "2-1")}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{
		"frobnicate a-1-1.noarch@bundle", "install", "install a-1-1.noarch@elsewhere", "install a-1-1.noarch", "install a-1-1.noarch@@System",
		"install a-1-1.noarch@bundle b-1-1.noarch@bundle", "upgrade a-1-1.noarch@bundle a-2-1.noarch@bundle", "upgrade a-1-1.noarch@@System",
		"install a@bundle", "install a-1.noarch@bundle", "install -1-1.noarch@bundle", "install a-1-1.@bundle", "install a--1.noarch@bundle", "erase a-1-1.noarch@bundle",
		"erase a-1-1.noarch@@System b-1-1.noarch@elsewhere", "erase",
	} {
		if got, err := parseSolution([]byte(bad + "\n")); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func FuzzParseSolution(f *testing.F) {
	f.Add([]byte("upgrade demo-1.0-1.noarch@@System demo-1:2.0-1.noarch@bundle\n"))
	f.Add([]byte("erase a-1-1.x@@System b-1-1.x@bundle\ninstall c-1-1.x@bundle\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		steps, err := parseSolution(b)
		if err != nil {
			return
		}
		for _, s := range steps {
			for _, p := range append(s.gone, s.come) {
				if (p != packages.Installed{}) && (p.Name == "" || p.Version == "" || p.Arch == "") {
					t.Errorf("%q gives %+v", b, p)
				}
			}
		}
	})
}

func FuzzParseDatabase(f *testing.F) {
	f.Add([]byte("bash\t0\t5.1-1\tx86_64\ngpg-pubkey\t0\ta-b\t(none)\nbind\t32\t9-1\tx86_64\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := parseDatabase(b)
		for _, p := range ps {
			if err == nil && (p.Name == "" || p.Version == "" || p.Arch == "") {
				t.Errorf("%q gives %+v", b, p)
			}
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add([]byte("[main]\nexcludepkgs=a*, b\n  c\n#\n;\n[x]\nexclude=d\n"), "demo-0:1.0-1.*")
	f.Add([]byte("!demo-1*\n\n# x\nlib\n"), "[!a-")
	f.Fuzz(func(t *testing.T, b []byte, pattern string) {
		main := parseMain(b)
		lock, forbid := parseLocks(b)
		r := rules{exclude: list(main["excludepkgs"]), include: list(main["includepkgs"]), lock: append(lock, pattern), forbid: forbid}
		_ = r.refuses(packages.Package{Name: "demo", Arch: "noarch", Version: "1.0-1"})
		_, _ = parseConfigFiles(string(b))
		_ = complaints(b)
	})
}

func TestParseDatabase(t *testing.T) {
	t.Parallel()
	got, err := parseDatabase([]byte("lib\t0\t2-1\tnoarch\ngpg-pubkey\t0\ta1-b2\t(none)\nkernel\t0\t6.10-1\tx86_64\nkernel\t0\t6.9-1\tx86_64\nbind\t32\t9-1\tx86_64\n"))
	want := []packages.Installed{have("bind", "x86_64", "32:9-1"), have("kernel", "x86_64", "6.9-1"), have("kernel", "x86_64", "6.10-1"), have("lib", "noarch", "2-1")}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, bad := range []string{"a\tb\n", "a\t0\t\tx\n", "warning: something\n"} {
		if _, err := parseDatabase([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conf, locks string
		p           packages.Package
		want        string
		held        bool
	}{
		{p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}},
		{locks: "demo-0:1.0-1.*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptHeld, held: true},
		{locks: "demo-0:2.0-1.*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, held: true}, // locked to what comes
		{locks: "demo-0:2.0-1.*", p: packages.Package{Name: "demo", Version: "1:2.0-1", Arch: "noarch"}, want: manager.KeptHeld, held: true},
		{locks: "demo-0:1.0-1.*", p: packages.Package{Name: "demo-data", Version: "2.0-1", Arch: "noarch"}},
		{locks: "demo-data-0:1.0-1.*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}},
		{locks: "# demo-0:1.0-1.*\n\n  ", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}},
		{locks: "demo-1.*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptHeld, held: true},
		{locks: "demo-1.*", p: packages.Package{Name: "demo", Version: "1.7-1", Arch: "noarch"}, held: true},
		{locks: "!demo-0:2.0-1.*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptHeld},
		{locks: "!demo-0:2.0-1.*", p: packages.Package{Name: "demo", Version: "2.0-2", Arch: "noarch"}},
		{conf: "[main]\nexcludepkgs=demo", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nexclude=a b,demo*", p: packages.Package{Name: "demo-data", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nexcludepkgs = a,\n   demo-2.0\nbest=1", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nexcludepkgs=demo.x86_64", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}},
		{conf: "[updates]\nexcludepkgs=demo", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}}, // of another repository
		{conf: "[main]\nincludepkgs=lib*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nincludepkgs=d?mo", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}},
		{conf: "[main]\nexcludepkgs=[!a]emo", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nexcludepkgs=demo\nexcludepkgs=lib", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nexcludepkgs=demo-${releasever}", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
		{conf: "[main]\nexcludepkgs=*", p: packages.Package{Name: "demo", Version: "2.0-1", Arch: "noarch"}, want: manager.KeptPinned},
	} {
		main := parseMain([]byte(c.conf))
		r := rules{exclude: list(main["excludepkgs"] + " " + main["exclude"]), include: list(main["includepkgs"])}
		r.lock, r.forbid = parseLocks([]byte(c.locks))
		if got := r.refuses(c.p); got != c.want {
			t.Errorf("%q %q: %s %s: %q, want %q", c.conf, c.locks, c.p.Name, c.p.Version, got, c.want)
		}
		if got := r.locks(c.p.Name, c.p.Arch); got != c.held {
			t.Errorf("%q: %s held: %v", c.locks, c.p.Name, got)
		}
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	of := func(role packages.Role, name, arch, version string) packages.Package {
		return packages.Package{Name: name, Arch: arch, Version: version, Role: role, File: name + ".rpm"}
	}
	for _, c := range []struct {
		name      string
		p         packages.Package
		installed []packages.Installed
		downgrade bool
		rules     rules
		specs     []string
		exclude   []string
		kept      []manager.Kept
	}{
		{name: "update", p: of(packages.Update, "a", "noarch", "2-1"), installed: []packages.Installed{have("a", "noarch", "1-1")}, specs: []string{"a-0:2-1.noarch"}},
		{name: "update of nothing", p: of(packages.Update, "a", "noarch", "2-1")},
		{name: "update across architectures", p: of(packages.Update, "a", "x86_64", "2-1"), installed: []packages.Installed{have("a", "noarch", "1-1")}, specs: []string{"a-0:2-1.x86_64"}},
		{name: "another architecture", p: of(packages.Update, "a", "i686", "2-1"), installed: []packages.Installed{have("a", "x86_64", "1-1")}},
		{name: "there", p: of(packages.Update, "a", "noarch", "1-1"), installed: []packages.Installed{have("a", "noarch", "0:1-1")}},
		{name: "there beside others", p: of(packages.Update, "kernel", "x86_64", "1-1"), installed: []packages.Installed{have("kernel", "x86_64", "1-1"), have("kernel", "x86_64", "2-1")}},
		{name: "install", p: of(packages.Install, "a", "noarch", "1:2-1"), specs: []string{"a-1:2-1.noarch"}},
		{name: "dependency", p: of(packages.Dependency, "a", "noarch", "2-1"), installed: []packages.Installed{have("a", "noarch", "1-1")}},
		{
			name: "newer", p: of(packages.Update, "a", "noarch", "1-1"), installed: []packages.Installed{have("a", "noarch", "2-1")},
			exclude: []string{"a-0:1-1.noarch"}, kept: []manager.Kept{{Installed: have("a", "noarch", "2-1"), Why: manager.KeptNewer}},
		},
		{name: "downgrade", p: of(packages.Update, "a", "noarch", "1-1"), installed: []packages.Installed{have("a", "noarch", "2-1")}, downgrade: true, specs: []string{"a-0:1-1.noarch"}},
		{
			name: "pinned and not there", p: of(packages.Install, "a", "noarch", "1-1"), rules: rules{exclude: []string{"a"}},
			exclude: []string{"a-0:1-1.noarch"}, kept: []manager.Kept{{Installed: packages.Installed{Name: "a", Arch: "noarch"}, Why: manager.KeptPinned}},
		},
		{name: "pinned dependency", p: of(packages.Dependency, "a", "noarch", "1-1"), rules: rules{exclude: []string{"a"}}, exclude: []string{"a-0:1-1.noarch"}},
	} {
		o := manager.Order{List: &packages.List{Format: manifest.FormatRPM, Packages: []packages.Package{c.p}}, AllowDowngrade: c.downgrade}
		w := decide(o, c.installed, c.rules)
		if diff := cmp.Diff(c.specs, w.specs) + cmp.Diff(c.exclude, w.exclude) + cmp.Diff(c.kept, w.kept); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	o := manager.Order{List: &packages.List{Packages: []packages.Package{
		{Name: "a", Arch: "noarch", Version: "2-1"}, {Name: "kernel", Arch: "x86_64", Version: "4-1"},
	}, Remove: []string{"old"}}}
	installed := []packages.Installed{have("kernel", "x86_64", "2-1"), have("kernel", "x86_64", "3-1"), have("lone", "noarch", "1-1")}
	for _, c := range []struct {
		name  string
		steps []step
		down  bool
		rules rules
		want  []packages.Change
		wrong string
	}{
		{name: "upgrade", steps: []step{{come: have("a", "noarch", "2-1"), gone: []packages.Installed{have("a", "noarch", "1-1")}}}, want: []packages.Change{{Name: "a", Arch: "noarch", From: "1-1", To: "2-1"}}},
		{name: "other version", steps: []step{{come: have("a", "noarch", "3-1")}}, wrong: "a:noarch 3-1 would come in and is not in the list"},
		{name: "other package", steps: []step{{come: have("b", "noarch", "2-1")}}, wrong: "b:noarch 2-1 would come in and is not in the list"},
		{name: "removal", steps: []step{{gone: []packages.Installed{have("lone", "noarch", "1-1")}}}, wrong: "lone:noarch 1-1 would be removed"},
		{name: "removal that the list names", steps: []step{{gone: []packages.Installed{have("old", "noarch", "1-1")}}}, want: []packages.Change{{Name: "old", Arch: "noarch", From: "1-1"}}},
		{name: "removal of what is held", rules: rules{lock: []string{"old"}}, steps: []step{{gone: []packages.Installed{have("old", "noarch", "1-1")}}}, wrong: "old:noarch 1-1 would be removed and is held"},
		{name: "downgrade", steps: []step{{come: have("a", "noarch", "2-1"), gone: []packages.Installed{have("a", "noarch", "3-1")}}}, wrong: "a:noarch 3-1 would go back to 2-1"},
		{name: "downgrade allowed", down: true, steps: []step{{come: have("a", "noarch", "2-1"), gone: []packages.Installed{have("a", "noarch", "3-1")}}}, want: []packages.Change{{Name: "a", Arch: "noarch", From: "3-1", To: "2-1"}}},
		{
			name: "oldest kernel goes", steps: []step{{come: have("kernel", "x86_64", "4-1")}, {gone: []packages.Installed{have("kernel", "x86_64", "2-1")}}},
			want: []packages.Change{{Name: "kernel", Arch: "x86_64", From: "2-1", To: "4-1"}},
		},
	} {
		got, err := wish{order: manager.Order{List: o.List, AllowDowngrade: c.down}, rules: c.rules, installed: installed}.allowed(c.steps)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if err != nil {
			said := err.Error()
			if c.wrong == "" || !strings.Contains(said, c.wrong) {
				t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
			}
		} else if c.wrong != "" {
			t.Errorf("%s: allowed", c.name)
		}
	}
}

func TestComplaints(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"Error in POSTIN scriptlet in rpm package demo",
		"Error in <unknown> scriptlet in rpm package demo",
		"Non-fatal POSTIN scriptlet failure in rpm package demo-1-1.noarch",
		"warning: %post(demo-2.0-1.noarch) scriptlet failed, exit status 1",
		"  Running scriptlet: demo\r\nwarning: %triggerin(a-1-1.noarch) scriptlet failed, signal 9",
		"error: lua script failed: [string \"%posttrans(demo-2.0-1.noarch)\"]:1: posttrans fails",
		"error: failed to exec scriptlet interpreter /usr/bin/perl: No such file or directory",
		"error: unpacking of archive failed on file /a;5f: cpio: write failed",
		"Error unpacking rpm package demo-2.0-1.noarch",
	} {
		if len(complaints([]byte("before\n"+bad+"\nafter\n"))) != 1 {
			t.Errorf("%q is passed over", bad)
		}
	}
	for _, good := range []string{"  Running scriptlet: demo-2.0-1.noarch    1/2", "Error: the script's own word", "Complete!", "warning: /etc/a.conf created as /etc/a.conf.rpmnew"} {
		if got := complaints([]byte(good + "\n")); len(got) != 0 {
			t.Errorf("%q is a complaint", got)
		}
	}
	if n := len(complaints([]byte(strings.Repeat("scriptlet failed\n", 1000)))); n != maxComplaints {
		t.Errorf("%d complaints", n)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]manager.Kind{
		"Error: Failed to obtain the transaction lock (already locked by 811).":                  manager.Busy,
		"error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource busy)":         manager.Busy,
		"  installing package demo-2.0-1.noarch needs 92MB more space on the / filesystem":       manager.Space,
		"error: unpacking of archive failed: cpio: write failed - No space left on device":       manager.Space,
		"Error in PREIN scriptlet in rpm package demo\nError: Transaction failed":                manager.Script,
		"error: rpmdb: BDB0113 Thread/process 1/1 failed":                                        manager.Broken,
		"Error: Some packages from local repository have incorrect checksum":                     manager.Untrusted,
		"Error: Failed to download metadata for repo 'bundle': repomd.xml parser error":          manager.Untrusted,
		"Error: \n Problem: conflicting requests\n  - nothing provides x needed by a":            manager.Unresolved,
		"Error: Unable to find a match: a-0:1-1.noarch":                                          manager.Unresolved,
		"Error: Transaction test error:\n  file /a from install of b conflicts with file from c": manager.Refused,
		"Traceback (most recent call last):":                                                     manager.Tool,
	} {
		if got := failure(tool.Result{Exit: 1, Stderr: []byte(said), Both: []byte(said)}); got.Kind != want || got.Detail == "" || got.Exit != 1 {
			t.Errorf("%q: %+v, want %s", said, got, want)
		}
	}
	// A lock that a script met, in the middle of a transaction.
	said := "already locked by 1\nError in PREIN scriptlet in rpm package demo"
	for out, want := range map[string]manager.Kind{
		"Running transaction check\nRunning transaction test\n":                                   manager.Busy,
		"Running transaction test\nTransaction test succeeded.\nRunning transaction\n  Preparing": manager.Script,
	} {
		if got := failure(tool.Result{Exit: 1, Stdout: []byte(out), Stderr: []byte(said)}); got.Kind != want {
			t.Errorf("after %q: %s, want %s", out, got.Kind, want)
		}
	}
}

func TestFileURL(t *testing.T) {
	t.Parallel()
	if got := fileURL("/a b/$releasever%[x]/c-1_2.d\n"); got != "file:///a%20b/%24releasever%25%5Bx%5D/c-1_2.d%0A" {
		t.Error(got)
	}
}
