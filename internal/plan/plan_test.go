package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

var (
	chicago = zone("America/Chicago")
	denver  = zone("America/Denver")
	// Monday; the next Tuesday 02:00 in Chicago is 2026-08-25 07:00 UTC.
	now    = time.Date(2026, 8, 24, 12, 0, 0, 0, time.UTC)
	digest = manifest.DigestOf([]byte("new"))
)

func zone(name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return z
}

func file(t testing.TB, name, spec string) plan.File {
	t.Helper()
	text := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: %s}\nspec:\n  bundleRef: {name: pos, version: \"2\", checksum: %q}\n%s", name, digest.String(), spec)
	p, err := policy.ParseFile(name+".yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return plan.File{File: name + ".yaml", Text: text, Policy: p}
}

const everyPos = "  targets: {selector: {matchLabels: {role: pos}}}\n"

// fleet is sites of so many nodes each, all in Chicago, each on a line of 6 Mbit/s.
func fleet(sites, nodes int) plan.World {
	w := plan.World{Now: now, Missing: func(string, manifest.Digest) int64 { return 0 },
		Bundles: []plan.Bundle{{Name: "pos", Version: "2", Checksum: digest, Sequence: 2, Published: true}}}
	for i := range sites {
		s := plan.Site{Name: fmt.Sprintf("site-%04d", i), Zone: chicago, WAN: wanprofile.Profile{Cap: 750_000}}
		for k := range nodes {
			labels := map[string]string{"role": "pos"}
			if i+k == 0 {
				labels["ring"] = "canary"
			}
			s.Nodes = append(s.Nodes, plan.Node{Name: fmt.Sprintf("pos-%02d", k), Labels: labels, Installed: map[string]uint64{"pos": 1}})
		}
		w.Sites = append(w.Sites, s)
	}
	return w
}

func rolling(size any, delay int, rest string) string {
	return everyPos + fmt.Sprintf("  schedule:\n    maintenanceWindow: \"Tue 02:00-04:00\"\n    timezone: America/Chicago\n%s  rolloutStrategy: {type: RollingUpdate, batchSize: %v, batchDelayMinutes: %d}\n", rest, size, delay)
}

const healthy = "  rollback: {healthCheckUrl: \"http://localhost:8080/health\", healthCheckTimeoutSeconds: 600, healthyForSeconds: 300}\n"

// Batches, windows and the finish, counted by hand.
func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		name                        string
		sites, nodes                int
		spec                        string
		batches, perWindow, windows int
		finish                      string // UTC
	}{
		// operator.md: 10,000 nodes / 100 = 100 batches; 02:00, 02:15 .. 03:45 = 8; 100 / 8 = 12.5: 13 windows; the last holds 4: 02:45.
		{"the design's", 500, 20, rolling(100, 15, ""), 100, 8, 13, "2026-11-17T08:45:00Z"}, // standard time by then
		// With 20 minutes left at least: the last may start at 03:40, so 02:00 .. 03:30 = 7; 100 / 7 = 14.3: 15 windows; 98 in 14, then 2: 02:15.
		{"cut-off", 500, 20, rolling(100, 15, "    startCutoffMinutes: 20\n"), 100, 7, 15, "2026-12-01T08:15:00Z"},
		{"one batch", 5, 20, rolling(100, 15, ""), 4, 4, 1, "2026-08-25T07:45:00Z"}, // a quarter of each site at once: 5 of 20, so 4 batches of 25
		{"percent", 500, 20, rolling(`"5%"`, 15, ""), 20, 8, 3, "2026-09-08T07:45:00Z"},
		{"no delay", 500, 20, rolling(100, 0, ""), 100, 100, 1, "2026-08-25T07:00:00Z"},
		{"no order", 500, 20, everyPos, 1, 1, 1, "2026-08-24T12:00:00Z"},
		// The canary takes the first window, a day's soak the second is free of: 13 windows begin a week later.
		{"canary", 500, 20, strings.Replace(rolling(100, 15, ""), "batchDelayMinutes: 15}", "batchDelayMinutes: 15, canary: {selector: {matchLabels: {ring: canary}}, soakMinutes: 1440}}", 1), 100, 8, 14, "2026-11-24T08:45:00Z"},
		// A node must be well for 5 minutes, and the delay counts from then: 02:00, 02:20 .. 03:40 = 6; 100 / 6 = 16.7: 17 windows; the last holds 4: 03:00, and 5 minutes.
		{"health", 500, 20, rolling(100, 15, "") + healthy, 100, 6, 17, "2026-12-15T09:05:00Z"},
		{"from the start", 500, 20, strings.Replace(rolling(100, 15, ""), "batchDelayMinutes: 15", "batchDelayMinutes: 15, delayFrom: Started", 1) + healthy, 100, 8, 13, "2026-11-17T08:50:00Z"},
	} {
		p := plan.Compute(fleet(c.sites, c.nodes), []plan.File{file(t, "a", c.spec)}, false)
		x := p.Changes[0]
		if x.Finish == nil {
			t.Errorf("%s: no finish: %s", c.name, x.Why)
			continue
		}
		if x.Batches != c.batches || x.PerWindow != c.perWindow || x.Count != c.windows || x.Finish.Format(time.RFC3339) != c.finish || x.Nodes != c.sites*c.nodes || x.Sites != c.sites || x.Action != plan.Add {
			t.Errorf("%s: %d batches, %d a window, %d windows, %s, %d nodes", c.name, x.Batches, x.PerWindow, x.Count, x.Finish.Format(time.RFC3339), x.Nodes)
		}
	}
}

// A rollout that is longer than the policy's deadline says which batch size would do: in 30 days from Monday noon there are
// 5 Tuesdays, 40 batches: 10,000 / 40 = 250.
func TestDeadline(t *testing.T) {
	p := plan.Compute(fleet(500, 20), []plan.File{file(t, "a", rolling(100, 15, "    deadline: {after: 30d}\n"))}, false)
	x := p.Changes[0]
	if x.Enough != 250 || len(p.Warnings) != 1 || p.Warnings[0].Code != "W1201" || !strings.Contains(p.Warnings[0].Text, "batchSize 250 finishes in 5") {
		t.Errorf("%d, %+v", x.Enough, p.Warnings)
	}
	p = plan.Compute(fleet(500, 20), []plan.File{file(t, "a", rolling(250, 15, "    deadline: {after: 30d}\n"))}, false)
	if len(p.Warnings) != 0 {
		t.Errorf("%+v", p.Warnings)
	}
	// Half an hour of deadline holds no window: no size would do.
	p = plan.Compute(fleet(5, 20), []plan.File{file(t, "a", rolling(100, 15, "    deadline: {after: 30m}\n"))}, false)
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Text, "no batch size") {
		t.Errorf("%+v", p.Warnings)
	}
}

// Two time zones have their own clocks of batches, and half of each batch each.
func TestZones(t *testing.T) {
	w := fleet(2, 40)
	w.Sites[1].Zone = denver
	spec := everyPos + "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: site}\n  rolloutStrategy: {type: RollingUpdate, batchSize: 10, batchDelayMinutes: 30}\n"
	x := plan.Compute(w, []plan.File{file(t, "a", spec)}, false).Changes[0]
	// 80 nodes in tens are 8 batches, 5 nodes of each zone; 4 a window: the last in Denver a week later at 03:30, 09:30 UTC.
	if x.Batches != 8 || x.PerWindow != 4 || x.Count != 2 || x.Finish.Format(time.RFC3339) != "2026-09-01T09:30:00Z" || len(x.Windows) != 4 {
		t.Errorf("%+v", x)
	}
	// Zones of the same hours are one cohort: the same windows once.
	w.Sites[1].Zone = zone("America/Winnipeg")
	if x = plan.Compute(w, []plan.File{file(t, "a", spec)}, false).Changes[0]; x.Batches != 8 || len(x.Windows) != 2 || x.Windows[0].Sites != 2 {
		t.Errorf("%+v", x)
	}
	w.Sites[1].Zone = nil
	if x = plan.Compute(w, []plan.File{file(t, "a", spec)}, false).Changes[0]; x.Finish != nil || !strings.Contains(x.Why, "1 sites have no time zone") {
		t.Errorf("a site without a zone: %v, %q", x.Finish, x.Why)
	}
}

// What is staged when, at the rates of the profiles.
func TestStaging(t *testing.T) {
	rule := func(s string) wanprofile.Rule {
		r, err := wanprofile.ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const m = 1_000_000
	for _, c := range []struct {
		name   string
		wan    wanprofile.Profile
		cap    int64
		bytes  int64
		staged string // UTC; empty: never
		late   time.Duration
	}{
		// 7:00 in Chicago. 750 kB/s: 2,700 MB an hour.
		{"nothing", wanprofile.Profile{Cap: 750_000}, 0, 0, "2026-08-24T12:00:00Z", 0},
		{"an hour", wanprofile.Profile{Cap: 750_000}, 0, 2700 * m, "2026-08-24T13:00:00Z", 0},
		{"late", wanprofile.Profile{Cap: 750_000}, 0, 20 * 2700 * m, "2026-08-25T08:00:00Z", time.Hour}, // 20 h; the window opens after 19
		{"no cap", wanprofile.Profile{}, 0, 2700 * m, "2026-08-24T12:00:00Z", 0},
		{"ours", wanprofile.Profile{}, 750_000, 2700 * m, "2026-08-24T13:00:00Z", 0},
		// 250 kB/s from 8 to 20: an hour at 750, twelve at 250 = 2,700 + 10,800, and an hour at 750 after 20:00, 01:00 UTC.
		{"day and night", wanprofile.Profile{Cap: 750_000, Rules: []wanprofile.Rule{rule("Daily 08:00-20:00 2Mbit")}}, 0, (2700 + 10_800 + 2700) * m, "2026-08-25T02:00:00Z", 0},
		// 900 MB a day: 20 minutes today, 20 minutes after midnight (05:00 UTC).
		{"day's total", wanprofile.Profile{Cap: 750_000, PerDay: 900 * m}, 0, 1800 * m, "2026-08-25T05:20:00Z", 0},
		{"never", wanprofile.Profile{Rules: []wanprofile.Rule{rule("Daily blackout")}}, 0, 1, "", 0},
	} {
		w := fleet(1, 20)
		w.Sites[0].WAN, w.Cap = c.wan, c.cap
		w.Missing = func(string, manifest.Digest) int64 { return c.bytes }
		x := plan.Compute(w, []plan.File{file(t, "a", rolling(100, 15, ""))}, false).Changes[0]
		staged := ""
		if x.StagedBy != nil {
			staged = x.StagedBy.Format(time.RFC3339)
		}
		late := c.late > 0 || c.staged == ""
		// No batch is over before its sites hold the bundle: 20 nodes in 4 batches a quarter of an hour apart, from 07:00 to 07:45.
		finish := ""
		if x.Finish != nil {
			finish = x.Finish.Format(time.RFC3339)
		}
		want := "2026-08-25T07:45:00Z"
		if c.staged == "" || c.late > 0 {
			want = map[bool]string{true: "", false: "2026-08-25T08:00:00Z"}[c.staged == ""]
		}
		if finish != want {
			t.Errorf("%s: done by %q, want %q: %s", c.name, finish, want, x.Why)
		}
		if staged != c.staged || x.WANBytes != c.bytes || x.SiteBytes != c.bytes || late != (len(x.Late) == 1) || late && x.Late[0].Late != c.late {
			t.Errorf("%s: staged by %q, want %q; late %+v", c.name, staged, c.staged, x.Late)
		}
	}
}

// Conflicts, downgrades, what is not published, what goes.
func TestChecks(t *testing.T) {
	codes := func(p *plan.Plan) (out []string) {
		for _, w := range p.Warnings {
			out = append(out, fmt.Sprintf("%s %v", w.Code, w.Error))
		}
		return out
	}
	a, b := file(t, "a", everyPos), file(t, "b", everyPos)
	above := file(t, "b", everyPos+"  priority: 200\n")
	back := file(t, "a", everyPos+"  allowDowngrade: true\n")
	newer := fleet(2, 3)
	for i := range newer.Sites[0].Nodes {
		newer.Sites[0].Nodes[i].Installed["pos"] = 3
	}
	other, gone := fleet(2, 3), fleet(2, 3)
	other.Bundles[0].Checksum, gone.Bundles[0].Published = manifest.DigestOf([]byte("other")), false
	held := fleet(2, 3)
	held.InForce = []plan.File{a}
	for _, c := range []struct {
		name  string
		w     plan.World
		files []plan.File
		prune bool
		codes []string
		say   string // actions, nodes, conflicts, downgrades
	}{
		{"good", fleet(2, 3), []plan.File{a}, false, nil, "add 6 0 0"},
		{"conflict", fleet(2, 3), []plan.File{a, b}, false, []string{"E1112 true"}, "add 0 1 0 add 0 1 0"},
		{"priority", fleet(2, 3), []plan.File{a, above}, false, nil, "add 0 0 0 add 6 0 0"},
		{"downgrade", newer, []plan.File{a}, false, []string{"E2106 false"}, "add 6 0 3"},
		{"downgrade that is meant", newer, []plan.File{back}, false, nil, "add 6 0 3"},
		{"other checksum", other, []plan.File{a}, false, []string{"E2101 true"}, "add 6 0 0"},
		{"not published", gone, []plan.File{a}, false, []string{"E1204 true"}, "add 6 0 0"},
		{"same", held, []plan.File{a}, true, nil, "same 6 0 0"},
		{"removal", held, nil, true, []string{"E1206 false"}, "remove 0 0 0"},
		{"no removal without prune", held, nil, false, nil, ""},
	} {
		p := plan.Compute(c.w, c.files, c.prune)
		var say []string
		for _, x := range p.Changes {
			say = append(say, fmt.Sprintf("%s %d %d %d", x.Action, x.Nodes, len(x.Conflicts), x.Downgrades))
		}
		if d := cmp.Diff(c.codes, codes(p)); d != "" || strings.Join(say, " ") != c.say {
			t.Errorf("%s: %s: %s\n%+v", c.name, strings.Join(say, " "), d, p.Warnings)
		}
		if c.name == "removal" && (!p.Held || p.Removed != 6 || p.Pairs != 6) {
			t.Errorf("%+v", p)
		}
	}
}

// The fields that change, by their paths.
func TestFields(t *testing.T) {
	w := fleet(1, 1)
	old := file(t, "a", everyPos+"  reboot: Never\n")
	old.Text = strings.Replace(old.Text, `version: "2"`, `version: "1"`, 1)
	w.InForce = []plan.File{old}
	x := plan.Compute(w, []plan.File{file(t, "a", everyPos+"  suspend: true\n")}, false).Changes[0]
	if d := cmp.Diff([]plan.Field{{Path: "spec.bundleRef.version", Was: "1", Is: "2"}, {Path: "spec.reboot", Was: "Never"}, {Path: "spec.suspend", Is: "true"}}, x.Fields); d != "" || x.Action != plan.Modify {
		t.Error(d)
	}
	if x.Finish != nil || !strings.Contains(x.Why, "suspended") {
		t.Errorf("%v %s", x.Finish, x.Why)
	}
}
