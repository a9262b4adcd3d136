package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/node"
	"github.com/patchmesh/patchmesh/seeder"
)

// office is a real seeder in this process, and a directory in which meshctl is run.
type office struct {
	t   *testing.T
	dir string
	env map[string]string
	s   *seeder.Seeder
}

func newOffice(t *testing.T, silentAfter time.Duration) *office {
	o := &office{t: t, dir: t.TempDir(), env: map[string]string{}}
	t.Chdir(o.dir)
	for _, name := range []string{"release", "operator", "stranger"} {
		o.good("key generate " + name)
	}
	cfg := seeder.Config{State: filepath.Join(o.dir, "s"), ListenMesh: "127.0.0.1:0", ListenAPI: "127.0.0.1:0", Release: role(t, "release.gpg"), Policy: role(t, "operator.gpg"),
		SilentAfter: silentAfter}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if o.s, err = seeder.New(ctx, cfg); err != nil {
		cancel()
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { return o.s.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	o.env["MESHCTL_CONFIG"] = filepath.Join(cfg.State, "admin.json")
	return o
}

func role(t *testing.T, name string) trust.RoleKeys {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.ReadKeys(b)
	if err != nil {
		t.Fatal(err)
	}
	r, err := trust.NewRoleKeys(1, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run runs one command line, which has no quotes in it.
func (o *office) run(line string) (exit problem.Exit, stdout, stderr string) {
	var out, errs bytes.Buffer
	env := cli.System()
	env.Args, env.Stdout, env.Stderr = strings.Fields(line), &out, &errs
	env.Getenv = func(k string) string { return o.env[k] }
	exit = cli.Run(o.t.Context(), env, newRoot(env))
	return exit, out.String(), errs.String()
}

func (o *office) good(line string) string {
	o.t.Helper()
	exit, out, errs := o.run(line)
	if exit != problem.ExitOK {
		o.t.Fatalf("meshctl %s: exit status %d\n%s", line, exit, errs)
	}
	return out
}

func (o *office) write(name, content string) {
	o.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		o.t.Fatal(err)
	}
}

const policyForm = `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: app}
spec:
  bundleRef: {name: app, version: "VERSION", checksum: CHECKSUM}
  targets: {selector: {matchLabels: {role: pos}}}
`

func (o *office) policy(name, version, bundle string) {
	o.t.Helper()
	b, err := chunker.Open(bundle)
	if err != nil {
		o.t.Fatal(err)
	}
	o.write(name, strings.NewReplacer("VERSION", version, "CHECKSUM", b.Digest.String()).Replace(policyForm))
}

// Everything an administrator does with a seeder, good and bad, against a real one.
func TestWithSeeder(t *testing.T) {
	o := newOffice(t, time.Hour)
	o.write("app/hello", strings.Repeat("hello\n", 100_000))
	o.write("app2/hello", strings.Repeat("hello\n", 100_000))
	o.write("app2/more", "more\n")
	build := "bundle build --name app --format files --target-os any "
	o.good(build + "--version 1.0 --sequence 1 --from app --key release.key")
	o.good(build + "--version 1.1 --sequence 2 --from app2 --key release.key")
	o.good(build + "--version 1.1 --sequence 2 --from app --key release.key --out twin.bundle")
	o.good(build + "--version 1.2 --sequence 3 --from app --key stranger.key --out strange.bundle")
	o.good(build + "--version 1.2 --sequence 3 --from app --unsigned --out unsigned.bundle")
	o.policy("app.yaml", "1.0", "app-1.0.bundle")
	o.policy("app2.yaml", "1.1", "app-1.1.bundle")
	o.write("later.yaml", strings.Replace(policyForm, "spec:", "spec:\n  later: {startBefore: 72h}", 1))
	o.write("gone.yaml", strings.NewReplacer("VERSION", "9", "CHECKSUM", "sha256:"+strings.Repeat("0", 64)).Replace(policyForm))
	o.write("wan.yaml", "cap: 8Mbit\nperDay: 5GB\nrules:\n  - Mon-Fri 08:00-20:00 2Mbit\n  - '* blackout'\n")
	o.write("bad.yaml", "cap: 8Mbit\nrules: [  Mon 8-20 2Mbit]\n")
	o.write("wrong.token", "0000000000000000\n")
	if err := os.Chmod("wrong.token", 0o600); err != nil {
		t.Fatal(err)
	}
	https := ""
	for _, u := range o.s.Access().URLs {
		if strings.HasPrefix(u, "https:") {
			https = u
		}
	}
	pin := o.s.Access().Pin
	const stranger = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

	for _, c := range []struct {
		line           string
		exit           problem.Exit
		stdout, stderr string // patterns; "" is nothing at all for stderr of a good command
	}{
		{"status", 0, `FLEET    0 nodes in 0 sites`, ""},
		{"site create store-1 --timezone America/Chicago --wan-cap 6Mbit", 0, `site store-1 created`, ""},
		{"site timezone store-1 Mars/Olympus", 2, "", `E1001.*time zone "Mars/Olympus" is not known`},
		{"site timezone store-1 America/Denver", 0, `site store-1 is in America/Denver`, ""},
		{"site timezone store-1 America/Chicago", 0, `site store-1 is in America/Chicago`, ""},
		{"site create store-1", 6, ``, `E1201.*store-1`},
		{"site create Store!", 2, ``, `E1\d\d\d.*Store!`},
		{"site list", 0, `store-1 +0 +America/Chicago +6 Mbit/s`, ""},
		{"site list --json", 0, `"capBytesPerSecond": 750000`, ""},
		{"site wan store-1", 0, `^cap: 6Mbit\nperDay: 0\n$`, ""},
		{"site wan store-1 -f wan.yaml", 0, `^cap: 8Mbit\nperDay: 5GB\nrules:\n  - Mon-Fri 08:00-20:00 2Mbit\n  - Daily blackout\n$`, ""},
		{"site wan store-1 --cap 6Mbit --per-day 4GB", 0, `^cap: 6Mbit\nperDay: 4GB\nrules:\n  - Mon-Fri 08:00-20:00 2Mbit\n`, ""},
		{"site wan store-1 --json", 0, `"rules": \[\n +"Mon-Fri 08:00-20:00 2Mbit"`, ""},
		{"site wan store-1 --rule=", 0, `^cap: 6Mbit\nperDay: 4GB\n$`, ""},
		{"site wan store-1 --per-day 0", 0, `^cap: 6Mbit\nperDay: 0\n$`, ""},
		{"site wan store-1 -f bad.yaml", 2, ``, `E1103.*bad.yaml:2:11: rules\[0\]: hours`},
		{"site wan store-1 --cap fast", 2, ``, `E1103.*rate "fast"`},
		{"site wan store-1 --cap 1Mbit -f wan.yaml", 2, ``, `E1001.*replaces the whole profile`},
		{"site wan store-9", 10, ``, `E1204.*store-9`},
		{"site token store-1 --ttl 10m --label role=pos", 0, `^\S+\n$`, ""},
		{"site token store-1 --ttl 25h", 2, ``, `E1001`},
		{"site token store-1 --label pos", 2, ``, `E1001.*KEY=VALUE`},
		{"site token store-9", 10, ``, `E1204.*store-9`},
		{"site remove-node store-1 nobody", 10, ``, `E1204.*nobody`},
		{"status store-1", 0, `SITE    store-1   America/Chicago`, ""},
		{"status store-9", 10, ``, `E1204.*store-9`},
		{"status store-1/pos-1", 10, ``, `E1204.*no node pos-1`},

		{"bundle push unsigned.bundle", 5, ``, `E2102.*is not signed`},
		{"bundle push strange.bundle", 5, ``, `E2102.*not among the keys`},
		{"bundle push app-1.0.bundle", 0, `pushed app 1.0 .* 586 KiB new`, "push: done"},
		{"bundle push app-1.0.bundle", 0, `pushed app 1.0 .* 0 B new`, "push: done"},
		{"bundle push app-1.1.bundle --json", 0, `"sent": 5\b`, `"event":"progress"`}, // one file is new
		{"bundle push twin.bundle", 6, ``, `E1205`},
		{"bundle list", 0, `app +1.1 +2 +any-any/any files +committed`, ""},
		{"bundle list --json", 0, `"state": "committed"`, ""},

		{"apply -f later.yaml --key operator.key", 2, ``, `E1102.*later`},
		{"apply -f app.yaml -f app.yaml --key operator.key", 2, ``, `E1102.*stands in`},
		{"diff -f app.yaml", 1, `(?s)^\+ PatchPolicy/app   app 1.0\n  matches +0 nodes in 0 sites.*no projected finish: it selects no node\n$`, ""},
		{"apply -f app.yaml --dry-run", 1, `^\+ PatchPolicy/app`, ""},
		{"apply -f app.yaml --key release.key", 5, ``, `E2102`},
		{"apply -f app.yaml --key operator.key", 0, `policy app applied \(revision 1\): app 1.0 sha256:`, ""},
		{"apply -f app.yaml --key operator.key", 0, `policy app unchanged \(revision 1\)`, ""},
		{"diff -f app.yaml", 0, `nothing changes`, ""},
		{"diff -f app2.yaml", 1, `spec.bundleRef.version  1.0 -> 1.1`, ""},
		{"diff -f app2.yaml -o json", 1, `"action": "change"`, ""},
		{"diff -f gone.yaml", 10, `(?s).`, `E1204.*no published bundle app 9`},
		{"apply -f app2.yaml --key operator.key --json", 0, `"revision": 2`, ""},
		{"policy list", 0, `app +2 +in force +app +1.1`, ""},
		{"policy history app", 0, `(?s)2 +20.* app +1.1 .*1 +20.* app +1.0 `, ""},
		{"policy history none", 10, ``, `E1204`},
		{"node list", 0, `^NODE +PHASE`, ""},
		{"node list -o wide", 0, `BATCH +GRANT`, ""},
		{"node get store-1/pos-1", 10, ``, `E1204.*pos-1`},
		{"node get store-1", 2, ``, `SITE/NODE`},
		{"site get store-1", 0, `store-1 +0 +America/Chicago +6 Mbit/s`, ""},
		{"site get store-1 -o wide", 0, `READY(?s:.*)store-1`, ""},
		{"site get store-1 -o json", 0, `"status": {(?s:.*)"wan": {`, ""},
		{"site get store-1 -o yaml", 0, `(?m)^name: store-1$`, ""},
		{"site get store-9", 10, ``, `E1204.*store-9`},
		{"site list -o yaml", 0, `(?m)^- .*`, ""},
		{"policy get app", 0, `app +2 +in force`, ""},
		{"policy get app -o wide", 0, `PRIORITY +COMMIT(?s:.*)role=pos`, ""},
		{"policy get app -o yaml", 0, `(?m)^name: app$`, ""},
		{"policy get app -o text", 0, `^apiVersion: patchmgmt.io/v1\n`, ""},
		{"policy get none", 10, ``, `E1204.*none`},
		{"policy list -o wide", 0, `SELECTS`, ""},
		{"node list --filter colour=red", 2, ``, `E1001.*"colour" is not known`},
		{"bundle export app-1.1.bundle --policy app --out stick.mesh", 0, `wrote stick.mesh .* with 1 policy`, "export: done"},
		{"bundle export app-1.1.bundle --policy none --out other.mesh", 10, ``, `E1204.*no policy none`},
		{"policy delete app --key operator.key", 0, `policy app deleted \(revision 3\)`, ""},
		{"policy delete app --key operator.key", 0, `deleted already`, ""},
		{"policy delete none --key operator.key", 10, ``, `E1204`},
		{"apply -f app.yaml --key operator.key", 0, `applied \(revision 4\)`, ""},

		// Over the network: the certificate must be the pinned one, and the token the administrator's.
		{"site list --server " + https + " --pin " + pin + " --token-file s/admin.token", 0, `store-1`, ""},
		{"site list --server " + https + " --pin " + stranger + " --token-file s/admin.token", 5, ``, `E2109.*identity`},
		{"site list --server " + https + " --pin " + pin + " --token-file wrong.token", 7, ``, `E1203`},
		{"site list --server " + https + " --pin " + pin, 7, ``, `E1203`},
		{"site list --server " + https, 2, ``, `E1001.*pin`},
		{"site list --server unix://" + filepath.Join(o.dir, "gone.sock"), 4, ``, `E3102`},
	} {
		exit, out, errs := o.run(c.line)
		if exit != c.exit {
			t.Errorf("meshctl %s: exit status %d, want %d\n%s%s", c.line, exit, c.exit, out, errs)
		}
		if !regexp.MustCompile(c.stdout).MatchString(out) {
			t.Errorf("meshctl %s: stdout is not %q:\n%s", c.line, c.stdout, out)
		}
		if !regexp.MustCompile(c.stderr).MatchString(errs) || c.stderr == "" && errs != "" {
			t.Errorf("meshctl %s: stderr is not %q:\n%s", c.line, c.stderr, errs)
		}
		if c.exit != 0 && out != "" && !strings.Contains(c.line, "diff ") && !strings.Contains(c.line, "--dry-run") { // a plan with an error in it is an answer
			t.Errorf("meshctl %s: an answer beside an error:\n%s", c.line, out)
		}
	}
}

// A push that was cut goes on where it was.
func TestPushResumes(t *testing.T) {
	o := newOffice(t, time.Hour)
	o.write("app/a", strings.Repeat("a", 300_000))
	o.write("app/b", strings.Repeat("b", 300_000))
	o.good("bundle build --name app --version 1.0 --sequence 1 --from app --key release.key")
	b, err := chunker.Open("app-1.0.bundle")
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(o.s.Access())
	if err != nil {
		t.Fatal(err)
	}
	sums, err := signedSums(b)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := client.BeginBundle(t.Context(), api.BundleUpload{Manifest: b.Signed, Index: b.IndexBytes(), Sums: sums})
	if err != nil {
		t.Fatal(err)
	}
	catalog := b.Catalog()
	i, ok := catalog.Position(begun.Missing[0])
	if !ok {
		t.Fatalf("the seeder asks for a chunk that the bundle has not")
	}
	first := catalog.Chunks[i]
	plain, err := b.ReadChunk(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.PutChunk(t.Context(), first.ID, plain); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CommitBundle(t.Context(), begun.Digest); err == nil {
		t.Error("an incomplete bundle was published")
	}
	var all int64
	for _, id := range begun.Missing {
		i, _ := catalog.Position(id)
		all += catalog.Chunks[i].Size
	}
	p, err := push(t.Context(), client, b, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Sent != all-first.Size || p.State != api.BundleCommitted {
		t.Errorf("%d bytes sent, state %s; want %d, committed", p.Sent, p.State, all-first.Size)
	}
}

// A node that joined and never spoke is silent: somebody has to look at it, and the exit status says so.
func TestStatusNeedsAttention(t *testing.T) {
	o := newOffice(t, time.Nanosecond)
	o.good("site create store-1")
	token := strings.TrimSpace(o.good("site token store-1 --label role=pos"))
	if _, err := node.Join(t.Context(), filepath.Join(o.dir, "n"), "pos-1", token, nil); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"status":                       `Pending +1 +100.0 +1`,
		"status -o wide":               `store-1 +1 +0 +0 +1 +0`,
		"status -o name":               `^store-1\n$`,
		"status -o json":               `"kind": "FleetStatus"`,
		"status -o yaml":               `(?m)^kind: FleetStatus$`,
		"status -o jsonl":              `^{"apiVersion":.*"silent":true.*}\n$`,
		"status store-1 -o csv":        `(?m)^store-1,pos-1,Pending,true,,`,
		"status store-1 -o name":       `^store-1/pos-1\n$`,
		"status store-1/pos-1 -o yaml": `(?m)^silent: true$`,
		"status store-1":               `pos-1 +Pending .* never +silent`,
		"status store-1/pos-1":         `store-1/pos-1   never seen`,
		"status store-1/pos-1 --json":  `"nextAttempt": "20[^"]*Z"(?s:.*)"silent": true`, // it is awaited
	} {
		exit, out, errs := o.run(line)
		if exit != problem.ExitDegraded || !regexp.MustCompile(want).MatchString(out) || !strings.Contains(errs, "E3304") {
			t.Errorf("meshctl %s: exit status %d, want 3 and %q\n%s%s", line, exit, want, out, errs)
		}
	}
	// The positive control: without the node nothing is to be looked at.
	o.good("site remove-node store-1 pos-1")
	o.good("status store-1")
}
