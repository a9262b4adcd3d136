package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
)

// releaseFlags of "meshctl quarantine release".
type releaseFlags struct {
	*server
	key    keyFlags
	socket string
	reason string
}

func newQuarantineRelease(s *server) *cobra.Command {
	f := &releaseFlags{server: s, key: keyFlags{env: s.env}}
	c := &cobra.Command{
		Use:   "release ID | SITE/NODE --reason TEXT [--key FILE | --gpg ID]",
		Short: "end a quarantine",
		Long: `Release ends a quarantine. One that the node holds against itself ends by nothing but
its own check, or an operator's order, which names the node and that very quarantine:
give the key that signs policies. The order goes to the node as every order does, by
way of its neighbours if need be; until the node has said that it is over, it stays in
the list. The release holds for what was found until now: what fails afterwards
is another quarantine. With the WAN down the same order can be given on the node
itself, or on one of its neighbours: --socket.`,
		Example: `  meshctl quarantine release store-0417/pos-07 --reason "disk replaced" --key operator.key
  meshctl quarantine release store-0417/pos-07 --reason "disk replaced" --key operator.key --socket /run/meshd/meshd.sock
  meshctl quarantine release 12 --reason "the accusers were ill"`,
		Args: cli.Args(1, 1, "ID or SITE/NODE"),
		RunE: f.run,
	}
	f.key.addFlags(c)
	c.Flags().StringVar(&f.socket, "socket", "", "give the order to the node on this machine by its `socket`, without the seeder")
	c.Flags().StringVar(&f.reason, "reason", "", "why; it is kept")
	return c
}

func (f *releaseFlags) run(c *cobra.Command, args []string) error {
	if f.reason == "" {
		return cli.Usage(c, "no reason: give --reason TEXT")
	}
	var sign signer.Signer
	if f.key.given() { // before anything is asked: a smart card waits for its owner
		var err error
		if sign, err = f.key.signer(c); err != nil {
			return err
		}
	}
	if f.socket != "" {
		return f.onNode(c, sign, args[0])
	}
	return f.do(c, func(ctx context.Context, client *api.Client) error {
		list, err := quarantinesOf(ctx, client, args[0], false)
		site, node := nodeIn(args[0], list)
		var own *status.Quarantine
		if node != "" {
			var asked error
			if own, asked = ownQuarantine(ctx, client, site, node); own == nil && err == nil {
				err = asked
			}
		}
		if own == nil && err != nil {
			return err
		}
		if own != nil {
			if err := f.give(ctx, client, sign, site, node, *own); err != nil {
				return err
			}
		}
		for _, q := range list {
			if own != nil && q.Scope == api.QuarantineNode && q.By == "node" { // it ends when the node says so
				continue
			}
			if q, err = client.ReleaseQuarantine(ctx, q.ID, f.reason); err != nil {
				return err
			}
			fmt.Fprintf(f.env.Stdout, "quarantine %d: %s %s/%s released\n", q.ID, q.Scope, q.Site, q.Node)
		}
		return nil
	})
}

// nodeIn is the node whose own quarantine may be meant: the one that is named, or the one of the entry that is.
func nodeIn(what string, list []api.QuarantineEntry) (site, node string) {
	if site, node, ok := strings.Cut(what, "/"); ok {
		return site, node
	}
	for _, q := range list {
		if q.Scope == api.QuarantineNode {
			return q.Site, q.Node
		}
	}
	return "", ""
}

// ownQuarantine is what a node last said of its own.
func ownQuarantine(ctx context.Context, client *api.Client, site, node string) (*status.Quarantine, error) {
	s, err := client.Site(ctx, site)
	if err != nil {
		return nil, err
	}
	n, err := nodeOf(s, node)
	if err != nil {
		return nil, err
	}
	return n.Quarantined, nil
}

// give gives the seeder the order that ends a node's own quarantine.
func (f *releaseFlags) give(ctx context.Context, client *api.Client, sign signer.Signer, site, node string, q status.Quarantine) error {
	if sign == nil {
		return unsigned(site, node, q)
	}
	info, err := giveOrder(ctx, client, sign, f.env.Now(), releaseOrder(site, node, f.reason, q))
	if err != nil {
		return err
	}
	return f.given(info.Order, site, node, q)
}

// onNode gives the order to a node of the site by its socket: to the one that it is for, or to a neighbour, which hands
// it on.
func (f *releaseFlags) onNode(c *cobra.Command, sign signer.Signer, what string) error {
	site, node, ok := strings.Cut(what, "/")
	if !ok {
		return cli.Usage(c, "%q: want SITE/NODE: numbers are the seeder's", what)
	}
	client, err := api.NewNodeClient(f.socket)
	if err != nil {
		return err
	}
	defer client.CloseIdle()
	ctx, cancel := f.within(c.Context())
	defer cancel()
	s, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if s.Site != site {
		return problem.New(problem.NotFound, "the node behind %s is of site %s, not %.80q", f.socket, s.Site, site)
	}
	n, err := nodeOf(s, node)
	switch {
	case err != nil:
		return err
	case n.Quarantined == nil:
		return problem.New(problem.NotFound, "%s/%s does not hold itself under quarantine", site, node)
	case sign == nil:
		return unsigned(site, node, *n.Quarantined)
	}
	o, d, err := signOrder(ctx, sign, 0, f.env.Now(), releaseOrder(site, node, f.reason, *n.Quarantined))
	if err != nil {
		return err
	}
	if err := client.PutOrder(ctx, d); err != nil {
		return err
	}
	return f.given(o, site, node, *n.Quarantined)
}

func (f *releaseFlags) given(o order.Order, site, node string, q status.Quarantine) error {
	_, err := fmt.Fprintf(f.env.Stdout, "order %d given to %s/%s: it ends quarantine %s (%s)\nuntil the node has said so it is in the list: meshctl quarantine list\n",
		o.Sequence, site, node, cli.Printable(q.ID), cli.Printable(q.String()))
	return err
}

// unsigned says what is missing.
func unsigned(site, node string, q status.Quarantine) error {
	return problem.New(problem.NodeQuarantined, "%s/%s holds itself under quarantine %s since %s: %s", site, node, cli.Printable(q.ID), day(&q.Since), cli.Printable(q.String())).
		WithDone("nothing was released: that takes an order that an operator has signed").
		WithNext("meshctl quarantine release %s/%s --reason TEXT --key FILE", site, node)
}

// releaseOrder is the order that ends a quarantine, and no other one.
func releaseOrder(site, node, reason string, q status.Quarantine) order.Order {
	return order.Order{Kind: order.Release, Bundle: q.Bundle, Version: q.Version, Checksum: q.Checksum, Now: true, Reason: reason, Quarantine: q.ID,
		Targets: order.Targets{Sites: []string{site}, Nodes: []string{node}, Labels: map[string]string{}}}
}

// quarantineNext says when a node under quarantine checks itself again, and what a person can do.
func quarantineNext(n status.Seen, timezone string, now time.Time) string {
	place := n.Site + "/" + n.Node.Node
	q := n.Quarantined
	switch {
	case q == nil && n.Desired != nil && n.Phase == status.Quarantined: // the bundle is, and the node goes on
		return "none until the policy asks for another release, or: meshctl retry " + n.Desired.Bundle + " --site " + n.Site + " --node " + n.Node.Node
	case q == nil:
		return "none in a rollout until a person ends it: meshctl quarantine release " + place
	case q.Next != nil && q.Next.After(now):
		return fmt.Sprintf("it checks itself %s (in %s), or: meshctl quarantine release %s --key FILE", date(timezone, *q.Next), cli.Age(q.Next.Sub(now)), place)
	}
	return fmt.Sprintf("it checks itself now, or: meshctl quarantine release %s --key FILE", place)
}
