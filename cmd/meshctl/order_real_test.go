package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// lab is a seeder and a site of two nodes, all of them real processes.
type lab struct {
	*testing.T
	*harness.Lab
	ctx    context.Context
	seeder *harness.Seeder
	site   *harness.Site
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a minute: run without -short")
	}
	bin := t.TempDir()
	if err := harness.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	x, err := harness.New(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	l := &lab{T: t, Lab: x, ctx: ctx}
	if l.seeder, err = x.NewSeeder(ctx); err != nil {
		t.Fatal(err)
	}
	if l.site, err = l.seeder.Site(ctx, "site1", "0", 2); err != nil {
		t.Fatal(err)
	}
	l.must(l.site.Start(ctx))
	return l
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Lab.Tail(os.Stderr, 20)
		l.Fatal(err)
	}
}

// release publishes a version of app, whose one file says which it is.
func (l *lab) release(version string, sequence int) {
	l.Helper()
	dir := l.Path("tree-" + version)
	l.must(os.MkdirAll(dir, 0o755))
	l.must(os.WriteFile(filepath.Join(dir, "version"), []byte(version), 0o644))
	l.must(l.seeder.Release(l.ctx, "app", version, sequence, dir))
}

// await waits until the seeder sees a node in a phase, and then checks what is in force on it.
func (l *lab) await(node int, phase status.Phase, version string) status.Seen {
	l.Helper()
	var got status.Seen
	l.must(harness.Await(l.ctx, string(phase)+" with "+version, 200*time.Millisecond, func() (bool, string, error) {
		s, err := l.site.Seen(l.ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		got = s.Nodes[node]
		return got.Phase == phase && len(got.Installed) == 1 && got.Installed[0].Version == version, string(got.Phase) + " " + got.Reason, nil
	}))
	l.inForce(node, version)
	return got
}

func (l *lab) inForce(node int, version string) {
	l.Helper()
	b, err := os.ReadFile(filepath.Join(l.site.Nodes[node].Current("app"), "version"))
	if err != nil || string(b) != version {
		l.Errorf("node %d: %q is in force (%v), want %s", node, b, err, version)
	}
}

// order runs a command of an operator.
func (l *lab) order(key string, args ...string) (string, error) {
	out, err := l.seeder.Meshctl(l.ctx, append(args, "--reason", "tills freeze", "--key", l.Path(key+".key"))...)
	return string(out), err
}

// The whole way with real programs: version 1, version 2, back by an order, forward by an order; each is reported, and
// nothing but the operator's key can do it. An old order that is sent to the executor again does nothing.
func TestRollbackFromAfar(t *testing.T) {
	l := newLab(t)
	_, err := l.Lab.Run(l.ctx, "meshctl", "key", "generate", l.Path("stranger"))
	l.must(err)
	l.release("1.0", 1)
	l.await(0, status.Installed, "1.0")
	l.await(1, status.Installed, "1.0")
	l.release("2.0", 2)
	l.await(0, status.Installed, "2.0")
	l.await(1, status.Installed, "2.0")

	back := []string{"rollback", "app", "--site", "site1", "--node", "node-1"}
	for _, key := range []string{"stranger", "release"} {
		var exit *harness.ExitError
		if out, err := l.order(key, back...); !errors.As(err, &exit) || exit.Status != int(problem.ExitVerification) || !strings.Contains(exit.Stderr, "E2102") {
			t.Errorf("an order signed with the %s key: %s %v", key, out, err)
		}
	}
	out, err := l.order("operator", back...)
	l.must(err)
	if !strings.Contains(out, "rollback of app 2.0") || !strings.Contains(out, "on 1 of 1 node in 1 site") || !strings.Contains(out, "given to 1 node") {
		t.Errorf("what was ordered: %s", out)
	}
	l.await(0, status.RolledBack, "1.0")
	l.await(1, status.Installed, "2.0")
	l.must(l.reported("rolled_back", "RolledBackByOperator"))
	why, err := l.seeder.Meshctl(l.ctx, "why", "site1/node-1")
	l.must(err)
	if !strings.Contains(string(why), "went back from app 2.0 and holds it: rolled back by operator (order ") {
		t.Errorf("why: %s", why)
	}

	// Nothing is left to go back from, and the order says so before it is given.
	if out, err := l.order("operator", append(back, "--version", "2.0", "--dry-run")...); err != nil || !strings.Contains(out, "on 0 of 1 node") {
		t.Errorf("a second time: %s %v", out, err)
	}
	_, err = l.order("operator", "retry", "app", "--site", "site1")
	l.must(err)
	l.await(0, status.Installed, "2.0")
	l.must(l.reported("success", "FailuresForgotten"))
	events, err := l.seeder.Meshctl(l.ctx, "events", "site1/node-1")
	l.must(err)
	if n := strings.Count(string(events), "rolled back  "); n != 1 {
		t.Errorf("%d rollbacks in the events:\n%s", n, events)
	}

	// The first order again, straight to the executor of the node.
	old := l.orders()[0]
	if r := l.execute(0, old); r.Reason != install.ReasonOrderTooOld || r.Exit != install.ExitSignature {
		t.Errorf("an old order: %+v", r)
	}
	l.inForce(0, "2.0")
	l.forget(0) // the positive control
	if r := l.execute(0, old); r.Outcome != install.Success || r.Order != old.Order.Sequence {
		t.Errorf("an old order and no memory of it: %+v", r)
	}
	l.inForce(0, "1.0")
}

// reported waits until the seeder holds the outcome of an order on the first node.
func (l *lab) reported(outcome, reason string) error {
	return harness.Await(l.ctx, "a report of "+reason, 200*time.Millisecond, func() (bool, string, error) {
		out, err := l.seeder.Meshctl(l.ctx, "events", "site1/node-1", "--json")
		if err != nil {
			return false, "", err
		}
		var list []api.RecordedReport
		if err := json.Unmarshal(out, &list); err != nil {
			return false, "", err
		}
		for _, r := range list {
			if r.Body.Outcome == outcome && r.Body.Reason == reason && r.Body.Order > 0 && r.Body.Version == "2.0" {
				return true, "", nil
			}
		}
		return false, string(out), nil
	})
}

func (l *lab) orders() (list []api.OrderInfo) {
	l.Helper()
	out, err := l.seeder.Meshctl(l.ctx, "order", "list", "--json")
	l.must(err)
	l.must(json.Unmarshal(out, &list))
	if len(list) != 2 {
		l.Fatalf("%d orders were given, want 2", len(list))
	}
	return list
}

// execute gives a node's executor an order, as its daemon would.
func (l *lab) execute(node int, o api.OrderInfo) install.Result {
	l.Helper()
	n := l.site.Nodes[node]
	req, err := install.NewOrderRequest(o.Document, filepath.Join(n.State, "chunks")).Encode()
	l.must(err)
	name := l.Path("order.json")
	l.must(os.WriteFile(name, req, 0o644))
	out, err := l.Lab.Run(l.ctx, "mesh-install", "apply", "--json", "--request", name, "--config", l.Path(n.Site, n.Name, "mesh-install.yaml"))
	var exit *harness.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.Fatal(err)
	}
	r, err := install.DecodeResult(out)
	l.must(err)
	return r
}

// forget takes away what the executor of a node remembers of orders.
func (l *lab) forget(node int) {
	l.Helper()
	n := l.site.Nodes[node]
	name := l.Path(n.Site, n.Name, "install", "installed.json")
	raw, err := os.ReadFile(name)
	l.must(err)
	book, err := ledger.Parse(raw)
	l.must(err)
	book.Orders = nil
	raw, err = book.Encode()
	l.must(err)
	l.must(os.WriteFile(name, raw, 0o600))
}
