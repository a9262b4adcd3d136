package seeder

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
)

// A window in the hour that does not exist is told of once, whatever is restarted; where clocks go forward at another time
// there is one.
func TestSkippedWindows(t *testing.T) {
	b := start(t, nil)
	clock := newClock(time.Date(2027, 3, 13, 12, 0, 0, 0, time.UTC))
	b.stop()
	b.cfg.Now = clock.now
	b.run()
	x := b.bundle("1.0", 1, b.release)
	b.push(x, -1)
	for site, zone := range map[string]string{"ny": "America/New_York", "ny-2": "America/New_York", "berlin": "Europe/Berlin"} {
		if _, err := b.admin.CreateSite(t.Context(), api.SiteSpec{Name: site, Timezone: zone}); err != nil {
			t.Fatal(err)
		}
	}
	spec := "  targets: {selector: {matchAll: true}}\n  schedule: {maintenanceWindow: \"Sun 02:00-03:00\", timezone: site}\n"
	if _, err := b.admin.PutPolicy(t.Context(), b.signed(policyText("pos", x, x.Digest, spec), 1, b.operator)); err != nil {
		t.Fatal(err)
	}
	look := func(at time.Time) (texts []string) {
		t.Helper()
		clock.set(at)
		from := b.events.newest()
		if err := b.lookAtWindows(t.Context()); err != nil {
			t.Fatal(err)
		}
		out, _, _ := b.events.since(from, 100)
		for _, e := range out {
			if e.Code == "W1204" && e.Policy == "pos" && e.Severity == "warning" {
				texts = append(texts, e.Text)
			}
		}
		return texts
	}
	opens := time.Date(2027, 3, 14, 7, 0, 0, 0, time.UTC) // 03:00 in New York, where there is no 02:00
	if got := look(opens.Add(-time.Hour)); len(got) != 0 {
		t.Errorf("before: %q", got)
	}
	if got := look(opens.Add(time.Minute)); len(got) != 1 || !strings.Contains(got[0], "Sun 02:00-03:00 does not exist in America/New_York on 2027-03-14") {
		t.Errorf("then: %q", got)
	}
	b.stop()
	b.run()
	if got := look(opens.Add(time.Hour)); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
	// Two weeks on it is Berlin's turn; New York has its window.
	if got := look(opens.AddDate(0, 0, 14)); len(got) != 1 || !strings.Contains(got[0], "Europe/Berlin on 2027-03-28") {
		t.Errorf("Berlin: %q", got)
	}
}
