package grant_test

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

func at(s string) time.Time { return grant.Time("2026-11-24T" + s + "Z") }

func TestPermits(t *testing.T) {
	g := grant.Grant{Schema: grant.Schema, Serial: 7, Created: "2026-11-24T01:00:00Z", Site: "s1", Policy: "pos", Revision: 3, Bundle: "app", Version: "2.0",
		Checksum: manifest.DigestOf([]byte("2.0")), Opens: "2026-11-24T02:00:00Z", Expires: "2026-11-24T04:00:00Z",
		Starts: []grant.Start{{Node: "a", After: "2026-11-24T02:30:00Z", Batch: 2}, {Node: "b", After: "2026-11-24T02:00:00Z", Batch: 1}}, MaxUnavailable: 1, Deadline: 60}
	halted := g
	halted.Halted = "2 of 40 nodes have failed"
	for _, c := range []struct {
		name, node string
		g          *grant.Grant
		now        time.Time
		fresh      time.Duration
		reason     string
		next       time.Time
	}{
		{"none", "a", nil, at("02:00:00"), 0, grant.LeaseMissing, time.Time{}},
		{"halted", "b", &halted, at("03:00:00"), 0, grant.Paused, time.Time{}},
		{"halted, and over", "b", &halted, at("05:00:00"), 0, grant.Paused, time.Time{}},
		{"a second early", "b", &g, at("01:59:59"), 0, grant.BatchNotReached, at("02:00:00")},
		{"opens", "b", &g, at("02:00:00"), 0, "", time.Time{}},
		{"before its batch", "a", &g, at("02:29:59"), 0, grant.BatchNotReached, at("02:30:00")},
		{"its batch", "a", &g, at("02:30:00"), 0, "", time.Time{}},
		{"last second", "a", &g, at("03:59:59"), 0, "", time.Time{}},
		{"expired", "a", &g, at("04:00:00"), 0, grant.LeaseMissing, time.Time{}},
		{"another node", "c", &g, at("03:00:00"), 0, grant.BatchNotReached, time.Time{}},
		{"no name: the first of all", "", &g, at("02:00:00"), 0, "", time.Time{}},
		{"no name, too early", "", &g, at("01:00:00"), 0, grant.BatchNotReached, at("02:00:00")},
		{"strict, stale", "b", &g, at("02:00:00"), 5 * time.Minute, grant.LeaseMissing, time.Time{}},
		{"strict, fresh", "b", &g, at("02:00:00"), time.Hour + time.Second, "", time.Time{}},
	} {
		var reason string
		var next time.Time
		if no := c.g.Permits(c.node, c.now, c.fresh); no != nil {
			if reason, next = no.Reason, no.Next; no.Text == "" {
				t.Errorf("%s: no words", c.name)
			}
		}
		if reason != c.reason || !next.Equal(c.next) {
			t.Errorf("%s: %q, next %v; want %q, %v", c.name, reason, next, c.reason, c.next)
		}
	}
	other := manifest.DigestOf([]byte("3.0"))
	for name, fits := range map[string]bool{
		"itself": g.Fits("s1", "pos", 3, g.Checksum), "any site": g.Fits("", "pos", 3, g.Checksum), "site": !g.Fits("s2", "pos", 3, g.Checksum),
		"policy": !g.Fits("s1", "till", 3, g.Checksum), "revision": !g.Fits("s1", "pos", 4, g.Checksum), "checksum": !g.Fits("s1", "pos", 3, other),
		"none": !(*grant.Grant)(nil).Fits("s1", "pos", 3, g.Checksum),
	} {
		if !fits {
			t.Error(name)
		}
	}
}
