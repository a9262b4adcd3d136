// Rollout takes a policy with an order among the nodes through its whole life on one site: the nodes of a batch start one
// after the other in their window, the health check of one fails and it goes back by itself, every outcome leaves a
// signed receipt, and in the end the policy is taken back and so is the site. It runs the real programs on the loopback
// interface and needs no root.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

const (
	bundle = "default" // what a policy that names none asks for
	site   = "store"
	count  = 4
	ill    = "node-3" // is not healthy under version 2
)

func main() { os.Exit(harness.Tell(run)) }

func run(ctx context.Context, s *harness.Story) (try []string, err error) {
	seeder, err := s.NewSeeder(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := seeder.Meshctl(ctx, "site", "create", site, "--wan-cap", "16Mbit", "--timezone", "America/New_York"); err != nil {
		return nil, err
	}
	store := seeder.At(site)
	for range count {
		if _, err := store.Join(ctx, "--label", "region=us-east"); err != nil {
			return nil, err
		}
	}
	if err := store.Start(ctx); err != nil {
		return nil, err
	}
	health, stop, err := listen(store)
	if err != nil {
		return nil, err
	}
	defer stop()
	s.Say("site %s: %d nodes; the application of %s is ill under version 2", site, count, ill)

	rollout := &life{Story: s, seeder: seeder, store: store, health: "http://" + health + "/health"}
	for sequence, version := range []string{"1", "2"} {
		if err := rollout.release(ctx, version, sequence+1); err != nil {
			return nil, err
		}
	}
	if err := rollout.first(ctx); err != nil {
		return nil, err
	}
	if err := rollout.second(ctx); err != nil {
		return nil, err
	}
	if err := rollout.back(ctx); err != nil {
		return nil, err
	}
	return []string{"export MESHCTL_CONFIG=" + seeder.Admin(), "bin/meshctl rollout status edge-fleet", "bin/meshctl history " + site + "/" + ill,
		"bin/meshctl compliance"}, nil
}

// life is the story and its actors.
type life struct {
	*harness.Story
	seeder *harness.Seeder
	store  *harness.Site
	health string
	sums   [3]manifest.Digest
}

// listen serves the health of all nodes of the site: they start one after the other, so that it is known who asks.
func listen(store *harness.Site) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var at string
	for _, n := range store.Nodes {
		if n.Name == ill {
			at = n.Current(bundle)
		}
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if b, _ := os.ReadFile(filepath.Join(at, "version")); strings.TrimSpace(string(b)) == "2" { // no file: version 2 is not there
			http.Error(w, "ill", http.StatusServiceUnavailable)
		}
	})}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) }) // ends when it is closed
	return l.Addr().String(), func() { server.Close(); serving.Wait() }, nil
}

func (l *life) release(ctx context.Context, version string, sequence int) error {
	dir := l.Path("input-" + version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := harness.RandomTree(dir, 4<<20, byte(sequence)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte(version+"\n"), 0o644); err != nil {
		return err
	}
	built, sum, err := l.seeder.Build(ctx, bundle, version, sequence, dir)
	if err != nil {
		return err
	}
	l.sums[sequence] = sum
	return l.seeder.Push(ctx, built)
}

// text is the sample policy of the README; its window is open on the days that are now in the zone.
const text = `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: edge-fleet, namespace: operations}
spec:
  bundleRef: {version: "%s", checksum: "%s"}
  targets: {selector: {matchLabels: {role: node, region: us-east}}}
  schedule:
    maintenanceWindow: "Daily 00:00-24:00"
    timezone: "America/New_York"
    rolloutStrategy: {type: RollingUpdate, batchSize: 2, batchDelayMinutes: 0, maxUnavailablePerSite: %s, progressDeadlineMinutes: 10}
  rollback: {enabled: true, healthCheckUrl: "%s", healthCheckTimeoutSeconds: 3}
`

func (l *life) apply(ctx context.Context, sequence int) error {
	name := l.Path(fmt.Sprintf("edge-fleet-%d.yaml", sequence))
	atOnce := map[int]string{1: `"100%"`, 2: "1"}[sequence]
	if err := os.WriteFile(name, fmt.Appendf(nil, text, fmt.Sprint(sequence), l.sums[sequence], atOnce, l.health), 0o644); err != nil {
		return err
	}
	_, err := l.seeder.Meshctl(ctx, "apply", "-f", name, "--key", l.Path("operator.key"))
	return err
}

// await waits until so many nodes have the version in force and the others are in a phase.
func (l *life) await(ctx context.Context, what, version string, want int, others status.Phase) error {
	return harness.Await(ctx, what, 300*time.Millisecond, func() (bool, string, error) {
		v, err := l.store.Seen(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		have, rest := 0, 0
		for _, n := range v.Nodes {
			switch {
			case n.Phase == status.Installed && len(n.Installed) == 1 && n.Installed[0].Version == version:
				have++
			case n.Phase == others:
				rest++
			}
		}
		return have == want && have+rest == len(v.Nodes), harness.Summary(v, bundle, version), nil
	})
}

func (l *life) first(ctx context.Context) error {
	if err := l.apply(ctx, 1); err != nil {
		return err
	}
	l.Say("version 1: batches of 2")
	if err := l.await(ctx, "version 1 everywhere", "1", count, ""); err != nil {
		return err
	}
	return l.show(ctx, "rollout", "status", "edge-fleet")
}

func (l *life) second(ctx context.Context) error {
	if err := l.apply(ctx, 2); err != nil {
		return err
	}
	l.Say("version 2: one node at a time; %s will not be healthy", ill)
	if err := l.await(ctx, "version 2 but on one node", "2", count-1, status.RolledBack); err != nil {
		return err
	}
	if err := l.show(ctx, "status", site); err != nil {
		return err
	}
	return l.show(ctx, "compliance", "--site", site)
}

func (l *life) back(ctx context.Context) error {
	l.Say("the policy is taken back: an older bundle, by a newer, signed policy")
	if err := l.show(ctx, "rollout", "undo", "edge-fleet", "--key", l.Path("operator.key"), "--yes"); err != nil {
		return err
	}
	if err := l.await(ctx, "version 1 everywhere again", "1", count, ""); err != nil {
		return err
	}
	return l.show(ctx, "history", site+"/"+ill)
}

// show runs a command as its reader would, and prints what it says.
func (l *life) show(ctx context.Context, args ...string) error {
	out, err := l.seeder.Meshctl(ctx, args...)
	if exit := (*harness.ExitError)(nil); errors.As(err, &exit) && exit.Status == 3 { // somebody should look: that is the story
		err = nil
	}
	fmt.Printf("\n$ meshctl %s\n%s\n", strings.Join(args, " "), out)
	return err
}
