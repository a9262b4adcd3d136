// Demo is the main job on one machine: a real tree becomes a signed bundle, crosses a thin WAN once into a site of
// eight nodes that all start at once, is verified and installed on each, while the node that does the fetching is
// killed half-way. Then a second version follows that reuses the first. It runs the real programs on the loopback
// interface, needs no root, ends by itself, and fails if any node ends up without the bundle.
//
//	make demo          about a minute
//	make demo KEEP=1   leaves it running and says what to try
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/encoding"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/status"
)

const (
	bundle  = "gotree"
	site    = "store-0417"
	nodes   = 8
	crossed = 16 // seconds that the first version takes over the WAN: its cap is chosen for that
)

func main() { os.Exit(harness.Tell(run)) }

func run(ctx context.Context, s *harness.Story) (try []string, err error) {
	in, err := makeInput(s)
	if err != nil {
		return nil, err
	}
	s.Say("input: %s", in.said)
	seeder, err := s.NewSeeder(ctx)
	if err != nil {
		return nil, err
	}

	dir, sum, err := seeder.Build(ctx, bundle, "1.0", 1, in.first)
	if err != nil {
		return nil, err
	}
	if err := seeder.Push(ctx, dir); err != nil {
		return nil, err
	}
	plain, payload, err := weigh(dir)
	if err != nil {
		return nil, err
	}
	rate := payload * 8 / crossed / 1000
	s.Say("bundle %s 1.0 is signed and at the seeder: %.1f MB in chunks, %.1f MB as encoded", bundle, mb(plain), mb(payload))

	shop, err := seeder.Site(ctx, site, fmt.Sprintf("%dkbit", rate), nodes)
	if err != nil {
		return nil, err
	}
	if err := seeder.Policy(ctx, bundle, "1.0", sum); err != nil {
		return nil, err
	}
	s.Say("site %s: %d nodes joined, WAN capped at %.1f Mbit/s; the policy wants %s 1.0; all start now", site, nodes, float64(rate)/1000, bundle)
	if err := shop.Start(ctx); err != nil {
		return nil, err
	}

	victim, err := killUplink(ctx, s, shop, payload/2)
	if err != nil {
		return nil, err
	}
	if err := s.AwaitInstalled(ctx, shop.View, bundle, "1.0", nodes-1); err != nil {
		return nil, err
	}
	s.Say("every node but %s has it; %s starts again", victim.Name, victim.Name)
	if err := victim.Start(); err != nil {
		return nil, err
	}
	if err := s.AwaitInstalled(ctx, shop.View, bundle, "1.0", nodes); err != nil {
		return nil, err
	}
	if err := sameEverywhere(shop, in.first); err != nil {
		return nil, err
	}
	before, err := shop.View(ctx)
	if err != nil {
		return nil, err
	}

	dir2, sum2, err := seeder.Build(ctx, bundle, "2.0", 2, in.second)
	if err != nil {
		return nil, err
	}
	fresh, err := difference(dir, dir2)
	if err != nil {
		return nil, err
	}
	s.Say("bundle %s 2.0: %s; %.1f MB of its chunks are new", bundle, in.change, mb(fresh))
	if err := seeder.Push(ctx, dir2); err != nil {
		return nil, err
	}
	if err := seeder.Policy(ctx, bundle, "2.0", sum2); err != nil {
		return nil, err
	}
	if err := s.AwaitInstalled(ctx, shop.View, bundle, "2.0", nodes); err != nil {
		return nil, err
	}
	if err := sameEverywhere(shop, in.second); err != nil {
		return nil, err
	}
	s.Say("every node runs 2.0, compared byte for byte with what went in\n")

	after, err := finish(ctx, s, shop, seeder)
	if err != nil {
		return nil, err
	}
	fmt.Printf("first version: WAN payload %d / bundle %d = %.3f; chunk bytes over the WAN / needed = %.4f, the killed uplink cost %d bytes twice\n",
		before.WAN.Payload, plain, ratio(before.WAN.Payload, plain), ratio(before.WAN.Plain, before.WAN.Needed), before.WAN.Duplicate)
	fmt.Printf("both versions, %d of %d nodes Installed: WAN payload bytes / bundle bytes = %d / %d = %.3f (one rsync per node: %d.000)\n",
		nodes, nodes, after.WAN.Payload, plain+fresh, ratio(after.WAN.Payload, plain+fresh), nodes)
	return toTry(s, shop, seeder), nil
}

// killUplink waits until so much payload has crossed the WAN and kills the node that fetches it.
func killUplink(ctx context.Context, s *harness.Story, shop *harness.Site, half int64) (victim *harness.Node, err error) {
	err = harness.Await(ctx, "half of the bundle", 200*time.Millisecond, func() (bool, string, error) {
		v, err := shop.View(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		line := harness.Summary(v, bundle, "1.0")
		if v.WAN.Payload < half || v.Uplink == "" {
			return false, line, nil
		}
		s.Say("%s", line)
		if victim, err = shop.Node(v.Uplink); err != nil {
			return false, line, err
		}
		victim.Kill()
		s.Say("kill -9 of %s, which was the uplink", victim.Name)
		return true, line, nil
	})
	return victim, err
}

// finish shows the status screen and checks it: every node Installed, nobody silent.
func finish(ctx context.Context, s *harness.Story, shop *harness.Site, seeder *harness.Seeder) (status.Site, error) {
	// A node's own report of the last step may still be on its way.
	err := harness.Await(ctx, "every node Installed", time.Second, func() (bool, string, error) {
		v, err := shop.View(ctx)
		if err != nil {
			return false, "", err
		}
		n := 0
		for _, node := range v.Nodes {
			if node.Phase == status.Installed && !node.Silent {
				n++
			}
		}
		return n == nodes, fmt.Sprintf("%d of %d", n, nodes), nil
	})
	if err != nil {
		return status.Site{}, err
	}
	out, err := seeder.Meshctl(ctx, "status", shop.Name)
	if err != nil {
		return status.Site{}, err
	}
	fmt.Printf("$ meshctl status %s\n%s\n", shop.Name, out)
	return shop.View(ctx)
}

// sameEverywhere compares what every node has in force with the directory that the bundle was built from.
func sameEverywhere(shop *harness.Site, want string) error {
	var errs []error
	for _, n := range shop.Nodes {
		errs = append(errs, harness.SameTree(want, n.Current(bundle)))
	}
	return errors.Join(errs...)
}

// weigh returns the bytes of a bundle's distinct chunks, plain and as they travel.
func weigh(dir string) (plain, payload int64, err error) {
	b, err := chunker.Open(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, ref := range b.Catalog().Chunks {
		p, err := b.ReadChunk(ref)
		if err != nil {
			return 0, 0, err
		}
		_, encoded := encoding.Encode(p)
		plain += ref.Size
		payload += int64(len(encoded))
	}
	return plain, payload, nil
}

// difference is how many bytes of chunks the second bundle has that the first has not.
func difference(first, second string) (int64, error) {
	a, err := chunker.Open(first)
	if err != nil {
		return 0, err
	}
	b, err := chunker.Open(second)
	if err != nil {
		return 0, err
	}
	d, err := chunker.Diff(a, b)
	if err != nil {
		return 0, err
	}
	return d.NewBytes, nil
}

func toTry(s *harness.Story, shop *harness.Site, seeder *harness.Seeder) []string {
	n := shop.Nodes[2]
	return []string{
		"export MESHCTL_CONFIG=" + seeder.Admin(),
		"bin/meshctl status " + shop.Name + " -o wide",
		"bin/meshctl status --watch",
		"bin/meshctl policy list",
		"bin/meshctl status --socket " + n.Socket + "      # the same from a node, which needs no seeder",
		fmt.Sprintf("kill -9 %d                 # %s; then look at the status again after two minutes", n.Proc().PID(), n.Name),
		"ls -l " + n.Root + "/" + bundle,
	}
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func ratio(a, b int64) float64 { return float64(a) / float64(max(b, 1)) }
