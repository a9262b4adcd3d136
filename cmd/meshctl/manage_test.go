package main

import (
	"regexp"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Tokens, the audit log, quarantine and webhooks, against a real seeder.
func TestManagement(t *testing.T) {
	o := newOffice(t, time.Hour)
	for _, c := range []struct {
		line           string
		exit           problem.Exit
		stdout, stderr string
	}{
		{"access create grafana --role viewer", 0, `^patchmesh_[0-9a-f]{64}\n$`, ""},
		{"access create grafana --role viewer", 6, ``, `E1201.*grafana`},
		{"access create x --role root", 2, ``, `E1001.*root`},
		{"access create x", 2, ``, `role`},
		{"access create brief --role operator --ttl 1h --json", 0, `"expires": "`, ""},
		{"access list", 0, `grafana +viewer +\S+ \S+ +socket +- +- +valid`, ""},
		{"access revoke grafana", 0, `token grafana revoked`, ""},
		{"access revoke nobody", 10, ``, `E1204`},
		{"access list", 0, `grafana .* revoked`, ""},
		{"webhook add pager https://192.0.2.1/x --event quarantine --event rollout", 0, `^[0-9a-f]{64}\n$`, ""},
		{"webhook add bad http://example.com/", 2, ``, `E1001.*example.com`},
		{"webhook list", 0, `pager +quarantine,rollout +patchmesh +0 +0 +0`, ""},
		{"webhook dead pager", 0, `^$`, ""},
		{"webhook remove pager", 0, `removed`, ""},
		{"webhook remove pager", 10, ``, `E1204`},
		{"quarantine list", 0, `^ID +SCOPE +WHAT`, ""},
		{"quarantine add store-1/pos-1 --reason smoke", 10, ``, `E1204.*pos-1`},
		{"quarantine add store-1 --reason smoke", 2, ``, `SITE/NODE`},
		{"quarantine show 7", 10, ``, `E1204`},
		{"quarantine release store-1/pos-1 --reason x", 10, ``, `E1204`},
		{"audit", 0, `socket +admin +uid \d+ +200 +POST /api/v1/access +grafana\n`, ""},
		{"audit --limit 1 --json", 0, `"status": 404`, ""},
		{"audit --limit 0", 2, ``, `E1001`},
		{"watch --timeout 200ms -o jsonl", 0, `^$`, ""},
	} {
		exit, out, errs := o.run(c.line)
		if exit != c.exit || !regexp.MustCompile(c.stdout).MatchString(out) || c.stderr != "" && !regexp.MustCompile(c.stderr).MatchString(errs) || c.stderr == "" && exit == 0 && errs != "" {
			t.Errorf("meshctl %s: exit status %d\n%s%s", c.line, exit, out, errs)
		}
	}
}
