package main

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// history is what a node reported: a deferral, a success with packages, and an order that took it back.
func history() []api.RecordedReport {
	at := func(before time.Duration, b status.ReportBody) api.RecordedReport {
		b.Site, b.Node, b.Bundle, b.Version = "site-0417", "pos-12", "pos-rhel9", "2026.08.25-1"
		b.Occurred = asOf.Add(-before)
		return api.RecordedReport{Recorded: b.Occurred.Add(time.Second), Body: b}
	}
	next := asOf.Add(-25 * time.Hour)
	list := []api.RecordedReport{
		at(27*time.Hour, status.ReportBody{Phase: status.Staged, Reason: "Complete"}),
		at(26*time.Hour, status.ReportBody{Phase: status.Deferred, Outcome: "deferred", Reason: "AppLock", Detail: "till-transaction, by pid 811 pos-till\x1b[2J", Next: &next}),
		at(25*time.Hour, status.ReportBody{Phase: status.Installed, Outcome: "success", Reason: "Installed", Seconds: 231, Snapshot: "btrfs @patchmesh-1", Reboot: []string{"kernel"},
			Detail: "kept: openssl held", More: 81, Packages: []packages.Change{
				{Name: "libexpat1", Arch: "amd64", From: "2.5.0-1+deb12u2", To: "2.5.0-1+deb12u5"}, {Name: "zip", Arch: "amd64", To: "3.0-13"}, {Name: "tzdata-legacy", Arch: "all", From: "2026b"}}}),
		at(time.Hour, status.ReportBody{Phase: status.RolledBack, Outcome: "rolled_back", Reason: "HealthCheck", Code: "E5103", Detail: "http 503 for 120 s",
			Log: "Setting up libexpat1:amd64 (2.5.0-1+deb12u5) ...\nRunning in chroot, ignoring request.\n\x07bell\n"}),
		at(time.Minute, status.ReportBody{Phase: status.Installing, Reason: "InstallerRunning"}),
	}
	list[1].Recorded = asOf.Add(-20 * time.Hour) // its site was without a WAN
	return list
}

func TestEventsScreen(t *testing.T) {
	for name, wide := range map[string]bool{"events": false, "events-node": true} {
		var b strings.Builder
		for _, r := range history() {
			b.WriteString(eventText(r, wide))
		}
		golden(t, name, b.String())
	}
}

func policyInfo(t *testing.T, name string, revision uint64, bundle, spec string) api.PolicyInfo {
	t.Helper()
	text := "apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: " + name + "}\nspec:\n  bundleRef: {name: " + bundle + ", version: \"2026.08.25-1\", checksum: " +
		manifest.DigestOf([]byte("2026.08.25-1")).String() + "}\n  targets: {selector: {matchLabels: {role: pos, env: prod}}}\n" + spec
	d, err := policy.NewDocument([]byte(text), revision, asOf)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return api.PolicyInfo{Name: name, Revision: revision, Document: trust.Signed{Doc: doc}}
}

func TestWhyScreen(t *testing.T) {
	s := sample()
	policies := []api.PolicyInfo{
		policyInfo(t, "retail", 4, "pos-rhel9", "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: America/Chicago, startCutoffMinutes: 20}\n"),
		policyInfo(t, "retail-south", 1, "pos-rhel9", ""),
		policyInfo(t, "prices", 1, "prices", ""),
		{Name: "gone", Deleted: true},
	}
	for i, name := range map[int]string{0: "why-deferred", 1: "why-installed", 5: "why-never-seen"} {
		n := s.Nodes[i]
		n.Labels = map[string]string{"role": "pos", "env": "prod", "name": n.Node.Node}
		reports := history()
		if i == 5 {
			reports = nil
		}
		a := reasonsOf(s, n, policies, reports)
		for form, wide := range map[string]bool{"": false, "-wide": true} {
			var b strings.Builder
			if err := a.write(&b, wide); err != nil {
				t.Fatal(err)
			}
			golden(t, name+form, b.String())
			if lines := strings.Count(b.String(), "\n"); !wide && lines > 6 {
				t.Errorf("%s: %d lines", name, lines)
			}
		}
	}
}

// Whatever a node is in, why says it in six lines, with a reason and what comes next.
func TestWhyEveryPhase(t *testing.T) {
	s := sample()
	policies := []api.PolicyInfo{policyInfo(t, "retail", 4, "pos-rhel9", "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: America/Chicago}\n")}
	for _, p := range append(status.Order(), "OfANewerNode") {
		for _, n := range s.Nodes {
			for _, n.Silent = range []bool{false, true} {
				n.Phase = p
				n.Explain(asOf)
				var b strings.Builder
				a := reasonsOf(s, n, policies, nil)
				if err := a.write(&b, false); err != nil {
					t.Fatal(err)
				}
				if lines := strings.Count(b.String(), "\n"); lines > 6 || a.Next == "" || !strings.Contains(b.String(), "\n  next try  ") {
					t.Errorf("%s, silent %v:\n%s", p, n.Silent, b.String())
				}
			}
		}
	}
}

func TestWhySiteScreen(t *testing.T) {
	mixed, silent, none := sample(), sample(), sample()
	for i := range silent.Nodes {
		silent.Nodes[i].Silent = true
	}
	none.Nodes, none.Bundles = nil, nil
	for name, s := range map[string]status.Site{"why-site": mixed, "why-site-silent": silent, "why-site-empty": none} {
		var b strings.Builder
		a := siteReasons(s, []api.PolicyInfo{policyInfo(t, "retail", 3, "pos-rhel9", "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: site}\n")})
		if err := a.write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
		if lines := strings.Count(b.String(), "\n"); lines > 6 {
			t.Errorf("%s: %d lines", name, lines)
		}
	}
}

// When an install may start, in the zone that the windows are written in.
func TestWindowLine(t *testing.T) {
	// asOf is Tuesday 02:11 in Chicago.
	for spec, want := range map[string]string{
		"": "none: at any time",
		"maintenanceWindow: \"Tue 02:00-04:00\", timezone: America/Chicago":                         "Tue 02:00-04:00 America/Chicago, open until Tue 04:00 CDT (1h48m)",
		"maintenanceWindow: \"Tue 02:00-04:00\", timezone: site, startCutoffMinutes: 20":            "Tue 02:00-04:00 America/Chicago, open until Tue 04:00 CDT (1h48m); start cut-off Tue 03:40 CDT",
		"maintenanceWindow: \"Wed 02:00-04:00\", timezone: Europe/Berlin":                           "Wed 02:00-04:00 Europe/Berlin, closed; opens Wed 2026-09-16 02:00 CEST (in 16h48m)",
		"maintenanceWindow: \"Daily 02:00-04:00\", timezone: site, notBefore: 2026-10-01T00:00:00Z": "Daily 02:00-04:00 America/Chicago, not before (not before 2026-09-30 19:00 CDT); opens Thu 2026-10-01 02:00 CDT (in 15d23h)",
	} {
		text := ""
		if spec != "" {
			text = "  schedule: {" + spec + "}\n"
		}
		if got := windowLine(parsed(policyInfo(t, "p", 1, "app", text)), "America/Chicago", asOf); got != want {
			t.Errorf("%s:\n%s, want\n%s", spec, got, want)
		}
	}
}

// What comes next for a node under quarantine: its own check and the order; for one that only the centre holds, a person.
func TestQuarantineNext(t *testing.T) {
	now := time.Date(2026, 9, 15, 7, 0, 0, 0, time.UTC)
	later := now.Add(4 * time.Minute)
	seen := func(q *status.Quarantine, phase status.Phase) status.Seen {
		return status.Seen{Node: status.Node{Site: "s1", Node: "pos-07", Phase: phase, Quarantine: "x", Quarantined: q, Desired: &status.Desired{Bundle: "app"}}, LastSeen: now}
	}
	for name, c := range map[string]struct {
		n    status.Seen
		want string
	}{
		"its own":          {seen(&status.Quarantine{Next: &later}, status.Scheduled), "it checks itself Tue 2026-09-15 07:04 UTC (in 4m), or: meshctl quarantine release s1/pos-07 --key FILE"},
		"it is at it":      {seen(&status.Quarantine{}, status.Scheduled), "it checks itself now, or: meshctl quarantine release s1/pos-07 --key FILE"},
		"a bundle only":    {seen(nil, status.Quarantined), "none until the policy asks for another release, or: meshctl retry app --site s1 --node pos-07"},
		"a person's entry": {seen(nil, status.Staged), "none in a rollout until a person ends it: meshctl quarantine release s1/pos-07"},
	} {
		if got := nextLine(c.n, status.Site{Site: "s1", Timezone: "UTC", AsOf: now}); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}
