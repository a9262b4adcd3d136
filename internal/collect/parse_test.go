package collect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/packages"
)

func TestParseInstalled(t *testing.T) {
	status, err := parseStatus([]byte("Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n" +
		"Package: b\nStatus: hold ok half-configured\nArchitecture: all\nVersion: 2:1\nConffiles:\n /etc/b x\n\n\n" +
		"Package: c\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 3\n\nPackage: d\nStatus: unknown ok not-installed\n"))
	want := []packages.Installed{{Name: "a", Arch: "amd64", Version: "1"}, {Name: "b", Arch: "all", Version: "2:1", Held: true}}
	if diff := cmp.Diff(want, status); err != nil || diff != "" {
		t.Error(err, diff)
	}
	list, err := parseDpkgList([]byte("a:amd64\t1\nb\t2:1\nc 3 rc \nd\t\ne 4 hi \n"))
	want = []packages.Installed{{Name: "a", Arch: "amd64", Version: "1"}, {Name: "b", Version: "2:1"}, {Name: "e", Version: "4", Held: true}}
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Error(err, diff)
	}
	rpm, err := parseRPMList([]byte("bash-5.1.8-6.el9.x86_64\ngpg-pubkey-fd431d51-4ae0493b\nopenssl-libs-1:3.0.7-2.el9.i686\nkernel-core-5.14.0-1.el9.x86_64\nx-0:1-1.noarch\n"))
	want = []packages.Installed{{Name: "bash", Arch: "x86_64", Version: "5.1.8-6.el9"}, {Name: "openssl-libs", Arch: "i686", Version: "1:3.0.7-2.el9"},
		{Name: "kernel-core", Arch: "x86_64", Version: "5.14.0-1.el9"}, {Name: "x", Arch: "noarch", Version: "1-1"}}
	if diff := cmp.Diff(want, rpm); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, bad := range []string{"$(reboot) 1", "-o 1", "a b;c"} {
		if ps, err := parseDpkgList([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, ps)
		}
	}
}

func TestParseSimulation(t *testing.T) {
	found, gone, err := parseSimulation("NOTE: x\nInst libc6:i386 [2.36-9] (2.36-10 Debian:12.15/oldstable, Debian-Security:12/x [i386]) []\n" +
		"Inst jq (1.6 Debian [amd64])\nRemv same [1.0]\nRemv jq [1.5] []\nConf jq (1.6 Debian [amd64])\n")
	want := []packages.Package{{Name: "libc6", Arch: "i386", Version: "2.36-10"}, {Name: "jq", Arch: "amd64", Version: "1.6"}}
	if diff := cmp.Diff(want, found); err != nil || diff != "" || !cmp.Equal(gone, []string{"same"}) {
		t.Error(err, diff, gone)
	}
	if _, _, err := parseSimulation("Inst something else\n"); err == nil {
		t.Error("a line that is not understood is passed over")
	}
}

func TestParseSolution(t *testing.T) {
	found, gone, err := parseSolution("erase oldname-1-1.noarch@@System newname-2-1.noarch@a\ninstall newname-2-1.noarch@a\nupgrade till-1-1.noarch@@System till-1:2-1.noarch@a\n")
	want := []packages.Package{{Name: "newname", Arch: "noarch", Version: "2-1"}, {Name: "till", Arch: "noarch", Version: "1:2-1"}}
	if diff := cmp.Diff(want, found); err != nil || diff != "" || !cmp.Equal(gone, []string{"oldname"}) {
		t.Error(err, diff, gone)
	}
	for _, bad := range []string{"explode a-1-1.noarch@a", "upgrade a-1-1.noarch@@System", "install", "erase", "install x@a"} {
		if found, gone, err := parseSolution(bad); err == nil {
			t.Errorf("%q: %v %v", bad, found, gone)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	got := keyFiles("[a]\nname=a\ngpgkey=file:///etc/pki/KEY-$releasever, https://example.org/key\n  file:///etc/pki/KEY-$basearch\n[b]\n gpgkey=file:///no\nbaseurl=file:///no\n", "9", "x86_64")
	if diff := cmp.Diff([]string{"/etc/pki/KEY-9", "/etc/pki/KEY-x86_64"}, got); diff != "" {
		t.Error(diff)
	}
}

// Whatever a list, a tool or a source says, what comes of it are words that may stand in a command line.
func FuzzParse(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n")
	f.Add("a:amd64\t1\nb 2 hi \n")
	f.Add("bash-5.1.8-6.el9.x86_64\n")
	f.Add("Inst jq [1] (2 Debian [amd64])\nRemv x [1]\n")
	f.Add("upgrade till-1-1.noarch@@System till-2-1.noarch@a\nerase\n")
	f.Add("jq:\n  Installed: 1\n  Candidate: 2\n")
	f.Add(mark + "a 0:1-1 noarch\na = 1-1\n/usr/bin/a\n")
	f.Fuzz(func(t *testing.T, s string) {
		word := func(name, arch, version string) {
			if !packages.Word(name) || !packages.Word(version) || arch != "" && !packages.Word(arch) {
				t.Errorf("%q %q %q", name, arch, version)
			}
		}
		for _, parse := range []func([]byte) ([]packages.Installed, error){parseStatus, parseDpkgList, parseRPMList} {
			ps, err := parse([]byte(s))
			for _, p := range ps {
				if err == nil {
					word(p.Name, p.Arch, p.Version)
				}
			}
		}
		for _, parse := range []func(string) ([]packages.Package, []string, error){parseSimulation, parseSolution} {
			ps, _, err := parse(s)
			for _, p := range ps {
				if err == nil {
					word(p.Name, p.Arch, p.Version)
				}
			}
		}
		parsePolicy(s, map[string]policy{})
		known := map[string]capability{}
		parseCapabilities(s, known)
		for _, c := range known {
			if !strings.Contains(s, c.version) {
				t.Errorf("version %q", c.version)
			}
			stubRPM(packages.Installed{Name: "a", Arch: "noarch", Version: "1-1"}, c.provides)
		}
		keyFiles(s, "9", "x86_64")
		complaints(s)
	})
}
