package policy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digest(t testing.TB) manifest.Digest {
	t.Helper()
	d, err := manifest.ParseDigest("sha256:9f2c0000000000000000000000000000000000000000000000000000000000aa")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParse(t *testing.T) {
	for name, want := range map[string]*policy.Policy{
		"smallest.yaml": {
			Name:     "prices",
			Bundle:   policy.BundleRef{Name: "default", Version: "7", Checksum: digest(t)},
			Selector: policy.Selector{Labels: map[string]string{"role": "pos"}},
			Reboot:   policy.RebootNever,
			Rollback: policy.Rollback{Enabled: true, HealthTimeoutSeconds: 120, Snapshot: policy.Snapshot{Provider: "auto", Required: true, Keep: 2, MaxAgeDays: 14}},
		},
		"supported.yaml": {
			Name: "retail-pos-prod", Namespace: "retail",
			Labels:      map[string]string{"team": "pos"},
			Annotations: map[string]string{"patchmgmt.io/change": "CHG0012345"},
			Bundle:      policy.BundleRef{Name: "pos-rhel9", Version: "2026.08.25-1", Checksum: digest(t)},
			Selector:    policy.Selector{Labels: map[string]string{"role": "pos", "env": "prod"}},
			Reboot:      policy.RebootNever,
			Rollback: policy.Rollback{HealthCheckURL: "http://127.0.0.1:8080/healthz", HealthTimeoutSeconds: 90,
				Snapshot: policy.Snapshot{Provider: "auto", Required: true, Keep: 2, MaxAgeDays: 14}},
		},
		"scheduled.yaml": {
			Name:     "retail-pos-prod",
			Bundle:   policy.BundleRef{Name: "pos-rhel9", Version: "2026.08.25-1", Checksum: digest(t)},
			Selector: policy.Selector{Labels: map[string]string{"role": "pos", "env": "prod"}},
			Schedule: policy.Schedule{
				Windows: "Tue 02:00-04:00;Sat,Sun 01:00-05:00;Mon 23:00-01:00", Zone: "America/Chicago",
				Blackouts: []policy.Blackout{{From: "2026-11-20", To: "2026-12-02", Reason: "Black Friday"}, {From: "2026-12-24", To: "2026-12-26"}},
				NotBefore: time.Date(2026, 9, 1, 8, 0, 0, 0, time.UTC), Cutoff: 20 * time.Minute,
				Deadline: 30 * 24 * time.Hour, RunAnytime: true, MaxDeferrals: 4,
			},
			Downgrade: true, Reboot: policy.RebootIfRequired,
			Rollback: policy.Rollback{Enabled: true, HealthCheckURL: "http://127.0.0.1:8080/healthz", HealthTimeoutSeconds: 90, IntervalSeconds: 5, HealthyForSeconds: 30,
				Snapshot: policy.Snapshot{Provider: "none", Keep: 3, MaxAgeDays: 7}},
		},
		"full.yaml": {
			Name: "retail-pos-prod", Labels: map[string]string{"team": "pos"}, Annotations: map[string]string{"patchmgmt.io/change": "CHG0012345"},
			Bundle:   policy.BundleRef{Name: "pos-rhel9", Version: "2026.08.25-1", Checksum: digest(t)},
			Selector: policy.Selector{Labels: map[string]string{"role": "pos", "env": "prod"}},
			Exclude:  policy.Selector{Labels: map[string]string{"freeze": "true"}},
			Priority: 100,
			Schedule: policy.Schedule{
				Windows: "Tue 02:00-04:00", Zone: "America/Chicago", Blackouts: []policy.Blackout{{From: "2026-11-20", To: "2026-12-02", Reason: "Black Friday"}},
				Cutoff: 20 * time.Minute, Deadline: 30 * 24 * time.Hour, MaxDeferrals: 4,
			},
			Staging: policy.Staging{StartBefore: 72 * time.Hour, RequireBeforeWindow: true},
			Rollout: &policy.Rollout{
				Batch: policy.Size{Count: 100}, BatchDelay: 15 * time.Minute, MaxUnavailable: policy.Size{Percent: 25},
				Canary:           &policy.Canary{Selector: policy.Selector{Labels: map[string]string{"ring": "canary"}}, Soak: 24 * time.Hour},
				Budget:           policy.Budget{Max: policy.Size{Percent: 2}, MinSamples: 20, MaxPerSite: 1},
				ProgressDeadline: time.Hour,
			},
			Reboot: policy.RebootIfRequired,
			Rollback: policy.Rollback{Enabled: true, HealthCheckURL: "http://127.0.0.1:8080/healthz", HealthTimeoutSeconds: 120, IntervalSeconds: 5, HealthyForSeconds: 30,
				Snapshot: policy.Snapshot{Provider: "auto", Required: true, Keep: 2, MaxAgeDays: 14}},
		},
		"other.yaml": {
			Name:     "everything-else",
			Bundle:   policy.BundleRef{Name: "default", Version: "7", Checksum: digest(t)},
			Selector: policy.Selector{All: true},
			Exclude: policy.Selector{Expressions: []policy.Expression{
				{Key: "ring", Operator: policy.In, Values: []string{"lab", "canary"}}, {Key: "owned", Operator: policy.Exists},
				{Key: "os", Operator: policy.NotIn, Values: []string{"rhel9"}}, {Key: "hands-off", Operator: policy.DoesNotExist}}},
			Priority: -5, Suspend: true,
			Rollout: &policy.Rollout{
				Batch: policy.Size{Percent: 5}, BatchDelay: time.Hour, FromStarted: true, BySite: true, MaxUnavailable: policy.Size{Count: 3},
				Canary:           &policy.Canary{Selector: policy.Selector{Expressions: []policy.Expression{{Key: "ring", Operator: policy.Exists}}}, Manual: true},
				Budget:           policy.Budget{Max: policy.Size{Count: 5}, MinSamples: 7, MaxPerSite: 2, Rollback: true},
				ProgressDeadline: 90 * time.Minute, Strict: true,
			},
			FastTrack: &policy.FastTrack{CVE: "CVE-2026-12345", Approvers: []string{"ann@example.org", "ben@example.org"}},
			Reboot:    policy.RebootNever,
			Rollback:  policy.Rollback{Enabled: true, HealthTimeoutSeconds: 120, Snapshot: policy.Snapshot{Provider: "auto", Required: true, Keep: 2, MaxAgeDays: 14}},
		},
	} {
		got, err := policy.Parse(golden(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

// The owner's sample applies as it is, and with the strategy directly below spec it says the same.
func TestSample(t *testing.T) {
	sample := string(golden(t, "sample.yaml"))
	want := &policy.Rollout{Batch: policy.Size{Count: 100}, BatchDelay: 15 * time.Minute, MaxUnavailable: policy.Size{Percent: 25},
		Budget: policy.Budget{Max: policy.Size{Percent: 2}, MinSamples: 20, MaxPerSite: 1}, ProgressDeadline: time.Hour}
	const nested = "    rolloutStrategy: {type: RollingUpdate, batchSize: 100, batchDelayMinutes: 15}\n"
	if !strings.Contains(sample, nested) {
		t.Fatal("the sample has no strategy below its schedule")
	}
	for name, text := range map[string]string{"as it is": sample, "moved": strings.Replace(sample, nested, "", 1) + nested[2:]} {
		p, err := policy.Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, p.Rollout); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
		if p.Name != "edge-fleet-q4-2024" || p.Namespace != "operations" || p.Schedule.Windows != "Tue 02:00-04:00" || p.Selector.Labels["region"] != "us-east" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	_, err := policy.ParseFile("both.yaml", []byte(sample+nested[2:]))
	if err == nil || !strings.Contains(err.Error(), "both.yaml:12:20: spec.rolloutStrategy and spec.schedule.rolloutStrategy are both given: keep one of them") {
		t.Errorf("both: %v", err)
	}
}

// edit replaces a part of the supported policy, which must be there.
func edit(t testing.TB, before, after string) []byte {
	t.Helper()
	text := string(golden(t, "supported.yaml"))
	if !strings.Contains(text, before) {
		t.Fatalf("%q is not in the policy", before)
	}
	return []byte(strings.Replace(text, before, after, 1))
}

func TestRefused(t *testing.T) {
	const checksum = "sha256:9f2c0000000000000000000000000000000000000000000000000000000000aa"
	const url = "http://127.0.0.1:8080/healthz"
	for _, c := range []struct {
		name, before, after string
		want                string // in the message, with its place
	}{
		{"misspelt field", "    checksum:", "    checksom:", "13:5: spec.bundleRef.checksom is not a field of PatchPolicy, did you mean checksum?"},
		{"wrong letter case", "    healthCheckUrl:", "    healthCheckURL:", "19:5: spec.rollback.healthCheckURL is not a field of PatchPolicy, did you mean healthCheckUrl?"},
		{"misspelt part", "spec:", "specs:", "9:1: specs is not a field of PatchPolicy, did you mean spec?"},
		{"unknown field", "  rollback:", "  colour: red\n  rollback:", "17:3: spec.colour is not a field of PatchPolicy"},
		{"misspelt below", "  rollback:", "  staging: {startbefore: 1h}\n  rollback:", "17:13: spec.staging.startbefore is not a field of PatchPolicy, did you mean startBefore?"},
		{"a part of nothing", "  rollback:", "  staging:\n  rollback:", "17:11: spec.staging must be a mapping of fields"},
		{"field of another part", "  rollback:", "  batchSize: 5\n  rollback:", "17:3: spec.batchSize is not a field of PatchPolicy, did you mean spec.rolloutStrategy.batchSize?"},
		{"everything, in the wrong place", "  rollback:", "  matchAll: true\n  rollback:", "17:3: spec.matchAll is not a field of PatchPolicy, did you mean spec.targets.selector.matchAll?"},
		{"given twice", "  targets:", "  bundleRef: {version: \"8\"}\n  targets:", "14:3: spec.bundleRef is given twice"},
		{"label given twice", "{team: pos}", "{team: pos, team: pot}", "7:23: metadata.labels.team is given twice"},
		{"anchor", "name: pos-rhel9", "name: &n pos-rhel9", "11:11: spec.bundleRef.name uses an anchor or an alias"},
		{"alias", "{team: pos}", "&l {team: pos}\n  namespace: *l", "uses an anchor or an alias"},
		{"merge key", "{team: pos}", "{<<: {team: pos}}", `7:12: "metadata.labels.<<" is not a field name`},
		{"two documents", "# No schedule", "---\na: 1\n---\n# No schedule", "more than one document"},
		{"other version", "patchmgmt.io/v1", "patchmgmt.io/v2", `2:13: apiVersion "patchmgmt.io/v2" is not patchmgmt.io/v1`},
		{"other kind", "kind: PatchPolicy", "kind: Site", `3:7: kind "Site" is not PatchPolicy`},
		{"no name", "  name: retail-pos-prod\n", "", "metadata.name is missing"},
		{"bad name", "name: retail-pos-prod", "name: Retail/POS", `5:9: metadata.name "Retail/POS": want`},
		{"bad namespace", "namespace: retail", "namespace: ''", `6:14: metadata.namespace "": want`},
		{"bad bundle name", "name: pos-rhel9", "name: ../etc", `spec.bundleRef.name "../etc": want`},
		{"version is a number", `"2026.08.25-1"`, "2026.08", `12:14: spec.bundleRef.version must be a text: write it in quotes, "2026.08"`},
		{"bad version", `"2026.08.25-1"`, `"a b"`, `spec.bundleRef.version "a b"`},
		{"no version", "    version: \"2026.08.25-1\"\n", "", "spec.bundleRef.version is missing"},
		{"no checksum", "    checksum: " + checksum + "\n", "", "spec.bundleRef.checksum is missing"},
		{"bad checksum", checksum, "sha256:abc123...", `13:15: spec.bundleRef.checksum: checksum "sha256:abc123..." is not sha256: and 64 hex digits`},
		{"empty selector", "{role: pos, env: prod}", "{}", "16:20: spec.targets.selector.matchLabels is empty or missing"},
		{"no selector", "    selector:\n      matchLabels: {role: pos, env: prod}\n", "    {}\n", "spec.targets.selector.matchLabels is empty or missing"},
		{"selector is a list", "{role: pos, env: prod}", "[role, env]", "16:20: spec.targets.selector.matchLabels must be a mapping of fields"},
		{"label is a truth value", "env: prod", "env: true", `16:37: spec.targets.selector.matchLabels.env must be a text: write it in quotes, "true"`},
		{"label is null", "env: prod", "env: ~", "spec.targets.selector.matchLabels.env must be a text"},
		{"label is a list", "env: prod", "env: [prod]", "spec.targets.selector.matchLabels.env must be a single value"},
		{"label of two lines", "env: prod", `env: "a\nb"`, "one that cannot be printed"},
		{"enabled is a word", "enabled: false", "enabled: yes", `18:14: spec.rollback.enabled "yes" is not true or false`},
		{"timeout of nothing", "Seconds: 90", "Seconds: 0", `20:32: spec.rollback.healthCheckTimeoutSeconds "0" is not a number of seconds from 1 to 86400`},
		{"timeout below nothing", "Seconds: 90", "Seconds: -1", "is not a number of seconds"},
		{"timeout of two days", "Seconds: 90", "Seconds: 172800", "is not a number of seconds"},
		{"timeout as a text", "Seconds: 90", `Seconds: "90"`, "is not a number of seconds"},
		{"timeout is a fraction", "Seconds: 90", "Seconds: 1.5", "is not a number of seconds"},
		{"health elsewhere", url, "http://10.0.0.1/", `19:21: spec.rollback.healthCheckUrl "http://10.0.0.1/" does not name the node itself`},
		{"health by name", url, "http://healthz.example.org/", "does not name the node itself"},
		{"health by a name that begins well", url, "http://localhost.example.org/", "does not name the node itself"},
		{"health anywhere", url, "http://0.0.0.0:80/", "does not name the node itself"},
		{"health by number", url, "http://2130706433/", "does not name the node itself"},
		{"health with credentials", url, "http://127.0.0.1@10.0.0.1/", "is not an http URL"},
		{"health over TLS", url, "https://localhost/", "is not an http URL"},
		{"health from a file", url, "file:///etc/passwd", "is not an http URL"},
		{"health at no port", url, "http://127.0.0.1:0/", "has no valid port"},
		{"rollback is a word", "  rollback:\n    enabled: false\n    healthCheckUrl: " + url + "\n    healthCheckTimeoutSeconds: 90\n", "  rollback: never\n", "17:13: spec.rollback must be a mapping of fields"},
		{"value is a mapping", "name: pos-rhel9", "name: {a: b}", "11:11: spec.bundleRef.name must be a single value"},
		{"set", "{team: pos}", "!!set {team}", "metadata.labels must be a mapping of fields"},
		{"broken", "spec:", "spec: [", "did not find expected"},
		{"tab in front", "spec:\n", "spec:\n\t\n\tx: y\n", "indent with spaces"},
		{"tab", "  targets:", "\ttargets:", "found a tab character that violates indentation"},
		{"other encoding", "# No schedule", "\uFEFF# No schedule", "is not plain UTF-8"},
		{"not UTF-8", "# No schedule", "# \xff", "is not plain UTF-8"},
		{"too large", "# No schedule", "# " + strings.Repeat("x", policy.MaxBytes), "at most 65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := policy.ParseFile("p.yaml", edit(t, c.before, c.after))
			if err == nil {
				t.Fatalf("accepted as %+v", p)
			}
			want := c.want
			if want[0] >= '0' && want[0] <= '9' {
				want = "p.yaml:" + want
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("message %q\nlacks    %q", err, want)
			}
			if !strings.Contains(err.Error(), "p.yaml:") {
				t.Errorf("message %q does not name the file", err)
			}
			if code := problem.CodeOf(err); code != problem.InvalidPolicy {
				t.Errorf("code %s", code)
			}
		})
	}
	for name, text := range map[string]string{"empty": "", "a comment": "# nothing\n", "a word": "hello", "a list": "[]", "null": "~"} {
		if p, err := policy.Parse([]byte(text)); problem.CodeOf(err) != problem.InvalidPolicy {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestHealthURL(t *testing.T) {
	for _, url := range []string{"http://localhost/", "http://localhost:8443/x?y=z", "http://127.0.0.1", "http://127.8.9.10:1/", "http://[::1]:8080/healthz"} {
		if _, err := policy.Parse(edit(t, "http://127.0.0.1:8080/healthz", fmt.Sprintf("%q", url))); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Everything wrong is said at once, in the order of the file, and the first thing gives the code.
func TestAllAtOnce(t *testing.T) {
	text := edit(t, "  rollback:", "  prio: 1\n  colour: red\n  rollback:")
	_, err := policy.Parse(text)
	var e *problem.Error
	if !errors.As(err, &e) || e.Code != problem.InvalidPolicy || e.Done == "" || e.Next == "" {
		t.Fatalf("error %#v", err)
	}
	if want := "17:3: spec.prio is not a field of PatchPolicy: it has bundleRef, targets, priority, suspend"; !strings.HasPrefix(e.Subject, want) {
		t.Errorf("subject %q, want %q", e.Subject, want)
	}
	if want := "also 18:3: spec.colour is not a field of PatchPolicy"; !strings.HasPrefix(e.Cause.Error(), want) {
		t.Errorf("cause %q, want %q", e.Cause, want)
	}
}

// A file of nothing but mistakes does not fill the screen.
func TestMessageIsBounded(t *testing.T) {
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "x%d: 1\n", i)
	}
	_, err := policy.Parse([]byte(text.String()))
	if err == nil || len(err.Error()) > 4096 || !strings.HasSuffix(err.Error(), "and 4949 more") {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

// The parser reads anything without a panic; what it accepts is a policy that selects something and pins a bundle.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"full.yaml", "supported.yaml", "smallest.yaml", "scheduled.yaml", "sample.yaml"} {
		f.Add(golden(f, name))
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? {a: b}\n: c"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := policy.Parse(text)
		if err != nil {
			if p != nil || !slices.Contains([]problem.Code{problem.InvalidPolicy, problem.InvalidWindow}, problem.CodeOf(err)) {
				t.Errorf("%+v with %v", p, err)
			}
			return
		}
		if !manifest.ValidName(p.Name) || p.Selector.IsZero() || p.Bundle.Checksum == (manifest.Digest{}) && !strings.Contains(string(text), strings.Repeat("0", 64)) {
			t.Errorf("accepted as %+v", p)
		}
	})
}
