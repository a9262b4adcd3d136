package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/internal/harness"
)

// live is a machine on which our programs and units are installed as packaging/README.md says, with a package of a
// service, demo, that answers on the loopback with the version that was installed when it started.
type live struct {
	*Machine
	*installtest.Bench
	t   *testing.T
	bed managertest.Bed
	bin string // our programs
}

const (
	healthURL = "http://127.0.0.1:8080/version"
	demoUnit  = `[Unit]
Description=demo
[Service]
RuntimeDirectory=demo
ExecStartPre=/bin/cp /usr/share/demo/version /run/demo/version
ExecStart=/bin/busybox httpd -f -p 127.0.0.1:8080 -h /run/demo
[Install]
WantedBy=multi-user.target
`
	badUnit = `[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
`
	// As debhelper writes them. The script looks too whether it has a network of its own.
	demoPost = `[ -d /run/systemd/system ] || exit 0
readlink /proc/self/ns/net >/var/log/demo.ns
bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080' && echo reached >>/var/log/demo.ns
systemctl daemon-reload && systemctl restart demo.service`

	// What the guest's scripts have at hand. see writes down how the machine is: packages, what dpkg finds, all names of
	// the system with what is known of them, and the content of those that packages and scripts change.
	tools = `
ask() { install -o meshd -g meshd -m 0640 /root/requests/$1 /var/lib/meshd/.next && mv /var/lib/meshd/.next /var/lib/meshd/request.json; }
answered() { until grep -qs "\"id\":\"$1\"" /var/lib/mesh-install/results.json; do sleep 1; done; idle; }
settled() { while [ -e /var/lib/mesh-install/journal.json ]; do sleep 1; done; idle; }
idle() { while systemctl is-active mesh-install.service | grep -q activating; do sleep 1; done; }
health() {
	for n in 1 2 3 4 5 6 7 8 9; do
		bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080 && printf "GET /version HTTP/1.0\r\n\r\n" >&3 && tail -1 <&3' >/root/out/$1.health 2>/dev/null && break
		sleep 1
	done
}
see() {
	dpkg-query -W -f '${Package} ${Version} ${Status}\n' demo 'part?' >/root/out/$1.packages 2>/dev/null
	dpkg --audit >/root/out/$1.audit 2>&1
	dpkg -V demo >>/root/out/$1.audit 2>&1
	health $1
	cp /var/lib/mesh-install/results.json /root/out/$1.results 2>/dev/null
	ls /var/lib/mesh-install/journal.json >/root/out/$1.journal 2>/dev/null
	(cd / && find boot etc opt usr var/lib/dpkg var/lib/apt -path opt/patchmesh -prune -o -path var/lib/apt/lists -prune -o -printf '%p %y %m %U %G %s %T@ %l\n' | sed -E 's/^([^ ]+ d [^ ]+ [^ ]+ [^ ]+) [0-9]+ /\1 - /' | sort
	 find etc var/lib/dpkg usr/share/demo usr/lib/systemd/system/demo.service -type f -print0 | sort -z | xargs -0 sha256sum) >/root/out/$1.files
	sync
}
mkdir -p /root/out
chown -R meshd:meshd /var/lib/meshd
`
)

func demo(version, unit, post string) managertest.Package {
	return managertest.Package{Name: "demo", Version: version, Unit: unit, Post: post}
}

// newLive makes one with a root of a kind of file system, these packages on it, and demo 1.0-1 enabled.
func newLive(t *testing.T, kind string, installed ...managertest.Package) *live {
	t.Helper()
	l := &live{Machine: machine(t, kind), t: t, bed: managertest.Deb()}
	l.bed.Needs(t)
	l.Bench = installtest.New(t, nil)
	l.bin = t.TempDir()
	if err := harness.Build(t.Context(), l.bin); err != nil {
		t.Fatal(err)
	}
	debs := l.bed.Repo(t, managertest.Spec{Packages: append(installed, demo("1.0-1", demoUnit, demoPost))}).Dir
	l.on(func(root string) {
		l.do("cp", "-r", debs, filepath.Join(root, "root/debs"))
		l.do("chroot", root, "/bin/sh", "-c", "PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg -i /root/debs/*.deb")
		for _, p := range harness.Programs() {
			l.do("cp", filepath.Join(l.bin, p), filepath.Join(root, "usr/bin", p))
		}
		for _, dir := range []string{"systemd", "sysusers.d", "tmpfiles.d"} {
			files, err := filepath.Glob(filepath.Join("../../packaging", dir, "*"))
			if err != nil || len(files) == 0 {
				t.Fatalf("%q, %v", files, err)
			}
			to := filepath.Join(root, "usr/lib", dir)
			if dir == "systemd" {
				to = filepath.Join(to, "system")
			}
			for _, f := range files {
				if !strings.HasSuffix(f, ".test") && !strings.Contains(f, "seeder") {
					l.do("install", "-m", "0644", f, to)
				}
			}
		}
		l.do("chroot", root, "systemd-sysusers")
		l.do("chroot", root, "systemctl", "enable", "demo", "meshd", "mesh-install.path", "mesh-install.timer", "mesh-install", "mesh-install-recover")
		l.do("mkdir", "-p", filepath.Join(root, "etc/meshd"), filepath.Join(root, "root/requests"), filepath.Join(root, "var/lib/meshd"))
		l.do("install", "-m", "0644", l.Config.Trust, filepath.Join(root, "etc/meshd/trust.json"))
		installtest.WriteFile(t, filepath.Join(root, "etc/meshd/mesh-install.yaml"), []byte("isolation: required\n"))
	})
	return l
}

// on changes the machine's root, while it is off.
func (l *live) on(f func(root string)) {
	l.t.Helper()
	if err := l.Mounted(l.t.Context(), func(root string) error { f(root); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

func (l *live) do(name string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		l.t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
}

// offer puts a bundle of packages on the machine, and a request for it as the daemon would write it: "ask ID" hands it
// to the executor.
func (l *live) offer(id string, sequence uint64, s managertest.Spec, w installtest.Want) {
	l.t.Helper()
	b := l.Packages(l.t, l.bed.Repo(l.t, s), fmt.Sprint(sequence), sequence)
	w.Revision = sequence
	r := install.NewRequest(b.Docs, l.Policy(l.t, b, w), "/var/lib/meshd/chunks")
	r.ID = id
	doc, err := r.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	l.on(func(root string) {
		installtest.WriteFile(l.t, filepath.Join(root, "root/requests", id), doc)
		l.do("cp", "-rT", l.Store, filepath.Join(root, "var/lib/meshd/chunks"))
	})
}

// seen is what "see NAME" wrote.
type seen struct {
	packages, audit, health, files, journal string
	results                                 install.Results
}

func (l *live) seen(name string) (s seen) {
	l.t.Helper()
	l.on(func(root string) {
		read := func(kind string) string {
			b, _ := os.ReadFile(filepath.Join(root, "root/out", name+"."+kind))
			return string(b)
		}
		s = seen{packages: read("packages"), audit: read("audit"), health: strings.TrimSpace(read("health")), files: read("files"), journal: read("journal")}
		if b := read("results"); b != "" {
			var err error
			if s.results, err = install.DecodeResults([]byte(b)); err != nil {
				l.t.Error(err)
			}
		}
	})
	if s.audit != "" || s.journal != "" {
		l.t.Errorf("%s: dpkg finds %q, journal %q", name, s.audit, s.journal)
	}
	return s
}

// answer is the last result with an ID.
func (s seen) answer(t *testing.T, id string) install.Result {
	t.Helper()
	r := s.results.Answer(id)
	if r == nil {
		t.Fatalf("%s is not answered: %+v", id, s.results.Results)
	}
	t.Logf("%s: %s %s exit %d, %s, %d s, changes %v, findings %q, reboot %q, recovered %q", id, r.Outcome, r.Reason, r.Exit, r.Snapshot, r.Seconds, r.Changes, r.Findings, r.Reboot, r.Recovered)
	return *r
}

// last is the last result: after a start of the machine it is no answer, for nobody asked.
func (s seen) last(t *testing.T) install.Result {
	t.Helper()
	if len(s.results.Results) == 0 {
		t.Fatal("there is no result")
	}
	return s.answer(t, s.results.Results[len(s.results.Results)-1].ID)
}

// differ shows the lines in which two texts differ.
func differ(a, b string) (out []string) {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	has := func(in []string) map[string]bool {
		m := map[string]bool{}
		for _, l := range in {
			m[l] = true
		}
		return m
	}
	am, bm := has(as), has(bs)
	for _, l := range as {
		if !bm[l] {
			out = append(out, "- "+l)
		}
	}
	for _, l := range bs {
		if !am[l] {
			out = append(out, "+ "+l)
		}
	}
	return out[:min(len(out), 40)]
}

// passes boots the machine with a script that uses the tools.
func (l *live) passes(script string) string {
	l.t.Helper()
	return boot(l.t, l.Machine, tools+script)
}

// On a live system a request of the daemon starts the executor. A package's script restarts its service from inside of the
// executor's empty namespace; the service has the machine's network, and is asked whether it is well. One that is not is
// taken back, and a person can go back too.
func TestLive(t *testing.T) {
	l := newLive(t, "btrfs")
	want := installtest.Want{URL: healthURL, Timeout: 30}
	l.offer("good", 2, managertest.Spec{Packages: []managertest.Package{demo("2.0-1", demoUnit, demoPost)}}, want)
	want.Timeout = 10
	l.offer("bad", 3, managertest.Spec{Packages: []managertest.Package{demo("3.0-1", badUnit, demoPost)}}, want)
	said := l.passes(`
systemctl is-active demo mesh-install.path mesh-install.timer
see before
ask good; answered good
see good
cat /var/log/demo.ns
echo "service $(readlink /proc/$(systemctl show -P MainPID demo)/ns/net) machine $(readlink /proc/1/ns/net) script $(head -1 /var/log/demo.ns)"
systemctl --no-pager status mesh-install.service mesh-install.path meshd.service
ask bad; answered bad
see bad
systemctl status --no-pager demo.service | head -5
systemctl restart demo; health again
mesh-install rollback os; echo "rollback ended with $?"
systemctl restart demo; see back
mesh-install status
systemctl --failed --no-pager
for u in meshd mesh-install mesh-install-recover; do systemd-analyze security --no-pager $u.service | tail -1; done
journalctl --no-pager -u mesh-install -u meshd | tail -40
echo GUEST PASSED
`)
	before, good, bad, again, back := l.seen("before"), l.seen("good"), l.seen("bad"), l.seen("again"), l.seen("back")
	if r := good.answer(t, "good"); r.Outcome != install.Success || r.Reason != install.ReasonInstalled || !strings.HasPrefix(r.Snapshot, "btrfs") || r.Isolation == "" {
		t.Errorf("%+v", r)
	}
	if before.health != "1.0-1" || good.health != "2.0-1" {
		t.Errorf("the service answers %q, then %q", before.health, good.health)
	}
	ns := map[string]string{}
	for _, line := range strings.Split(said, "\n") {
		if f := strings.Fields(line); len(f) == 6 && f[0] == "service" && f[2] == "machine" {
			ns["service"], ns["machine"], ns["script"] = f[1], f[3], f[5]
		}
	}
	if ns["service"] == "" || ns["service"] != ns["machine"] || ns["script"] == ns["machine"] || ns["script"] == "" || strings.Contains(said, "reached") {
		t.Errorf("network namespaces %v", ns)
	}
	if r := bad.answer(t, "bad"); r.Outcome != install.RolledBack || r.Reason != install.ReasonHealthCheck || r.Exit != install.ExitRolledBack {
		t.Errorf("%+v", r)
	}
	if diff := differ(good.files, bad.files); len(diff) > 0 || good.packages != bad.packages || again.health != "2.0-1" {
		t.Errorf("the way back: %q, service %q\n%s", bad.packages, again.health, strings.Join(diff, "\n"))
	}
	if diff := differ(before.files, back.files); len(diff) > 0 || before.packages != back.packages || back.health != "1.0-1" {
		t.Errorf("a person's way back: %q, service %q\n%s", back.packages, back.health, strings.Join(diff, "\n"))
	}
}

// The machine starts itself again, the executor goes on after that; a service that is not well then is taken back.
func TestLiveReboot(t *testing.T) {
	l := newLive(t, "btrfs")
	want := installtest.Want{URL: healthURL, Timeout: 30, Spec: "  reboot: IfRequired\n"}
	l.offer("good", 2, managertest.Spec{Reboot: true, Packages: []managertest.Package{demo("2.0-1", demoUnit, demoPost)}}, want)
	want.Timeout = 15 // the service of before the start is well: nobody restarts it
	l.offer("bad", 3, managertest.Spec{Reboot: true, Packages: []managertest.Package{demo("3.0-1", badUnit, "")}}, want)
	l.passes(`
echo "BOOT $BOOT $(cat /proc/sys/kernel/random/boot_id)"
case $BOOT in
1)	see before; ask good; sleep 600; exit ;;
2)	settled; see good; ask bad; sleep 600; exit ;;
3)	settled; systemctl restart demo; see bad
	mesh-install status
	journalctl --no-pager -u mesh-install -u mesh-install-recover | tail -30
	echo GUEST PASSED ;;
esac
`)
	before, good, bad := l.seen("before"), l.seen("good"), l.seen("bad")
	for id, s := range map[string]seen{"good": good, "bad": bad} {
		if r := s.answer(t, id); r.Reason != install.ReasonRebootPending || len(r.Findings) > 0 || len(r.Reboot) == 0 {
			t.Errorf("before the start: %+v", r)
		}
	}
	if r := good.last(t); r.Outcome != install.Success || r.Reason != install.ReasonInstalled || r.Version != "2" || good.health != "2.0-1" || before.health != "1.0-1" {
		t.Errorf("%+v, the service answers %q", r, good.health)
	}
	if r := bad.last(t); r.Outcome != install.RolledBack || r.Reason != install.ReasonHealthCheck || r.Version != "3" {
		t.Errorf("%+v", r)
	}
	if diff := differ(good.files, bad.files); len(diff) > 0 || good.packages != bad.packages || bad.health != "2.0-1" {
		t.Errorf("the way back: %q, service %q\n%s", bad.packages, bad.health, strings.Join(diff, "\n"))
	}
}

// cutter ends a context, and so the power, when the console has said something.
type cutter struct {
	at   string
	said []byte
	cut  context.CancelFunc
}

func (c *cutter) Write(p []byte) (int, error) {
	c.said = append(c.said, p...)
	if strings.Contains(string(c.said), c.at) {
		c.cut()
	}
	return len(p), nil
}

// The power goes at several instants of a real transaction on the live root. After the next start the machine is what it
// was or what it should be, by itself.
func TestLivePowerLoss(t *testing.T) {
	const parts = 4
	version := func(n int) string { return fmt.Sprintf("%d.0-1", n) }
	spec := func(n int) (s managertest.Spec) {
		for i := range parts {
			mark := func(what string) string { return fmt.Sprintf("echo CUT %d %s %d >/dev/ttyS0 || :", n, what, i) }
			s.Packages = append(s.Packages, managertest.Package{
				Name: fmt.Sprintf("part%d", i), Version: version(n), Files: 20, Bytes: 1 << 20, Conffile: fmt.Sprintf("part %d %d\n", i, n), Pre: mark("pre"), Post: mark("post"),
			})
		}
		return s
	}
	cuts := []string{"hook", "pre 0", "post 2", "done"}
	l := newLive(t, "ext4", spec(1).Packages...)
	hook := "#!/bin/sh\n[ \"$HOOK_PHASE\" = preflight ] && what=hook || what=done\necho CUT $HOOK_VERSION $what >/dev/ttyS0\n"
	config := "isolation: required\nsnapshot:\n  exclude:\n"
	for _, dir := range append(install.DefaultExclude(), "/boot", "/usr/bin", "/usr/lib", "/usr/sbin", "/usr/share/doc", "/usr/share/locale", "/usr/share/perl", "/usr/share/zoneinfo") {
		config += "    - " + dir + "\n" // an emulated machine takes minutes to copy all of itself
	}
	l.on(func(root string) {
		l.do("mkdir", "-p", filepath.Join(root, "etc/meshd/hooks.d"))
		installtest.WriteFile(t, filepath.Join(root, "etc/meshd/mesh-install.yaml"), []byte(config))
		if err := os.WriteFile(filepath.Join(root, "etc/meshd/hooks.d/mark"), []byte(hook), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	script := tools + "settled\nsee $BOOT\necho \"SEEN $BOOT\"\ncase $BOOT in\n"
	for i := range cuts {
		n := i + 2
		l.offer(fmt.Sprint("cut", n), uint64(n), spec(n), installtest.Want{})
		script += fmt.Sprintf("%d) ask cut%d; sleep 600 ;;\n", i+1, n)
	}
	if err := l.Script(t.Context(), script+"esac\nmesh-install status\njournalctl --no-pager -u mesh-install -u mesh-install-recover | grep -v CUT | tail -60\n"); err != nil {
		t.Fatal(err)
	}
	for i, cut := range append(slices.Clone(cuts), "") {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), longest)
		c := &cutter{at: fmt.Sprintf("CUT %d %s", i+2, cut), cut: cancel}
		said, err := l.Start(ctx, c)
		cancel()
		t.Logf("%.0f s until %q", time.Since(begun).Seconds(), c.at)
		if cut == "" || !strings.Contains(string(c.said), c.at) {
			t.Log(said)
		}
		if cut == "" && err != nil || cut != "" && !strings.Contains(string(c.said), c.at) {
			t.Fatalf("the run until %q: %v", c.at, err)
		}
	}
	old := version(1)
	for i := range append(slices.Clone(cuts), "") {
		s := l.seen(fmt.Sprint(i + 1))
		var have []string
		for _, line := range strings.Split(strings.TrimSpace(s.packages), "\n") {
			if f := strings.SplitN(line, " ", 3); len(f) == 3 && strings.HasPrefix(f[0], "part") {
				have = append(have, f[1]+" "+f[2])
			}
		}
		slices.Sort(have)
		have = slices.Compact(have)
		what := ""
		for _, r := range s.results.Results {
			what = fmt.Sprintf("%s %s %s, recovered %q", r.Version, r.Outcome, r.Reason, r.Recovered)
		}
		t.Logf("at boot %d: %q, the last result: %s", i+1, have, what)
		v, fine := strings.CutSuffix(strings.Join(have, ", "), " install ok installed")
		if !fine || v != old && v != version(i+1) {
			t.Errorf("at boot %d, after a cut at %q, there are %q", i+1, slices.Concat([]string{""}, cuts)[i], have)
		}
		old = v
	}
}
