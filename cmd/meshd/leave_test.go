package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/harness"
)

// "meshd leave" ends the daemon with status 0 once nobody needs it; without a daemon it says so. A daemon that gets a
// signal leaves in the same way.
func TestLeaveCommand(t *testing.T) {
	ctx, lab, site := twoNodes(t)
	if err := site.Start(ctx, "--no-install"); err != nil {
		t.Fatal(err)
	}
	n := site.Nodes[0]
	out, err := lab.Run(ctx, "meshd", "leave", "--socket", n.Socket, "--timeout", "20s", "--json")
	var r api.LeaveResult
	if err != nil || json.Unmarshal(out, &r) != nil || r.OnlyHere != 0 {
		t.Fatalf("%s: %v", out, err)
	}
	if err := harness.Await(ctx, "the daemon's end", 50*time.Millisecond, func() (bool, string, error) { return !n.Running(), "it runs", nil }); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(ctx); err != nil { // says how it ended
		t.Error(err)
	}
	var exit *harness.ExitError
	if _, err := lab.Run(ctx, "meshd", "leave", "--socket", n.Socket); !errors.As(err, &exit) || !strings.Contains(exit.Stderr, "E3103") {
		t.Errorf("without a daemon: %v", err)
	}
	if err := site.Nodes[1].Stop(ctx); err != nil {
		t.Error(err)
	}
	for _, n := range site.Nodes {
		if !strings.Contains(n.Proc().Log(), "msg=left ") {
			t.Errorf("%s does not say how it left", n.Name)
		}
	}
}

// twoNodes lays out a site of two nodes that have joined and do not run yet, for a minute at most.
func twoNodes(t *testing.T) (context.Context, *harness.Lab, *harness.Site) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a minute: run without -short")
	}
	bin := t.TempDir()
	if err := harness.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	lab, err := harness.New(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	seeder, err := lab.NewSeeder(ctx)
	if err != nil {
		t.Fatal(err)
	}
	site, err := seeder.Site(ctx, "site1", "0", 2)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, lab, site
}
