package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
)

// Doctor says whether the executor knows who it is.
func TestDoctorAsksTheExecutor(t *testing.T) {
	n := status.Node{Site: "s1", Node: "n1"}
	for name, c := range map[string]struct{ config, state, says string }{
		"absent":       {"", "", ""},
		"knows":        {"site: s1\nnode: n1\n", "ok", "s1/n1"},
		"knows half":   {"site: s1\n", "warning", `"node: n1"`},
		"knows nobody": {"keep: 2\n", "warning", `write "site: s1" and "node: n1" into`},
		"another site": {"site: s2\nnode: n1\n", "error", "says s2/n1, and this node is s1/n1"},
		"another node": {"site: s1\nnode: n2\n", "error", "s1/n2"},
		"garbage":      {"sight: s1\n", "error", "cannot be used"},
	} {
		file := filepath.Join(t.TempDir(), "mesh-install.yaml")
		if c.config != "" {
			if err := os.WriteFile(file, []byte(c.config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d := &diagnosis{}
		d.executor(file, n)
		switch {
		case c.state == "" && len(d.Findings) != 0, c.state != "" && len(d.Findings) != 1:
			t.Errorf("%s: %+v", name, d.Findings)
		case c.state != "" && (d.Findings[0].State != c.state || !strings.Contains(d.Findings[0].Text, c.says)):
			t.Errorf("%s: %+v", name, d.Findings[0])
		}
	}
}
