package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Who follows the policy is ordered back, and nobody who has the same release by another one.
func TestEmergencyTargets(t *testing.T) {
	sum := manifest.DigestOf([]byte("2"))
	node := func(site, name, policy string, installed bool) status.Seen {
		n := status.Seen{Node: status.Node{Site: site, Node: name, Desired: &status.Desired{Policy: policy, Bundle: "app", Version: "2", Checksum: sum}}}
		if installed {
			n.Installed = []status.InstalledItem{{Bundle: "app", Version: "2", Checksum: sum}}
		}
		return n
	}
	other := node("b", "other", "pos", false)
	other.Desired.Bundle = "prices"
	sites := sitesAs(node("c", "n1", "pos", true), node("a", "n1", "pos", true), node("a", "n2", "pos", false), // it waits for it
		node("b", "n2", "pos", true), node("b", "n1", "pos", true), node("b", "desk", "office", true), other, node("d", "desk", "office", true))
	none := map[string]string{}
	want := []order.Targets{{Sites: []string{"b"}, Nodes: []string{"n1", "n2"}, Labels: none}, {Sites: []string{"a", "c"}, Nodes: []string{}, Labels: none}}
	if d := cmp.Diff(want, emergencyTargets("pos", release{"2", sum}, "app", sites)); d != "" {
		t.Error(d)
	}
	if got := emergencyTargets("pos", release{"1", sum}, "app", sites); got != nil {
		t.Errorf("of a release that nobody has: %+v", got)
	}
}

// With real programs: an undo waits for the window, as it should; one for an emergency does not, is signed by the operator
// or refused by every node, and stands in the audit log with its reason.
func TestEmergency(t *testing.T) {
	l := newLab(t)
	run := func(args ...string) string {
		t.Helper()
		out, err := l.seeder.Meshctl(l.ctx, append(args, "--key", l.Path("operator.key"))...)
		l.must(err)
		return string(out)
	}
	l.release("1.0", 1)
	l.await(0, status.Installed, "1.0")
	l.await(1, status.Installed, "1.0")
	l.release("2.0", 2)
	l.await(0, status.Installed, "2.0")
	l.await(1, status.Installed, "2.0")
	shut := time.Now().UTC().Add(3*24*time.Hour).Format("Mon") + " 00:00-01:00"
	for _, v := range []string{"1.0", "2.0"} {
		b, err := os.ReadFile(l.Path("app-" + v + ".yaml"))
		l.must(err)
		text := strings.Replace(string(b), "spec:\n", "spec:\n  allowDowngrade: true\n  schedule: {maintenanceWindow: \""+shut+"\", timezone: UTC}\n", 1)
		l.must(os.WriteFile(l.Path("shut-"+v+".yaml"), []byte(text), 0o644))
		run("apply", "-f", l.Path("shut-"+v+".yaml"))
	}
	// The control: what is undone without haste waits for the window.
	if out := run("rollout", "undo", "app", "--yes"); !strings.Contains(out, "nodes go back in their windows") {
		t.Error(out)
	}
	l.await(0, status.Scheduled, "2.0")
	l.await(1, status.Scheduled, "2.0")
	run("apply", "-f", l.Path("shut-2.0.yaml"))
	l.await(0, status.Installed, "2.0")
	l.await(1, status.Installed, "2.0")

	var exit *harness.ExitError
	if _, err := l.seeder.Meshctl(l.ctx, "rollout", "undo", "app", "--emergency", "--yes", "--key", l.Path("operator.key")); !errors.As(err, &exit) || exit.Status != int(problem.ExitUsage) {
		t.Errorf("an emergency without a reason: %v", err)
	}
	if _, err := l.seeder.Meshctl(l.ctx, "rollout", "undo", "app", "--emergency", "--reason", "x", "--yes", "--key", l.Path("release.key")); !errors.As(err, &exit) || !strings.Contains(exit.Stderr, "E2102") {
		t.Errorf("an emergency by the wrong key: %v", err)
	}
	l.inForce(0, "2.0")
	out := run("rollout", "undo", "app", "--emergency", "--reason", "tills freeze", "--yes")
	for _, want := range []string{"orders every node back NOW", "2 nodes run it", "given to 2 nodes: back from app 2.0 at once", "app 1.0, which takes"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for i := range l.site.Nodes {
		l.await(i, status.Installed, "1.0")
	}
	audit, err := l.seeder.Meshctl(l.ctx, "audit")
	l.must(err)
	orders, err := l.seeder.Meshctl(l.ctx, "order", "list")
	l.must(err)
	if !strings.Contains(string(audit), "tills freeze") || !strings.Contains(string(orders), "emergency: tills freeze") {
		t.Errorf("%s\n%s", audit, orders)
	}
}
