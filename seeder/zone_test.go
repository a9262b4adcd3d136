package seeder

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
)

// A site has no time zone until somebody says which; then its nodes' signed roster says so too.
func TestTimezone(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	inRoster := func() (uint64, string) {
		s, err := b.db.Roster(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		r, err := roster.Open(&b.set, s, b.now())
		if err != nil {
			t.Fatal(err)
		}
		return r.Version, r.Timezone
	}
	if v, zone := inRoster(); v != 1 || zone != "" {
		t.Errorf("roster %d is in %q", v, zone)
	}
	for range 2 { // the second time changes nothing
		if z, err := b.admin.PutSiteZone(t.Context(), "s1", "America/Chicago"); err != nil || z != (api.SiteZone{Timezone: "America/Chicago"}) {
			t.Fatalf("%+v, %v", z, err)
		}
	}
	if v, zone := inRoster(); v != 2 || zone != "America/Chicago" {
		t.Errorf("roster %d is in %q", v, zone)
	}
	if s, err := b.admin.Site(t.Context(), "s1"); err != nil || s.Timezone != "America/Chicago" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, zone := range []string{"Mars/Olympus", "Local", "../../etc/passwd"} {
		_, err := b.admin.PutSiteZone(t.Context(), "s1", zone)
		wantCode(t, zone, err, problem.Usage)
	}
	_, err := b.admin.PutSiteZone(t.Context(), "s2", "UTC")
	wantCode(t, "no site", err, problem.NotFound)
	if v, _ := inRoster(); v != 2 {
		t.Errorf("roster %d after refusals", v)
	}
}
