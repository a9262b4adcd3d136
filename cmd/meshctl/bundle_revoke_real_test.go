package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// The whole way with real programs: a bundle that runs is revoked and goes on, shown as such everywhere; the one before it
// is revoked and not gone back to, by order or policy; the next one is the way out, and ends what is shown.
func TestRevokeFromAfar(t *testing.T) {
	l := newLab(t)
	for i, v := range []string{"1.0", "2.0"} {
		l.release(v, i+1)
		l.await(0, status.Installed, v)
		l.await(1, status.Installed, v)
	}
	refused := func(what string, err error) {
		t.Helper()
		var exit *harness.ExitError
		if !errors.As(err, &exit) || exit.Status != int(problem.ExitVerification) || !strings.Contains(exit.Stderr, "E2113") {
			t.Errorf("%s: %v", what, err)
		}
	}
	alarmed := func(n status.Seen) bool {
		return slices.ContainsFunc(n.Alarms, func(a status.Alarm) bool { return a.Code == string(problem.BundleRevoked) })
	}
	for _, v := range []string{"1.0", "2.0"} {
		out, err := l.order("operator", "bundle", "revoke", v)
		l.must(err)
		if !strings.Contains(out, "revoked app "+v) {
			t.Errorf("%s", out)
		}
	}
	// Each node has heard of it, and its executor with the next request.
	for i, n := range l.site.Nodes {
		l.must(harness.Await(l.ctx, "the list on the node", 100*time.Millisecond, func() (bool, string, error) {
			b, err := os.ReadFile(n.State + "/revoked.json")
			return err == nil && strings.Count(string(b), "tills freeze") == 2, string(b), nil
		}))
		if s := l.await(i, status.Installed, "2.0"); !alarmed(s) || s.Installed[0].Revoked != "tills freeze" {
			t.Errorf("node %d: %+v", i, s)
		}
	}
	table, err := l.seeder.Meshctl(l.ctx, "compliance", "-o", "csv")
	l.must(err)
	if n := strings.Count(string(table), ",true\n"); n != 2 {
		t.Errorf("%d rows say revoked:\n%s", n, table)
	}

	_, err = l.order("operator", "rollback", "app", "--site", "site1", "--node", "node-1")
	l.must(err)
	l.must(l.reported("rollback_failed", "NothingToGoBackTo"))
	l.inForce(0, "2.0")
	_, err = l.seeder.Meshctl(l.ctx, "apply", "-f", l.Path("app-1.0.yaml"), "--key", l.Path("operator.key"))
	refused("a policy for it", err)

	l.release("3.0", 3)
	for i := range l.site.Nodes {
		if s := l.await(i, status.Installed, "3.0"); s.Installed[0].Revoked != "" {
			t.Errorf("node %d: %+v", i, s)
		}
	}
}
