package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
)

// reach is who runs what is to be taken back, as far as was heard.
type reach struct {
	sites    []status.Site
	nodes    int // that run it
	snapshot int // of them: with a snapshot of the state before
}

// reachOf asks which nodes follow a policy and run its release.
func reachOf(ctx context.Context, client *api.Client, name string, now api.PolicyRevision) (r reach, err error) {
	fleet, err := client.Status(ctx)
	r.sites = fleet.Sites
	for _, s := range fleet.Sites {
		for _, n := range s.Nodes {
			if runs := inForce(n, now.Bundle); follows(n, name) && runs != nil && runs.checksum == now.Checksum {
				if r.nodes++; n.Snapshot != "" {
					r.snapshot++
				}
			}
		}
	}
	return r, err
}

func (r reach) String() string {
	return fmt.Sprintf("%s it: %d with a snapshot of the state before, %d need the release before, from where they keep it or from the bundle",
		map[bool]string{true: "1 node runs", false: fmt.Sprintf("%d nodes run", r.nodes)}[r.nodes == 1], r.snapshot, r.nodes-r.snapshot)
}

func follows(n status.Seen, name string) bool { return n.Desired != nil && n.Desired.Policy == name }

// emergency orders all who follow the policy back from a release at once: no window, no batch, no soak. Each node verifies
// the operator's signature itself, and holds the release back from then on, so that it does not matter when the revision
// that takes it back comes.
func (u *undo) emergency(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, now api.PolicyRevision, r reach) error {
	given := 0
	for _, t := range emergencyTargets(u.policy, release{now.Version, now.Checksum}, now.Bundle, r.sites) {
		info, err := giveOrder(ctx, client, sign, env.Now(), order.Order{Kind: order.Rollback, Bundle: now.Bundle, Version: now.Version, Checksum: now.Checksum,
			Targets: t, Now: true, Reason: "emergency: " + u.reason})
		if err != nil {
			fmt.Fprintf(env.Stderr, "%s were given before this one\n", cli.Count(given, "order"))
			return err
		}
		given++
		fmt.Fprintf(env.Stdout, "order %d given to %s: back from %s %s at once\n", info.Order.Sequence, cli.Count(info.Nodes, "node"), now.Bundle, now.Version)
	}
	if given == 0 {
		_, err := io.WriteString(env.Stdout, "no node runs it or waits for it: nothing was ordered\n")
		return err
	}
	return nil
}

// emergencyTargets says whom to order back: whole sites, and where others have the same release by another policy, the
// nodes that follow this one. Pure.
func emergencyTargets(name string, r release, bundle string, sites []status.Site) (out []order.Targets) {
	whole := []string{}
	for _, s := range sites {
		named, others := []string{}, false
		for _, n := range s.Nodes {
			switch runs, wants := inForce(n, bundle), asked(n, bundle); {
			case (runs == nil || *runs != r) && (wants == nil || *wants != r):
			case follows(n, name):
				named = append(named, n.Node.Node)
			default:
				others = true
			}
		}
		switch {
		case len(named) == 0:
		case others:
			slices.Sort(named)
			for nodes := range slices.Chunk(named, order.MaxNodes) {
				out = append(out, order.Targets{Sites: []string{s.Site}, Nodes: nodes, Labels: map[string]string{}})
			}
		default:
			whole = append(whole, s.Site)
		}
	}
	slices.Sort(whole)
	for sites := range slices.Chunk(whole, order.MaxSites) {
		out = append(out, order.Targets{Sites: sites, Nodes: []string{}, Labels: map[string]string{}})
	}
	return out
}

// checkEmergency refuses an emergency that does not say why: the order carries it to every node.
func (u *undo) checkEmergency() error {
	if u.urgent && u.reason == "" {
		return problem.New(problem.Usage, "an emergency needs a reason").WithNext("give --reason TEXT")
	}
	return nil
}
