package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// A node that runs a revoked bundle, and one that will not install one: the screens say so, and what a person can do.
func TestRevokedOnScreens(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	next := now.Add(time.Hour)
	item := status.InstalledItem{Bundle: "app", Version: "1.0", Checksum: manifest.DigestOf(nil), Since: now}
	node := func(phase status.Phase, reason, revoked string) status.Seen {
		i := item
		i.Revoked = revoked
		return status.Seen{LastSeen: now, Node: status.Node{Site: "s1", Node: "n1", Phase: phase, Reason: reason, NextAttempt: &next, At: now,
			Installed: []status.InstalledItem{i}, Desired: &status.Desired{Policy: "app", Bundle: "app", Version: "2.0"}}}
	}
	const way = "when a policy names another bundle"
	for name, c := range map[string]struct {
		n     status.Seen
		note  bool
		named bool
	}{
		"runs it":           {node(status.Installed, "Installed", "tills freeze"), true, true},
		"will not start it": {node(status.Deferred, "BundleRevoked", ""), false, true},
		"control":           {node(status.Installed, "Installed", ""), false, false},
	} {
		a := reasonsOf(status.Site{Site: "s1", Timezone: "UTC", AsOf: now}, c.n, nil, nil)
		var why, seen bytes.Buffer
		if err := a.write(&why, false); err != nil {
			t.Fatal(err)
		}
		if err := (view{}).node(&seen, now, c.n); err != nil {
			t.Fatal(err)
		}
		for what, screen := range map[string]string{"why": why.String(), "status": seen.String()} {
			if strings.Contains(screen, "REVOKED: tills freeze") != c.note {
				t.Errorf("%s, %s:\n%s", name, what, screen)
			}
		}
		if strings.Contains(why.String(), way) != c.named {
			t.Errorf("%s:\n%s", name, why.String())
		}
	}
}
