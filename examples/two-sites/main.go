// Two-sites sends one bundle to two sites behind links of different speed, four nodes each, and restarts the seeder
// while both are at it. Each site's link carries the bundle once, the slow site does not hold up the fast one, and
// nobody starts again from zero. It runs the real programs on the loopback interface and needs no root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/harness"
)

const (
	bundle = "tools"
	each   = 4 // nodes of a site
)

func main() { os.Exit(harness.Tell(run)) }

func run(ctx context.Context, s *harness.Story) (try []string, err error) {
	input, err := tree(s)
	if err != nil {
		return nil, err
	}
	seeder, err := s.NewSeeder(ctx)
	if err != nil {
		return nil, err
	}
	var sites []*harness.Site
	for name, limit := range map[string]string{"fast": "16Mbit", "slow": "5Mbit"} {
		site, err := seeder.Site(ctx, name, limit, each)
		if err != nil {
			return nil, err
		}
		s.Say("site %s: %d nodes behind %s/s", name, each, limit)
		sites = append(sites, site)
	}
	if err := seeder.Release(ctx, bundle, "1.0", 1, input); err != nil {
		return nil, err
	}
	for _, site := range sites {
		if err := site.Start(ctx); err != nil {
			return nil, err
		}
	}
	if err := restart(ctx, s, seeder); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, site := range sites {
		g.Go(func() error { return s.AwaitInstalled(gctx, site.View, bundle, "1.0", each) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, site := range sites {
		for _, n := range site.Nodes {
			if err := harness.SameTree(input, n.Current(bundle)); err != nil {
				return nil, err
			}
		}
	}
	return []string{"export MESHCTL_CONFIG=" + seeder.Admin(), "bin/meshctl status", "bin/meshctl status slow -o wide"}, report(ctx, seeder)
}

// tree is a few megabytes of the Go toolchain.
func tree(s *harness.Story) (string, error) {
	goroot, err := harness.Goroot()
	if err != nil {
		return "", err
	}
	dir := s.Path("input")
	t, err := harness.CopyTree(filepath.Join(dir, "bin"), filepath.Join(goroot, "bin"))
	if err == nil {
		s.Say("input: %d files, %.1f MB, the programs in %s/bin", t.Files, float64(t.Bytes)/1e6, goroot)
	}
	return dir, err
}

// restart waits until both links have carried something and restarts the seeder in the middle of it.
func restart(ctx context.Context, s *harness.Story, seeder *harness.Seeder) error {
	err := harness.Await(ctx, "both sites at it", 200*time.Millisecond, func() (bool, string, error) {
		f, err := seeder.Fleet(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		busy := 0
		for _, site := range f.Sites {
			if site.WAN.Payload > 1<<20 {
				busy++
			}
		}
		return busy == len(f.Sites), fmt.Sprintf("%d of %d", busy, len(f.Sites)), nil
	})
	if err != nil {
		return err
	}
	s.Say("kill -9 of the seeder while both sites fetch")
	seeder.Kill()
	if err := seeder.Start(ctx); err != nil {
		return err
	}
	s.Say("the seeder is back")
	return nil
}

// report prints the fleet and says what each link carried, against what it had to.
func report(ctx context.Context, seeder *harness.Seeder) error {
	f, err := seeder.Fleet(ctx)
	if err != nil {
		return err
	}
	out, err := seeder.Meshctl(ctx, "status")
	if err != nil {
		return err
	}
	infos, err := seeder.Bundles(ctx)
	if err != nil {
		return err
	}
	if len(infos) != 1 {
		return errors.New("the seeder lists another number of bundles than one")
	}
	fmt.Printf("\n$ meshctl status\n%s\n", out)
	for _, site := range f.Sites {
		// The nodes' own count: what a seeder had counted in the seconds before it was killed is lost with it.
		var wan int64
		for _, n := range site.Nodes {
			wan += n.Transfer.FromWAN
		}
		fmt.Printf("site %s, %d of %d nodes Installed: chunk bytes over the WAN / bundle bytes = %d / %d = %.3f\n", site.Site, each, each,
			wan, infos[0].Distinct, float64(wan)/float64(infos[0].Distinct))
	}
	return nil
}
