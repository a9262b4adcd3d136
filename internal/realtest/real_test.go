package realtest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/status"
)

// suite is the release whose published state is the old one, and of whose updates the new one is made.
const suite = "bookworm"

// include are packages of which the release's point releases and its security archive seldom have the same version,
// and what they need. Which of them really differ today is found out, not assumed.
const include = "unzip,zip,jq,xz-utils,libpng16-16,tzdata,ca-certificates,openssl,libexpat1"

// bundle is the name of what is installed.
const bundle = "pos-debian"

// TestRealPackages installs every update of a real root, offline, checks every version one by one, takes it all back
// by hand, and then lets a health check take it back.
func TestRealPackages(t *testing.T) {
	if os.Getenv("PATCHMESH_REAL") == "" {
		t.Skip("needs the distribution's mirrors and two minutes: make install-test")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs to unpack a root with its owners: run as root")
	}
	for _, p := range []string{"mmdebstrap", "apt-ftparchive"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: scripts/setup vm", p)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	r := newRig(t, ctx)

	r.log("the old state: %d packages", len(r.versions()))
	old, before := r.tree(), r.versions()
	list := r.collect()
	dir, sum := r.build("2026.11.1", 1, "debs")
	r.must(r.seeder.Push(ctx, dir))
	r.apply("2026.11.1", sum, "")
	r.await("the executor is at work", func(n status.Node) bool {
		return n.Phase == status.Installing || n.Phase == status.Installed
	})
	r.must(r.seeder.Stop(ctx))
	r.log("seeder gone: from here on there is no WAN")
	r.await("installed", func(n status.Node) bool { return n.Phase == status.Installed })
	r.exactly(list, before)
	if r.tree() == old {
		t.Fatal("nothing changed on the disk: the comparison would not notice")
	}

	r.log("mesh-install rollback: %s", r.executor("rollback", bundle))
	r.back(old, before, "by hand")

	r.must(r.seeder.Start(ctx))
	dir, sum = r.build("2026.11.2", 2, "debs")
	r.must(r.seeder.Push(ctx, dir))
	r.apply("2026.11.2", sum, "  rollback: {healthCheckUrl: \"http://127.0.0.1:9/health\", healthCheckTimeoutSeconds: 3}\n")
	r.await("rolled back", func(n status.Node) bool { return n.Phase == status.RolledBack })
	r.back(old, before, "by the health check")
	out, err := r.seeder.Meshctl(ctx, "status", "store-1")
	var degraded *harness.ExitError
	if err != nil && !errors.As(err, &degraded) {
		t.Fatal(err)
	}
	r.log("meshctl status store-1\n%s", out)
}

// rig is one site with one node, whose machine is a directory.
type rig struct {
	t       *testing.T
	ctx     context.Context
	began   time.Time
	lab     *harness.Lab
	seeder  *harness.Seeder
	node    *harness.Node
	machine string
}

func newRig(t *testing.T, ctx context.Context) *rig {
	bin := filepath.Join(t.TempDir(), "bin")
	if err := harness.Build(ctx, bin); err != nil {
		t.Fatal(err)
	}
	lab, err := harness.New(bin)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ctx: ctx, began: time.Now(), lab: lab, machine: lab.Path("machine")}
	t.Cleanup(func() {
		if t.Failed() {
			lab.Tail(os.Stderr, 60)
		}
		r.must(lab.Close())
	})
	r.must(os.Mkdir(r.machine, 0o755))
	r.run("mmdebstrap", "--quiet", "--variant=apt", "--include="+include, suite, lab.Path("old.tar"), "deb "+mirror(t)+" "+suite+" main")
	r.run("tar", "-xf", lab.Path("old.tar"), "-C", r.machine)
	if r.seeder, err = lab.NewSeeder(ctx); err != nil {
		t.Fatal(err)
	}
	site, err := r.seeder.Site(ctx, "store-1", "0", 1)
	if err != nil {
		t.Fatal(err)
	}
	r.node = site.Nodes[0]
	f, err := os.OpenFile(r.node.InstallConfig(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "machine: %s\nhooks: %s\n", r.machine, lab.Path("hooks.d"))
	r.must(errors.Join(err, f.Close()))
	r.must(site.Start(ctx))
	return r
}

// mirror is where this machine's apt takes the suite from.
func mirror(t *testing.T) string {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == suite && f[1] == "main" {
			return f[2]
		}
	}
	t.Skipf("needs the suite %s among apt's sources: run it on that release", suite)
	return ""
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) log(format string, args ...any) {
	r.t.Helper()
	r.t.Logf("%6.1fs  %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *rig) run(name string, args ...string) []byte {
	r.t.Helper()
	cmd := exec.CommandContext(r.ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s: %v: %s", name, err, stderr.String())
	}
	return out
}

// versions is what the machine's own database says, by name and architecture.
func (r *rig) versions() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(string(r.run("dpkg-query", "--root="+r.machine, "-W", "-f", "${Package}:${Architecture} ${Version} ${db:Status-Abbrev}\n"))) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "ii" {
			r.t.Errorf("package %s is not as it should be", strings.TrimSpace(line))
			continue
		}
		out[f[0]] = f[1]
	}
	return out
}

// collect gathers the updates and returns their list.
func (r *rig) collect() *packages.List {
	r.t.Helper()
	out, err := r.lab.Run(r.ctx, "meshctl", "bundle", "collect", "--format", "deb", "--target-os", "debian-12/amd64",
		"--installed", filepath.Join(r.machine, "var/lib/dpkg/status"), "--dest", r.lab.Path("debs"))
	r.must(err)
	r.log("meshctl bundle collect\n%s", out)
	b, err := os.ReadFile(r.lab.Path("debs", packages.FileName))
	r.must(err)
	l, err := packages.ParseList(b)
	r.must(err)
	if len(l.Packages) < 8 {
		r.t.Fatalf("only %d packages have an update: too few to show anything", len(l.Packages))
	}
	return l
}

func (r *rig) build(version string, sequence int, from string) (dir, sum string) {
	r.t.Helper()
	dir = r.lab.Path(version + ".bundle")
	out, err := r.lab.Run(r.ctx, "meshctl", "bundle", "build", "--json", "--name", bundle, "--version", version, "--sequence", fmt.Sprint(sequence),
		"--format", "deb", "--target-os", "debian-12/amd64", "--from", r.lab.Path(from), "--out", dir, "--key", r.lab.Path("release.key"),
		"--base", filepath.Join(r.machine, "var/lib/dpkg/status"))
	r.must(err)
	var answer struct {
		Checksum string `json:"checksum"`
		Bytes    int64  `json:"bytes"`
	}
	r.must(json.Unmarshal(out, &answer))
	r.log("bundle %s: %d bytes, %s", version, answer.Bytes, answer.Checksum)
	return dir, answer.Checksum
}

func (r *rig) apply(version, sum, more string) {
	r.t.Helper()
	name := r.lab.Path(version + ".yaml")
	text := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: %s}\nspec:\n  bundleRef: {name: %s, version: %q, checksum: %q}\n"+
		"  targets: {selector: {matchLabels: {role: node}}}\n%s", bundle, bundle, version, sum, more)
	r.must(os.WriteFile(name, []byte(text), 0o644))
	_, err := r.seeder.Meshctl(r.ctx, "apply", "-f", name, "--key", r.lab.Path("operator.key"))
	r.must(err)
}

// await waits until the node says something of itself, and fails when it says that it will not get there.
func (r *rig) await(what string, is func(status.Node) bool) {
	r.t.Helper()
	last := ""
	err := harness.Await(r.ctx, what, 200*time.Millisecond, func() (bool, string, error) {
		n, err := r.node.Self(r.ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		line := fmt.Sprintf("%s %s %s", n.Phase, n.Reason, n.Detail)
		if line != last {
			r.log("%s", line)
			last = line
		}
		done := is(n)
		if !done && slices.Contains([]status.Phase{status.InstallFailed, status.RolledBack, status.Quarantined}, n.Phase) {
			return false, line, errors.New(line)
		}
		return done, line, nil
	})
	r.must(err)
}

// exactly checks that every package of the list has its version and every other one the version that it had.
func (r *rig) exactly(l *packages.List, before map[string]string) {
	r.t.Helper()
	after := r.versions()
	for _, p := range l.Packages {
		if got := after[p.ID()]; got != p.Version {
			r.t.Errorf("%s is %q, the list says %q", p.ID(), got, p.Version)
		}
		r.log("%-24s %s -> %s", p.Name, before[p.ID()], after[p.ID()])
	}
	for id, v := range before {
		if after[id] != v && !slices.ContainsFunc(l.Packages, func(p packages.Package) bool { return p.ID() == id }) {
			r.t.Errorf("%s was %q and is %q, and the bundle has nothing to do with it", id, v, after[id])
		}
	}
}

// back checks that the machine is what it was, to the byte and to the version.
func (r *rig) back(old string, before map[string]string, how string) {
	r.t.Helper()
	for id, v := range r.versions() {
		if before[id] != v {
			r.t.Errorf("%s is %q, was %q", id, v, before[id])
		}
	}
	got := r.tree()
	if got == old {
		r.log("rolled back %s: %d names and %x as before", how, strings.Count(got, "\n"), sha256.Sum256([]byte(got)))
		return
	}
	for side, lines := range map[string][2]string{"was": {old, got}, "is": {got, old}} {
		have := strings.Split(lines[1], "\n")
		for line := range strings.Lines(lines[0]) {
			if !slices.Contains(have, strings.TrimSuffix(line, "\n")) {
				r.t.Errorf("rolled back %s: %s %s", how, side, line)
			}
		}
	}
}

// tree is every name of the machine with its type, mode, owner, time, size, link and content, by other programs than
// ours. Left out is what the executor leaves alone: logs and caches.
func (r *rig) tree() string {
	r.t.Helper()
	const script = `cd "$1" || exit 1
skip() { find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./var/log -o -path ./var/cache/apt -o -path ./var/lib/apt/lists \) -prune -o "$@"; }
{ skip ! -type d -printf '%P\t%y\t%m\t%U\t%G\t%T@\t%s\t%l\n' | sort
  skip -type d -printf '%P\t%y\t%m\t%U\t%G\n' | sort
  skip -type f -print0 | sort -z | xargs -0 sha256sum; }`
	return string(r.run("sh", "-c", script, "tree", r.machine))
}

// executor runs mesh-install on the node's configuration, as a person on the machine would.
func (r *rig) executor(args ...string) string {
	r.t.Helper()
	out, err := r.lab.Run(r.ctx, "mesh-install", append(args, "--config", r.node.InstallConfig())...)
	r.must(err)
	return strings.TrimSpace(string(out))
}
