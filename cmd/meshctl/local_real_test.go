package main

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// With the WAN down any node of the site says what its site is doing and why: here the seeder is dead.
func TestSiteViewWithoutSeeder(t *testing.T) {
	l := newLab(t)
	l.release("1.0", 1)
	l.await(0, status.Installed, "1.0")
	l.await(1, status.Installed, "1.0")
	l.seeder.Kill()
	for _, n := range l.site.Nodes {
		for line, want := range map[string]string{
			"status":                      `(?s)^SITE    site1 .* 2 nodes, 2 seen .* as ` + n.Name + ` sees it\n.*node-1 +Installed +1\.0.*\nnode-2 +Installed +1\.0`,
			"status site1 -o wide":        `BATCH +GRANT`,
			"status site1/node-2":         `INSTALLED  app 1\.0`,
			"why site1/node-1":            `(?s)^node-1 has what the policy asks for: app 1\.0\.\n  phase .*\n  policy    app@\d+, matched by .*\n  next try  none: it is done\n$`,
			"why site1":                   `^site1 is heard of: 2 of 2 nodes; all have what is asked of them\.\n`,
			"why site1/node-2 -o json":    `"kind": "NodeReasons"`,
			"status site1/node-1 -o yaml": `(?m)^phase: Installed$`,
		} {
			out, err := n.Meshctl(l.ctx, strings.Fields(line)...)
			if err != nil || !regexp.MustCompile(want).Match(out) {
				t.Errorf("on %s: meshctl %s: %v, want %q\n%s", n.Name, line, err, want, out)
			}
		}
		out, err := l.Lab.Run(l.ctx, "meshctl", "__complete", "why", "--socket", n.Socket, "site1/") // the last word is the one to complete
		if err != nil || !regexp.MustCompile(`site1/node-1\nsite1/node-2\n:4\n`).Match(out) {
			t.Errorf("completion on %s: %v\n%s", n.Name, err, out)
		}
		// Of another site, or another node, it knows nothing and says so.
		for _, line := range []string{"status site2", "why site1/node-9"} {
			_, err := n.Meshctl(l.ctx, strings.Fields(line)...)
			if exit := (*harness.ExitError)(nil); !errors.As(err, &exit) || exit.Status != int(problem.ExitNotFound) {
				t.Errorf("meshctl %s: %v", line, err)
			}
		}
		out, err = n.Meshctl(l.ctx, "doctor", "-o", "json")
		var d diagnosis
		if uerr := json.Unmarshal(out, &d); uerr != nil || d.Errors+d.Warnings > 0 != (err != nil) || len(d.Findings) == 0 {
			t.Errorf("doctor: %v, %v\n%s", err, uerr, out)
		}
	}
}
