package vm

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// A node that joined in harbour starts at sea, with no network but its loopback: the daemon runs under its unit, as its
// own user and shut in, takes bundle and policy from a stick, and asks; the executor, which it cannot start, is started by
// systemd, installs on the live system, and answers.
func TestLiveDaemon(t *testing.T) {
	l := newLive(t, "btrfs")
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lab, err := harness.New(l.bin)
	must(err)
	t.Cleanup(func() { lab.Close() })
	seeder, err := lab.NewSeeder(ctx)
	must(err)
	site, err := seeder.Site(ctx, "ship", "0", 1)
	must(err)
	from := lab.Path("debs")
	l.do("mkdir", from)
	debs, err := filepath.Glob(filepath.Join(l.bed.Repo(t, managertest.Spec{Packages: []managertest.Package{demo("2.0-1", demoUnit, demoPost)}}).Dir, "*.deb"))
	must(err)
	for _, d := range debs {
		l.do("cp", d, from)
	}
	dir, stick := lab.Path("os.bundle"), lab.Path("stick.mesh")
	out, err := lab.Run(ctx, "meshctl", "bundle", "build", "--json", "--name", "os", "--version", "2", "--sequence", "2", "--format", "deb",
		"--target-os", "debian-12/amd64", "--from", from, "--out", dir, "--key", lab.Path("release.key"), "--no-closure-proof")
	must(err)
	var b struct{ Checksum manifest.Digest }
	must(json.Unmarshal(out, &b))
	must(seeder.Push(ctx, dir))
	must(seeder.Policy(ctx, "os", "2", b.Checksum))
	_, err = seeder.Meshctl(ctx, "bundle", "export", dir, "--policy", "os", "--out", stick)
	must(err)
	must(seeder.Stop(ctx))
	l.on(func(root string) {
		l.do("cp", stick, filepath.Join(root, "root/stick.mesh"))
		l.do("cp", "-rT", site.Nodes[0].State, filepath.Join(root, "var/lib/meshd"))
		l.do("install", "-m", "0644", filepath.Join(site.Nodes[0].State, "trust.json"), filepath.Join(root, "etc/meshd/trust.json"))
		l.do("chroot", root, "chown", "-R", "meshd:meshd", "/var/lib/meshd")
	})
	said := l.passes(`
systemctl is-active meshd || systemctl --no-pager -l status meshd
meshctl bundle import /root/stick.mesh
n=0; until grep -qs '"reason":"Installed"' /var/lib/mesh-install/results.json; do sleep 1; n=$((n+1)); [ $n = 120 ] && break; done
n=0; until meshctl status | grep -q Installed; do sleep 1; n=$((n+1)); [ $n = 60 ] && break; done
idle; see after
meshctl status
pid=$(systemctl show -P MainPID meshd)
echo "meshd runs as $(stat -c %U /proc/$pid)"
grep -E '^(NoNewPrivs|CapEff|CapBnd|Seccomp):' /proc/$pid/status
grep -E 'VmRSS' /proc/$pid/status
su -s /bin/sh meshd -c 'touch /var/lib/mesh-install/x' 2>/dev/null && echo "meshd writes what is the executor's"
systemd-analyze security --no-pager meshd.service | tail -1
journalctl --no-pager -u meshd | tail -30
echo GUEST PASSED
`)
	after := l.seen("after")
	if rs := after.results.Results; len(rs) == 0 || rs[len(rs)-1].Reason != install.ReasonInstalled || rs[len(rs)-1].Outcome != install.Success {
		t.Errorf("%+v", rs)
	}
	if !strings.Contains(after.packages, "demo 2.0-1 install ok installed") || after.health != "2.0-1" {
		t.Errorf("packages %q, the service answers %q", after.packages, after.health)
	}
	for _, want := range []string{"meshd runs as meshd", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2"} {
		if !strings.Contains(said, want) {
			t.Errorf("not seen: %q", want)
		}
	}
	if strings.Contains(said, "what is the executor's") {
		t.Error("the daemon's user writes in the executor's state")
	}
}
