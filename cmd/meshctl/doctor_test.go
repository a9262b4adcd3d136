package main

import (
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
)

// A node with the WAN down, one that is well, one that is ill: what its own words come to.
func TestDoctor(t *testing.T) {
	for name, c := range map[string]struct {
		node             int
		change           func(*status.Site, *status.Node)
		errors, warnings int
	}{
		"doctor-well": {1, func(s *status.Site, _ *status.Node) { s.Nodes = s.Nodes[:4] }, 0, 0},
		"doctor-wan-down": {0, func(s *status.Site, n *status.Node) {
			s.Uplink, s.WAN.Why, n.Outbox = "", "no node that is known here reaches the data centre", 3
			n.Phase, n.Reason, n.NextAttempt = status.Staged, "WindowClosed", nil
		}, 1, 1},
		"doctor-ill": {3, func(s *status.Site, n *status.Node) {
			for i := range s.Nodes {
				s.Nodes[i].Silent = true
			}
			n.Alarms = append(n.Alarms, status.Alarm{Code: "E9001", Message: "the clock differs from the site's by 7m\x1b"})
		}, 2, 2},
	} {
		s := sample()
		n := s.Nodes[c.node].Node
		n.At = asOf
		c.change(&s, &n)
		d := examine(s, n)
		if d.Errors != c.errors || d.Warnings != c.warnings {
			t.Errorf("%s: %d errors, %d warnings", name, d.Errors, d.Warnings)
		}
		var b strings.Builder
		if err := d.write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}
