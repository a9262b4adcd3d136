package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// What lint prints for a schedule, in the spring of New York.
func TestLint(t *testing.T) {
	const text = `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: pos}
spec:
  bundleRef: {version: "7", checksum: "sha256:9f2c0000000000000000000000000000000000000000000000000000000000aa"}
  targets: {selector: {matchLabels: {role: pos}}}
`
	for name, c := range map[string]struct {
		schedule string
		args     []string
		want     string
		exit     problem.Exit
	}{
		"none": {want: `policy pos is valid: default 7
targets  role=pos
windows  none: installs start as soon as the bundle is staged
`},
		"skipped and short": {schedule: `{maintenanceWindow: "Sun 02:00-03:00; Sun 01:30-03:30", timezone: America/New_York, startCutoffMinutes: 50}`,
			want: `policy pos is valid: default 7
targets  role=pos
windows  Sun 02:00-03:00; Sun 01:30-03:30 America/New_York
opens    Sun 2027-03-07 01:30 EST to 03:30 EST (2h0m0s, America/New_York)
opens    Sun 2027-03-14 01:30 EST to 03:30 EDT (1h0m0s, America/New_York)
opens    Sun 2027-03-21 01:30 EDT to 03:30 EDT (2h0m0s, America/New_York)
opens    Sun 2027-03-28 01:30 EDT to 03:30 EDT (2h0m0s, America/New_York)
warning[W1204]: Sun 02:00-03:00 does not exist in America/New_York on 2027-03-14 (clocks go forward); that day is skipped
warning[W1205]: Sun 01:30-03:30 lasts only 1h0m0s in America/New_York on 2027-03-14 (clocks go forward)
`},
		"too short to start": {schedule: `{maintenanceWindow: "Sun 01:00-03:00", timezone: America/New_York, startCutoffMinutes: 61}`,
			want: `policy pos is valid: default 7
targets  role=pos
windows  Sun 01:00-03:00 America/New_York
opens    Sun 2027-03-07 01:00 EST to 03:00 EST (2h0m0s, America/New_York)
opens    Sun 2027-03-21 01:00 EDT to 03:00 EDT (2h0m0s, America/New_York)
opens    Sun 2027-03-28 01:00 EDT to 03:00 EDT (2h0m0s, America/New_York)
opens    Sun 2027-04-04 01:00 EDT to 03:00 EDT (2h0m0s, America/New_York)
warning[W1205]: Sun 01:00-03:00 lasts only 1h0m0s in America/New_York on 2027-03-14 (clocks go forward), less than schedule.startCutoffMinutes: nothing starts
`},
		"each site's zone": {schedule: `{maintenanceWindow: "Sat 23:00-01:00", timezone: site}`,
			want: `policy pos is valid: default 7
targets  role=pos
windows  Sat 23:00-01:00 in the time zone of each site
opens    at another time in each zone: name the zones of your sites with --zone
`},
		"two sites' zones": {schedule: `{maintenanceWindow: "Daily 03:00-03:00", timezone: site, notBefore: 2027-03-14T00:00:00Z, blackouts: [{from: 2027-03-15, to: 2027-03-16}]}`,
			args: []string{"--zone", "Asia/Tokyo", "--zone", "Europe/Berlin"},
			want: `policy pos is valid: default 7
targets  role=pos
windows  Daily 03:00-03:00 in the time zone of each site
opens    Sun 2027-03-14 09:00 JST to Mon 2027-03-15 00:00 JST (15h0m0s, Asia/Tokyo)
opens    from Wed 2027-03-17 00:00 JST on
opens    Sun 2027-03-14 01:00 CET to Mon 2027-03-15 00:00 CET (23h0m0s, Europe/Berlin)
opens    from Wed 2027-03-17 00:00 CET on
warning[W1205]: Daily 03:00-03:00 lasts only 23h0m0s in Europe/Berlin on 2027-03-27 (clocks go forward)
`},
		"not valid":         {schedule: `{maintenanceWindow: "Tue 2:00am-4", timezone: UTC}`, exit: problem.ExitUsage},
		"zone that is none": {schedule: `{maintenanceWindow: "Tue 02:00-04:00", timezone: site}`, args: []string{"--zone", "Mars"}, exit: problem.ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "p.yaml")
			body := text
			if c.schedule != "" {
				body += "  schedule: " + c.schedule + "\n"
			}
			if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			env := cli.System()
			env.Args, env.Stdout, env.Stderr = append([]string{"lint", "-f", file}, c.args...), &out, &errs
			env.Now = func() time.Time { return time.Date(2027, 3, 6, 12, 0, 0, 0, time.UTC) }
			if exit := cli.Run(t.Context(), env, newRoot(env)); exit != c.exit {
				t.Fatalf("exit status %d\n%s", exit, errs.String())
			}
			if d := cmp.Diff(c.want, out.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if c.exit != 0 && name == "not valid" && !strings.Contains(errs.String(), "error[E1107]: "+file+":7:33: spec.schedule.maintenanceWindow") {
				t.Errorf("%s", errs.String())
			}
		})
	}
}

// lintDir runs lint on a directory of policies.
func lintDir(t *testing.T, policies map[string]string) (exit problem.Exit, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range policies {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	env := cli.System()
	env.Args, env.Stdout, env.Stderr = []string{"lint", "-f", dir}, &out, &errs
	env.Now = func() time.Time { return time.Date(2027, 3, 6, 12, 0, 0, 0, time.UTC) }
	exit = cli.Run(t.Context(), env, newRoot(env))
	return exit, out.String(), strings.ReplaceAll(errs.String(), dir+"/", "")
}

// written is a policy with a name, a selector and other fields of the spec.
func written(name, selector, more string) string {
	return `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: ` + name + `}
spec:
  bundleRef: {version: "7", checksum: "sha256:9f2c0000000000000000000000000000000000000000000000000000000000aa"}
  targets: {selector: ` + selector + `}
` + more
}

func TestLintDirectory(t *testing.T) {
	const canary = "{matchLabels: {role: pos, ring: canary}}"
	exit, out, errs := lintDir(t, map[string]string{
		"pos.yaml": written("pos", "{matchLabels: {role: pos}}", `  rolloutStrategy:
    batchSize: "5%"
    batchDelayMinutes: 15
    canary: {selector: {matchExpressions: [{key: ring, operator: In, values: [one, two]}]}, soakMinutes: 1440, promote: Manual}
    gating: Strict
  fastTrack: {cve: CVE-2026-12345, approvers: [ann, ben]}
`),
		"below/canary.yml":  written("canary", canary, "  priority: 10\n  suspend: true\n"),
		"README.md":         "not a policy",
		".git/hidden.yaml":  "not a policy",
		"below/.draft.yaml": "not a policy",
	})
	want := `policy canary is valid: default 7
targets  ring=canary,role=pos, priority 10
suspend  nothing starts
windows  none: installs start as soon as the bundle is staged
policy pos is valid: default 7
targets  role=pos
rollout  canary ring in (one,two), 24h0m0s of soaking, then a person promotes; left out for CVE-2026-12345, approved by ann, ben
rollout  batches of 5% of the nodes, 15m0s from the end of one to the next, at most 25% of a site at once, 1h0m0s for each node
rollout  pauses with more than 2% failed (from 20 nodes on), a site stops with more than 1
rollout  strict: a node needs a grant younger than 5 minutes, and waits while the WAN is cut
windows  none: installs start as soon as the bundle is staged
`
	if exit != 0 || errs != "" {
		t.Errorf("exit status %d\n%s", exit, errs)
	}
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}

	for name, c := range map[string]struct {
		policies map[string]string
		exit     problem.Exit
		want     []string
	}{
		"equal priority": {map[string]string{"a.yaml": written("pos", "{matchLabels: {role: pos}}", ""), "b.yaml": written("canary", canary, "")}, problem.ExitConflict,
			[]string{`error[E1112]: pos and canary both select a node with ring=canary,role=pos for the bundle "default", with equal priority`, "spec.priority"}},
		"one excludes the other's": {map[string]string{
			"a.yaml": written("pos", "{matchLabels: {role: pos}}, exclude: {matchLabels: {ring: canary}}", ""), "b.yaml": written("canary", canary, "")}, 0, nil},
		"wrong in two files": {map[string]string{"a.yaml": written("pos", "{}", ""), "b.yaml": written("canary", canary, "  priority: high\n"), "c.yaml": written("good", canary, "")},
			problem.ExitUsage, []string{"a.yaml:6:23: spec.targets.selector.matchLabels is empty", `b.yaml:7:13: spec.priority "high" is not a whole number`}},
		"one name twice":  {map[string]string{"a.yaml": written("pos", canary, ""), "b.yaml": written("pos", canary, "")}, problem.ExitUsage, []string{"policy pos stands in a.yaml and in b.yaml"}},
		"nothing in it":   {map[string]string{"README.md": ""}, problem.ExitUsage, []string{"it holds no .yaml or .yml file"}},
		"only one is not": {map[string]string{"a.yaml": written("pos", canary, ""), "b.yaml": ""}, problem.ExitUsage, []string{"b.yaml: the policy is empty"}},
	} {
		exit, _, errs := lintDir(t, c.policies)
		if exit != c.exit {
			t.Errorf("%s: exit status %d, want %d\n%s", name, exit, c.exit, errs)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: %s\nlacks %q", name, errs, want)
			}
		}
	}
}

// The two generated documents are printed as they are.
func TestPolicySchemaAndCRD(t *testing.T) {
	for name, file := range map[string]string{"schema": "patchpolicy.schema.json", "crd": "patchpolicy.crd.yaml"} {
		want, err := os.ReadFile(filepath.Join("..", "..", "docs", file))
		if err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		env := cli.System()
		env.Args, env.Stdout, env.Stderr = []string{"policy", name}, &out, &errs
		if exit := cli.Run(t.Context(), env, newRoot(env)); exit != 0 || out.String() != string(want) {
			t.Errorf("policy %s: exit status %d, %d bytes, want %d\n%s", name, exit, out.Len(), len(want), errs.String())
		}
	}
}
