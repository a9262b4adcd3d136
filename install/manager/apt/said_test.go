package apt

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// What apt-get -s said on a machine, shortened.
const simulated = `Reading package lists...
NOTE: This is only a simulation!
      apt-get needs root privileges for real execution.
The following packages will be REMOVED:
  old
Remv old [1.0-1] [jq:amd64 ]
Remv old:i386 [1.0-1]
Inst jq [1.6-2.1+deb12u1] (1.6-2.1+deb12u3 Debian-Security:12/oldstable-security [amd64]) []
Inst libjq1 [1.6-2.1+deb12u1] (1.6-2.1+deb12u3 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst login [1:4.13+dfsg1-1+deb12u1] (1:4.13+dfsg1-1+deb12u2 Debian:12.15/oldstable [amd64])
Inst libc6:i386 (2.36-9 Debian:12.15/oldstable [i386])
Inst helper (1.0 [all])
Conf jq (1.6-2.1+deb12u3 Debian-Security:12/oldstable-security [amd64])
`

func TestParseSteps(t *testing.T) {
	t.Parallel()
	got, err := parseSteps(simulated, "amd64")
	want := []step{
		{remove: true, name: "old", arch: "amd64", from: "1.0-1"},
		{remove: true, name: "old", arch: "i386", from: "1.0-1"},
		{name: "jq", arch: "amd64", from: "1.6-2.1+deb12u1", to: "1.6-2.1+deb12u3"},
		{name: "libjq1", arch: "amd64", from: "1.6-2.1+deb12u1", to: "1.6-2.1+deb12u3"},
		{name: "login", arch: "amd64", from: "1:4.13+dfsg1-1+deb12u1", to: "1:4.13+dfsg1-1+deb12u2"},
		{name: "libc6", arch: "i386", to: "2.36-9"},
		{name: "helper", arch: "all", to: "1.0"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"Inst demo", "Inst demo [1", "Inst demo [1] 2 [all]", "Inst demo [1] (2)", "Inst demo [1] (2 [all]", "Remv demo", "Inst  (2 [all])"} {
		if got, err := parseSteps(bad+"\n", "amd64"); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	have := []packages.Installed{{Name: "demo", Arch: "amd64", Version: "1"}, {Name: "lib", Arch: "all", Version: "1"}, {Name: "lib", Arch: "i386", Version: "1"}}
	steps := []step{{name: "demo", arch: "all", from: "1", to: "2"}, {name: "lib", arch: "all", from: "1", to: "1"}, {remove: true, name: "lib", arch: "i386", from: "1"}}
	want := []packages.Change{{Name: "demo", Arch: "all", To: "2"}, {Name: "demo", Arch: "amd64", From: "1"}, {Name: "lib", Arch: "i386", From: "1"}}
	if diff := cmp.Diff(want, changes(steps, have, "amd64")); diff != "" {
		t.Error(diff)
	}
}

func TestObjections(t *testing.T) {
	t.Parallel()
	o := manager.Order{List: &packages.List{Remove: []string{"old"}, Packages: []packages.Package{{Name: "demo", Arch: "all", Version: "2"}}}}
	for _, c := range []struct {
		name      string
		c         packages.Change
		downgrade bool
		want      string
	}{
		{"as the list says", packages.Change{Name: "demo", Arch: "all", From: "1", To: "2"}, false, ""},
		{"another version", packages.Change{Name: "demo", Arch: "all", From: "1", To: "3"}, false, "demo:all would be at 3, the list says 2"},
		{"another architecture", packages.Change{Name: "demo", Arch: "amd64", From: "1", To: "2"}, false, "demo:amd64 2 would come in and is not in the list"},
		{"a stranger", packages.Change{Name: "evil", Arch: "all", To: "2"}, false, "evil:all 2 would come in and is not in the list"},
		{"back", packages.Change{Name: "demo", Arch: "all", From: "3", To: "2"}, false, "demo:all would go back from 3 to 2"},
		{"back, allowed", packages.Change{Name: "demo", Arch: "all", From: "3", To: "2"}, true, ""},
		{"removed", packages.Change{Name: "demo", Arch: "all", From: "1"}, false, "demo:all 1 would be removed"},
		{"removed, allowed", packages.Change{Name: "old", Arch: "all", From: "1"}, false, ""},
	} {
		o.AllowDowngrade = c.downgrade
		if got := strings.Join(objections(o, nil, []packages.Change{c.c}), "; "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := objections(o, o.List.Packages, nil); len(got) != 1 || got[0] != "demo:all 2 would be left out" {
		t.Errorf("left out: %q", got)
	}
}

// A version that ends in + or - would be an order of its own.
func TestArgument(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]packages.Package{
		"demo=1":         {Name: "demo", Arch: "all", Version: "1"},
		"demo:amd64=1+b": {Name: "demo", Arch: "amd64", Version: "1+b"},
		"g++=1:1-1":      {Name: "g++", Arch: "all", Version: "1:1-1"},
		"demo=1+dfsg++":  {Name: "demo", Arch: "all", Version: "1+dfsg+"},
		"demo=1-+":       {Name: "demo", Arch: "all", Version: "1-"},
	} {
		if got := argument(p); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	const said = `bash:
  Installed: 5.2.15-2+b8
  Candidate: 5.2.15-2+b13
  Version table:
     5.2.15-2+b13 500
        500 file:/var/lib/mesh-install/apt/repo ./ Packages
 *** 5.2.15-2+b8 100
        100 /var/lib/dpkg/status
libc6:i386:
  Installed: (none)
  Candidate: (none)
  Package pin: 1
  Version table:
     2.36-9 -1
        500 file:/var/lib/mesh-install/apt/repo ./ Packages
`
	want := map[string]policy{
		"bash:amd64": {candidate: "5.2.15-2+b13", priority: map[string]int{"5.2.15-2+b13": 500, "5.2.15-2+b8": 100}},
		"libc6:i386": {candidate: "(none)", priority: map[string]int{"2.36-9": -1}},
	}
	if diff := cmp.Diff(want, parsePolicy(said, "amd64"), cmp.AllowUnexported(policy{})); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyAgainst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		p    policy
		back bool
		want bool
	}{
		{"chosen", policy{"2", map[string]int{"1": 100, "2": 500}}, false, false},
		{"not chosen", policy{"1", map[string]int{"1": 1001, "2": 500}}, false, true},
		{"never", policy{"1", map[string]int{"1": 100, "2": -1}}, false, true},
		{"not there", policy{"1", map[string]int{"1": 100}}, false, false},
		{"back", policy{"1", map[string]int{"1": 100, "2": 500}}, true, false},
		{"back to what may never be", policy{"1", map[string]int{"1": 100, "2": -1}}, true, true},
		{"back from what is nailed down", policy{"1", map[string]int{"1": 1001, "2": 500}}, true, true},
	} {
		if got := c.p.against("2", "1", c.back); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestParseInstalled(t *testing.T) {
	t.Parallel()
	const said = "install\tok\tinstalled\tdemo\tall\t1.0\n" +
		"hold\tok\tinstalled\tlib:amd64\tamd64\t1:2-3\n" +
		"install\treinstreq\thalf-installed\tbig\tamd64\t1\n" +
		"install\tok\thalf-configured\tweb\tamd64\t1\n" +
		"install\treinstreq\tinstalled\tx\tamd64\t1\n" +
		"deinstall\tok\tconfig-files\tgone\tamd64\t1\n" +
		"unknown\tok\tnot-installed\tnever\t\t\n"
	const marks = "Package: demo\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: lib\nAuto-Installed: 0\nArchitecture: amd64\n\nrubbish\n"
	want := []packages.Installed{
		{Name: "big", Arch: "amd64", Version: "1", State: "half-installed, reinstreq"},
		{Name: "demo", Arch: "all", Version: "1.0", Auto: true},
		{Name: "lib", Arch: "amd64", Version: "1:2-3", Held: true},
		{Name: "web", Arch: "amd64", Version: "1", State: "half-configured"},
		{Name: "x", Arch: "amd64", Version: "1", State: "reinstreq"},
	}
	got, err := parseInstalled(said, parseMarks(marks), "amd64")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := parseInstalled("install\tok\tinstalled\tdemo\n", nil, "amd64"); err == nil {
		t.Error("a short line is taken")
	}
}

func TestParseAudit(t *testing.T) {
	t.Parallel()
	const said = `The following packages are only half configured, probably due to problems
configuring them the first time.  The configuration should be retried using
dpkg --configure <package> or the configure menu option in dselect:
 demo                 test demo
 lib:i386             another

The following packages are missing the md5sums control file in the
database, they need to be reinstalled:
 old                  from long ago

The following packages have been triggered, but the trigger processing
has not yet been done.  Trigger processing can be requested using
dselect or dpkg --configure --pending (or dpkg --triggers-only):
 man-db               on-line manual pager
`
	got := parseAudit(said)
	if diff := cmp.Diff([]string{"packages are only half configured: demo, lib:i386", "packages have been triggered: man-db"}, got); diff != "" {
		t.Error(diff)
	}
	if got = slices.DeleteFunc(got, onlyTriggers); len(got) != 1 {
		t.Errorf("without triggers %q", got)
	}
	if got := parseAudit(""); len(got) != 0 {
		t.Errorf("nothing: %q", got)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stdout, stderr string
		exit           int
		kind           manager.Kind
		detail         string
	}{
		{"", "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 5 (apt-get)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n", 100, manager.Busy, "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 5 (apt-get); E: Unable to acquire"},
		{"", "E: Could not get lock /x\ndpkg: error processing package demo (--configure):\n installed demo package post-installation script subprocess returned error exit status 1\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n", 100, manager.Script, "E: Could not"},
		{"", "E: Could not get lock /x\n", -1, manager.Cut, "E: Could not"},
		{"", "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n", 100, manager.Broken, "E: dpkg was interrupted"},
		{"The following packages have unmet dependencies:\n demo : Depends: absent\n        Depends: other\n", "E: Unable to correct problems, you have held broken packages.\n", 100, manager.Unresolved, "demo : Depends: absent; Depends: other; E: Unable"},
		{"Setting up\n", "dpkg: error processing package demo (--configure):\n installed demo package post-installation script subprocess returned error exit status 1\nErrors were encountered while processing:\n demo\n", 100, manager.Script, "dpkg: error processing package demo (--configure): installed demo"},
		{"", "cat: /etc/x: File not found, no space\ndpkg: error processing package demo (--configure):\n installed demo package post-installation script subprocess returned error exit status 1\ndpkg: error processing package lib (--configure):\n dependency problems - leaving unconfigured\n", 100, manager.Script, "dpkg: error processing package demo"},
		{"", "dpkg: unrecoverable fatal error, aborting:\n unable to flush /var/lib/dpkg/updates/tmp.i after padding: No space left on device\n", 100, manager.Space, "dpkg: unrecoverable"},
		{"", "E: Sub-process /usr/bin/dpkg received signal 9\n", 100, manager.Cut, "E: Sub-process"},
		{"", "", -1, manager.Cut, ""},
		{"", "surprise\n", 1, manager.Tool, "surprise"},
	} {
		e := classify(tool.Result{Exit: c.exit, Stdout: []byte(c.stdout), Stderr: []byte(c.stderr), Both: []byte(c.stdout + c.stderr)})
		if e.Kind != c.kind || !strings.HasPrefix(e.Detail, c.detail) || e.Exit != c.exit {
			t.Errorf("%q: %+v, want %s %q", c.stderr, e, c.kind, c.detail)
		}
	}
	if got := tail(bytes.Repeat([]byte("123456789\n"), 2000)); len(got) > manager.MaxLog || !strings.HasPrefix(got, "123456789\n") {
		t.Errorf("the tail has %d bytes and begins with %.20q", len(got), got)
	}
}

// No text makes the parsers panic, and what parseSteps takes names a package, an architecture and a version.
func FuzzParse(f *testing.F) {
	f.Add(simulated)
	f.Add("bash:\n  Candidate: 1\n     \n *** \n")
	f.Add("Inst a ( [])\nInst [ ] (\n")
	f.Add("Package: a\n\nAuto-Installed: 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := parseSteps(text, "amd64")
		for _, s := range steps {
			if err == nil && (s.name == "" || s.arch == "" || !s.remove && s.to == "") {
				t.Errorf("%+v", s)
			}
		}
		parsePolicy(text, "amd64")
		parseAudit(text)
		_, _ = parseInstalled(text, parseMarks(text), "amd64")
		classify(tool.Result{Exit: 1, Stdout: []byte(text), Stderr: []byte(text), Both: []byte(text)})
	})
}
