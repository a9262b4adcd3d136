package packaging_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/status"
)

// As "mdwe PROGRAM ARG…" the test binary runs a program whose memory may not be written and executed, as with
// MemoryDenyWriteExecute=; as "mdwe?" it says whether that holds.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "mdwe?" {
		on, _, _ := unix.Syscall6(unix.SYS_PRCTL, unix.PR_GET_MDWE, 0, 0, 0, 0, 0)
		fmt.Println(on)
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "mdwe" {
		err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
		if err == nil {
			err = syscall.Exec(os.Args[2], os.Args[2:], os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// setting returns the values of a key in one of our units.
func setting(t *testing.T, unit, key string) (out []string) {
	t.Helper()
	b, err := os.ReadFile("systemd/" + unit)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), key+"="); ok {
			out = append(out, v)
		}
	}
	return out
}

// calls expands a set of system calls as systemd does.
func calls(t *testing.T, set string) map[string]bool {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "syscall-filter", set).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, l := range strings.Split(string(out), "\n")[1:] {
		switch name := strings.TrimSpace(l); {
		case name == "" || name[0] == '#':
		case name[0] == '@':
			for n := range calls(t, name) {
				all[n] = true
			}
		default:
			all[name] = true
		}
	}
	return all
}

// denied are the system calls that a unit does not allow.
func denied(t *testing.T, unit string) []string {
	t.Helper()
	allowed := map[string]bool{}
	for _, filter := range setting(t, unit, "SystemCallFilter") {
		list, not := strings.CutPrefix(filter, "~")
		for _, set := range strings.Fields(list) {
			for name := range calls(t, set) {
				allowed[name] = !not
			}
		}
	}
	var out []string
	for name := range calls(t, "@known") {
		if !allowed[name] {
			out = append(out, "?"+name) // which strace may not know
		}
	}
	slices.Sort(out)
	if len(out) < 100 {
		t.Fatalf("%q", out)
	}
	return out
}

// confine puts a meshd into bin that runs the real one as far as that can be without systemd under what its unit allows:
// another user without any capability or way to one, nothing to write but the node's directory, four devices, no memory
// to write and execute, and EPERM for each system call that the filter denies. What is tried of these, and which sockets
// are opened, is in NODE/calls.
func confine(t *testing.T, bin string, deny []string) {
	t.Helper()
	list := strings.Join(deny, ",")
	script := `#!/bin/sh
if [ "$1" != run ]; then exec "$0.real" "$@"; fi
state=$3
node=$(dirname "$state")
chown -R ` + fmt.Sprintf("%d:%d", nobody, nobody) + ` "$state"
chown root:` + fmt.Sprint(nobody) + ` "$node"
chmod 1775 "$node"
export node self=` + filepath.Join(bin, "mdwe") + ` real="$0.real"
exec unshare --mount --propagation private /bin/sh -c '
  mount --bind "$node" "$node" && mount -o remount,bind,ro / || exit 97
  mount -o remount,bind,ro /tmp 2>/dev/null
  touch "$node/../x" 2>/dev/null && exit 98
  mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5 && mknod -m 666 /dev/random c 1 8 && mknod -m 666 /dev/urandom c 1 9 || exit 97
  exec setpriv --reuid ` + fmt.Sprint(nobody) + ` --regid ` + fmt.Sprint(nobody) + ` --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    strace -D -f --seccomp-bpf -qq -o "$node/calls" -e trace=socket,` + list + ` -e inject=` + list + `:error=EPERM -e signal=none "$self" mdwe "$real" "$@"' sh "$@"
`
	if err := os.Rename(filepath.Join(bin, "meshd"), filepath.Join(bin, "meshd.real")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(bin, "meshd"), script, 0o755)
}

// A meshd that may do no more than its unit allows joins in, has a bundle installed by an executor that runs as root, and
// is told so; nothing that it is denied is of use to it. The control: without sockets it does not come up.
func TestDaemonUnderItsUnit(t *testing.T) {
	if testing.Short() {
		t.Skip("needs half a minute: run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests as root")
	}
	tool(t, "systemd-analyze")
	for _, name := range []string{"strace", "unshare", "setpriv"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name + ": make setup")
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(self, "mdwe", self, "mdwe?").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Skip("needs PR_SET_MDWE: Linux 6.3 or newer")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	bin := t.TempDir()
	must(harness.Build(ctx, bin))
	program, err := os.ReadFile(self)
	must(err)
	write(t, filepath.Join(bin, "mdwe"), string(program), 0o755)
	deny := denied(t, "meshd.service")
	confine(t, bin, deny)
	lab, err := harness.New(bin)
	must(err)
	t.Cleanup(func() { lab.Close() })
	for _, dir := range []string{lab.Dir, bin, filepath.Dir(bin)} { // so that others get at the programs
		must(os.Chmod(dir, 0o755))
	}
	seeder, err := lab.NewSeeder(ctx)
	must(err)
	site, err := seeder.Site(ctx, "site1", "0", 1)
	must(err)
	n := site.Nodes[0]
	trust, err := os.ReadFile(filepath.Join(n.State, "trust.json")) // as the guide says: what root trusts belongs to root
	must(err)
	executor := lab.Path("mesh-install")
	must(os.Mkdir(executor, 0o755))
	write(t, lab.Path("trust.json"), string(trust), 0o644)
	config := lab.Path("mesh-install.yaml")
	write(t, config, fmt.Sprintf("root: %s\nstate: %s\ntrust: %s\nreserveBytes: 0\n", n.Root, executor, lab.Path("trust.json")), 0o644)
	must(harness.RandomTree(lab.Path("tree"), 1<<20, 5))

	must(site.Start(ctx, "--handoff", executor))
	must(seeder.Release(ctx, "app", "1.0", 1, lab.Path("tree")))
	request := filepath.Join(n.State, "request.json")
	must(harness.Await(ctx, "the request", 50*time.Millisecond, func() (bool, string, error) {
		_, err := os.Stat(request)
		return err == nil, "none yet", n.Ended()
	}))
	if out, err := exec.CommandContext(ctx, filepath.Join(bin, "mesh-install"), "apply", "--config", config, "--request", request).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(harness.Await(ctx, "the answer", 50*time.Millisecond, func() (bool, string, error) {
		st, err := n.Self(ctx)
		return err == nil && st.Phase == status.Installed && st.Reason == install.ReasonInstalled, fmt.Sprint(st.Phase, st.Reason, err), n.Ended()
	}))
	proc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Proc().PID()))
	must(err)
	for _, l := range []string{"NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", fmt.Sprintf("Uid:\t%d", nobody)} {
		if !strings.Contains(string(proc), l) {
			t.Errorf("it does not run confined: no %q in\n%s", l, proc)
		}
	}
	must(n.Stop(ctx))
	log, err := os.ReadFile(filepath.Join(filepath.Dir(n.State), "calls"))
	must(err)
	families := map[string]bool{}
	var refused []string
	for l := range strings.Lines(string(log)) {
		if m := regexp.MustCompile(`socket\((AF_\w+)`).FindStringSubmatch(l); m != nil {
			families[m[1]] = true
		} else if strings.Contains(l, "(INJECTED)") {
			refused = append(refused, strings.TrimSpace(l))
		}
	}
	allowed := strings.Fields(setting(t, "meshd.service", "RestrictAddressFamilies")[0])
	for f := range families {
		if !slices.Contains(allowed, f) {
			t.Errorf("it opens sockets of %s, which the unit does not allow", f)
		}
	}
	t.Logf("%d system calls denied, tried %d times: %q; sockets of %v", len(deny), len(refused), refused, families)

	must(os.Rename(filepath.Join(bin, "meshd.real"), filepath.Join(bin, "meshd")))
	confine(t, bin, append(slices.Clone(deny), "?socket"))
	if err := n.Start("--handoff", executor); err == nil {
		if err := n.Ready(ctx); err == nil {
			t.Error("it serves without a socket: nothing is denied")
		}
	}
}
