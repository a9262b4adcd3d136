package policy_test

import (
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// What the fields beyond the bundle and the schedule refuse, each by an edit of a policy that is right.
func TestPlanRefused(t *testing.T) {
	full, other, sample := string(golden(t, "full.yaml")), string(golden(t, "other.yaml")), string(golden(t, "sample.yaml"))
	const window = `maintenanceWindow: "Tue 02:00-04:00"`
	for _, c := range []struct {
		name, text, before, after, want string
	}{
		{"priority as a word", full, "priority: 100", "priority: high", `9:13: spec.priority "high" is not a whole number from -1000000 to 1000000`},
		{"priority beyond", full, "priority: 100", "priority: 1000001", "from -1000000 to 1000000"},
		{"a number that some read as eight", full, "priority: 100", "priority: 010", `spec.priority "010" is not a whole number`},
		{"suspend as a word", full, "suspend: false", "suspend: no", `spec.suspend "no" is not true or false`},

		{"everything and something", other, "{matchAll: true}", "{matchAll: true, matchLabels: {a: b}}", "8:26: spec.targets.selector.matchAll: true picks every node, and spec.targets.selector has conditions too"},
		{"not everything", other, "matchAll: true", "matchAll: false", "8:15: spec.targets.selector.matchLabels is empty or missing: name at least one label, or write matchAll: true"},
		{"everything excluded", full, `{freeze: "true"}`, "{role: pos}", "8:14: spec.targets.exclude picks every node that spec.targets.selector picks: to stop the policy, write spec.suspend: true"},
		{"exclude everything", full, `exclude: {matchLabels: {freeze: "true"}}`, "exclude: {matchAll: true}", "8:15: spec.targets.exclude.matchAll is not a field of PatchPolicy"},
		{"labels without matchLabels", full, "{matchLabels: {role: pos, env: prod}, matchExpressions: []}", "{role: pos}", "7:16: spec.targets.selector.role is not a field of PatchPolicy: it has matchLabels, matchExpressions, matchAll"},
		{"label is a number", full, "role: pos", "role: 7", `spec.targets.selector.matchLabels.role must be a text: write it in quotes, "7"`},
		{"operator of another house", other, "operator: In,", "operator: in,", `11:33: spec.targets.exclude.matchExpressions[0].operator "in" is not one of In, NotIn, Exists, DoesNotExist`},
		{"no operator", other, "operator: In, ", "", "11:11: spec.targets.exclude.matchExpressions[0].operator is missing"},
		{"no key", other, "key: ring, operator: In", "operator: In", "spec.targets.exclude.matchExpressions[0].key is missing"},
		{"empty key", other, "key: owned", `key: ""`, "spec.targets.exclude.matchExpressions[1].key is empty"},
		{"In nothing", other, ", values: [lab, canary]", "", "spec.targets.exclude.matchExpressions[0].values is empty or missing: In needs at least one"},
		{"NotIn nothing", other, "[rhel9]", "[]", "spec.targets.exclude.matchExpressions[2].values is empty or missing: NotIn needs at least one"},
		{"Exists with values", other, "{key: owned, operator: Exists}", "{key: owned, operator: Exists, values: [a]}", "spec.targets.exclude.matchExpressions[1].values is of In and NotIn: Exists takes none"},
		{"value is a truth value", other, "[lab, canary]", "[lab, yes, true]", `spec.targets.exclude.matchExpressions[0].values[2] must be a text: write it in quotes, "true"`},
		{"expression is a text", other, "{key: owned, operator: Exists}", "owned", "12:11: spec.targets.exclude.matchExpressions[1] must be a mapping of fields"},
		{"misspelt in an expression", other, "values: [lab", "value: [lab", "spec.targets.exclude.matchExpressions[0].value is not a field of PatchPolicy, did you mean values?"},

		{"strategy of another kind", full, "type: RollingUpdate", "type: Recreate", `23:11: spec.rolloutStrategy.type "Recreate" is not RollingUpdate`},
		{"strategy is a word", sample, "{type: RollingUpdate, batchSize: 100, batchDelayMinutes: 15}", "RollingUpdate", "10:22: spec.schedule.rolloutStrategy must be a mapping of fields"},
		{"misspelt below the schedule", sample, "batchSize", "batchsize", "10:44: spec.schedule.rolloutStrategy.batchsize is not a field of PatchPolicy, did you mean batchSize?"},
		{"batch of nothing", full, "batchSize: 100", "batchSize: 0", `24:16: spec.rolloutStrategy.batchSize: "0" is not a size`},
		{"batch below nothing", full, "batchSize: 100", "batchSize: -5", "is not a size"},
		{"batch of more than all", full, "batchSize: 100", `batchSize: "101%"`, `"101%" is not a size`},
		{"batch of a fraction", full, "batchSize: 100", "batchSize: 2.5", "is not a size"},
		{"batch of a fraction of a percent", full, "batchSize: 100", `batchSize: "0.5%"`, "is not a size"},
		{"batch in quotes", full, "batchSize: 100", `batchSize: "100"`, `spec.rolloutStrategy.batchSize: "100" is not a size: write 100`},
		{"batch with a zero before", full, "batchSize: 100", `batchSize: "05%"`, `"05%" is not a size: write 5%`},
		{"batch is null", full, "batchSize: 100", "batchSize: ~", `spec.rolloutStrategy.batchSize: "~" is not a size`},
		{"batch is empty", full, "batchSize: 100", `batchSize: ""`, `spec.rolloutStrategy.batchSize: "" is not a size`},
		{"batch is a list", full, "batchSize: 100", "batchSize: [100]", "spec.rolloutStrategy.batchSize must be a single value"},
		{"delay below nothing", full, "batchDelayMinutes: 15", "batchDelayMinutes: -1", "is not a number of minutes from 0 to 525600"},
		{"delay between no batches", sample, "batchSize: 100, ", "", "10:63: spec.schedule.rolloutStrategy.batchDelayMinutes is between batches, and there is one: give spec.schedule.rolloutStrategy.batchSize"},
		{"delay from nowhere", full, "delayFrom: Settled", "delayFrom: End", `"End" is not one of Settled, Started`},
		{"batch by room", full, "batchBy: Node", "batchBy: Room", `"Room" is not one of Node, Site`},
		{"gating by chance", full, "gating: Lease", "gating: None", `"None" is not one of Lease, Strict`},
		{"no canary named", full, "selector: {matchLabels: {ring: canary}}, ", "", "spec.rolloutStrategy.canary.selector is empty or missing"},
		{"canary of nobody", full, "{matchLabels: {ring: canary}}", "{matchLabels: {}}", "29:38: spec.rolloutStrategy.canary.selector is empty or missing"},
		{"promoted by nobody", full, "promote: Auto", "promote: Never", `"Never" is not one of Auto, Manual`},
		{"budget of nothing", full, `max: "2%"`, `max: "0%"`, `30:26: spec.rolloutStrategy.failureBudget.max: "0%" is not a size`},
		{"samples of nothing", full, "minSamples: 20", "minSamples: 0", "is not a number of nodes from 1"},
		{"exceeded, and then", full, "onExceeded: Pause", "onExceeded: Ignore", `"Ignore" is not one of Pause, Rollback`},
		{"back, and never back", other, "  suspend: true", "  rollback: {enabled: false}", "spec.rolloutStrategy.failureBudget.onExceeded is Rollback and spec.rollback.enabled is false"},

		{"healthy for longer than asked", full, "healthyForSeconds: 30", "healthyForSeconds: 120", "39:24: spec.rollback.healthyForSeconds is 2m0s and must be less than spec.rollback.healthCheckTimeoutSeconds, which is 2m0s"},
		{"healthy for longer than asked by default", sample, ", healthCheckTimeoutSeconds: 120", ", healthyForSeconds: 121", "spec.rollback.healthyForSeconds is 2m1s and must be less than spec.rollback.healthCheckTimeoutSeconds, which is 2m0s by default"},
		{"asked for longer than a node may take", full, "progressDeadlineMinutes: 60", "progressDeadlineMinutes: 2", "37:32: spec.rollback.healthCheckTimeoutSeconds is 2m0s and must be less than spec.rolloutStrategy.progressDeadlineMinutes, which is 2m0s"},
		{"asked for longer than a node may take by default", sample, "healthCheckTimeoutSeconds: 120", "healthCheckTimeoutSeconds: 3600", "which is 1h0m0s by default"},
		{"longer than the window", full, "progressDeadlineMinutes: 60", "progressDeadlineMinutes: 120", "31:30: spec.rolloutStrategy.progressDeadlineMinutes is 2h0m0s and must be less than spec.schedule.maintenanceWindow, of which the shortest is 2h0m0s"},
		{"longer than the window by default", sample, "02:00-04:00", "02:00-03:00", "8:24: spec.schedule.rolloutStrategy.progressDeadlineMinutes is 1h0m0s by default and must be less than spec.schedule.maintenanceWindow, of which the shortest is 1h0m0s"},

		{"staged before no window", full, window, "", "21:52: spec.staging.requireBeforeWindow is about windows, and there is none: give spec.schedule.maintenanceWindow"},
		{"staging begins in words", full, "startBefore: 72h", "startBefore: soon", `21:26: spec.staging.startBefore "soon" is not a time from 1m to 366d: write it as 30d, 36h or 90m`},
		{"profile of the policy", full, "profile: site", "profile: fast", `21:73: spec.staging.wan.profile "fast" is not site`},

		{"fast without a reason", other, "cve: CVE-2026-12345, ", "", "spec.fastTrack.cve is missing"},
		{"fast for a reason of one's own", other, "CVE-2026-12345", "log4shell", `spec.fastTrack.cve "log4shell" is not a CVE number: write it as CVE-2026-12345`},
		{"fast by one", other, "[ann@example.org, ben@example.org]", "[ann@example.org]", "spec.fastTrack.approvers needs two different people"},
		{"fast by one, twice", other, "ben@example.org", "ann@example.org", "spec.fastTrack.approvers needs two different people"},
		{"fast by one and nobody", other, "ben@example.org", `""`, "spec.fastTrack.approvers needs two different people"},
		{"fast by nobody", other, ", approvers: [ann@example.org, ben@example.org]", "", "spec.fastTrack.approvers needs two different people"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(c.text, c.before) {
				t.Fatalf("%q is not in the policy", c.before)
			}
			p, err := policy.ParseFile("p.yaml", []byte(strings.Replace(c.text, c.before, c.after, 1)))
			if err == nil {
				t.Fatalf("accepted as %+v", p)
			}
			want := c.want
			if want[0] >= '0' && want[0] <= '9' {
				want = "p.yaml:" + want
			}
			if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "p.yaml:") {
				t.Errorf("message %q\nlacks    %q", err, want)
			}
			if code := problem.CodeOf(err); code != problem.InvalidPolicy {
				t.Errorf("code %s", code)
			}
		})
	}
}

// The tags that the reader and the schemas live on have their form: a mistake in one would be a rule that is not kept.
func TestFields(t *testing.T) {
	policy.Fields().Walk("", func(path string, f *policy.Field) {
		switch {
		case path == "" || strings.HasSuffix(path, "[]"):
		case f.Name == "" || f.About == "":
			t.Errorf("%s has no name or says nothing of itself: %+v", path, f)
		case f.Kind == policy.Number && f.Min >= f.Max:
			t.Errorf("%s has no range: %+v", path, f)
		case f.Kind == policy.Truth && f.Default != "true" && f.Default != "false":
			t.Errorf("%s has no default: %+v", path, f)
		}
		if path != "" && !strings.HasSuffix(path, "[]") && !strings.Contains(path, "[]") && policy.Fields().At(path) == nil {
			t.Errorf("%s is not found", path)
		}
	})
	if f := policy.Fields().At("spec.schedule.blackouts[3].from"); f == nil || f.Kind != policy.DateDay || !f.Required {
		t.Errorf("an entry's field: %+v", f)
	}
}
