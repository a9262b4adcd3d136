// Usb-stick brings a bundle, its policy and the grant of its rollout into a site that has no WAN: head office writes them
// into one file, somebody carries the file, and one node of the site imports it. The other nodes take it from there, verify
// everything themselves and install one after the other, with no seeder in sight. It runs the real programs on the loopback interface.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
)

const (
	bundle = "tools"
	nodes  = 4
)

func main() { os.Exit(harness.Tell(run)) }

func run(ctx context.Context, s *harness.Story) (try []string, err error) {
	goroot, err := harness.Goroot()
	if err != nil {
		return nil, err
	}
	input := s.Path("input")
	t, err := harness.CopyTree(input, filepath.Join(goroot, "bin"))
	if err != nil {
		return nil, err
	}
	s.Say("input: %d files, %.1f MB, the programs in %s/bin", t.Files, float64(t.Bytes)/1e6, goroot)
	seeder, err := s.NewSeeder(ctx)
	if err != nil {
		return nil, err
	}
	ship, err := seeder.Site(ctx, "ship", "0", nodes)
	if err != nil {
		return nil, err
	}
	if err := acquaint(ctx, ship); err != nil {
		return nil, err
	}
	s.Say("site ship: %d nodes joined in harbour and know each other; now they are switched off", nodes)

	stick := s.Path("stick.mesh")
	if err := write(ctx, seeder, input, stick); err != nil {
		return nil, err
	}
	if err := seeder.Stop(ctx); err != nil {
		return nil, err
	}
	s.Say("head office wrote bundle, policy and grant into %s; the seeder is gone, the ship is at sea", filepath.Base(stick))

	if err := ship.Start(ctx); err != nil {
		return nil, err
	}
	out, err := ship.Nodes[1].Meshctl(ctx, "bundle", "import", stick)
	if err != nil {
		return nil, err
	}
	s.Say("on node-2: %s", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "   "))
	last := ship.Nodes[nodes-1]
	if err := s.AwaitInstalled(ctx, last.View, bundle, "1.0", nodes); err != nil {
		return nil, err
	}
	for _, n := range ship.Nodes {
		if err := harness.SameTree(input, n.Current(bundle)); err != nil {
			return nil, err
		}
	}
	if out, err = last.Meshctl(ctx, "status"); err != nil {
		return nil, err
	}
	fmt.Printf("\n$ meshctl status          # on %s, no seeder in sight\n%s\n%d of %d nodes Installed from one file: 0 bytes over the WAN\n", last.Name, out, nodes, nodes)
	return []string{"bin/meshctl status --socket " + last.Socket}, nil
}

// acquaint runs the nodes while the seeder is there, until each has heard of all the others, and stops them.
func acquaint(ctx context.Context, ship *harness.Site) error {
	if err := ship.Start(ctx); err != nil {
		return err
	}
	for _, n := range ship.Nodes {
		err := harness.Await(ctx, n.Name+" knows its neighbours", 200*time.Millisecond, func() (bool, string, error) {
			v, err := n.View(ctx)
			if err != nil {
				return false, err.Error(), nil
			}
			known := 0
			for _, other := range v.Nodes {
				if !other.LastSeen.IsZero() {
					known++
				}
			}
			return known == nodes, fmt.Sprintf("%d of %d", known, nodes), nil
		})
		if err != nil {
			return err
		}
	}
	for _, n := range ship.Nodes {
		if err := n.Stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// policyText is a policy with a rollout: without a grant nobody starts.
const policyText = `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: %s}
spec:
  bundleRef: {name: %s, version: %q, checksum: %q}
  targets: {selector: {matchLabels: {role: node}}}
  rolloutStrategy: {type: RollingUpdate, maxUnavailablePerSite: 1}
`

// write makes the stick file: bundle and policy, as the seeder has them, and the ship's grant.
func write(ctx context.Context, seeder *harness.Seeder, input, stick string) error {
	dir, sum, err := seeder.Build(ctx, bundle, "1.0", 1, input)
	if err != nil {
		return err
	}
	if err := seeder.Push(ctx, dir); err != nil {
		return err
	}
	if err := seeder.PolicyText(ctx, bundle+"-1.0", fmt.Sprintf(policyText, bundle, bundle, "1.0", sum)); err != nil {
		return err
	}
	_, err = seeder.Meshctl(ctx, "bundle", "export", dir, "--policy", bundle, "--site", "ship", "--out", stick)
	return err
}
