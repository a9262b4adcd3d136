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
	"github.com/patchmesh/patchmesh/internal/trust"
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
	given, err := client.Orders(ctx)
	if err != nil {
		return err
	}
	var last uint64
	if n := len(given); n > 0 {
		last = given[n-1].Order.Sequence
	}
	return f.order(ctx, sign, last, site, node, q, func(d trust.Signed) error {
		_, err := client.PutOrder(ctx, d)
		return err
	})
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
	if err != nil {
		return err
	}
	if n.Quarantined == nil {
		return problem.New(problem.NotFound, "%s/%s does not hold itself under quarantine", site, node)
	}
	return f.order(ctx, sign, 0, site, node, *n.Quarantined, func(d trust.Signed) error { return client.PutOrder(ctx, d) })
}

// order signs the order that ends a node's own quarantine, with the sequence after the last one, and has it given.
func (f *releaseFlags) order(ctx context.Context, sign signer.Signer, last uint64, site, node string, q status.Quarantine, give func(trust.Signed) error) error {
	if sign == nil {
		return problem.New(problem.NodeQuarantined, "%s/%s holds itself under quarantine %s since %s: %s", site, node, cli.Printable(q.ID), day(&q.Since), cli.Printable(q.String())).
			WithDone("nothing was released: that takes an order that an operator has signed").
			WithNext("meshctl quarantine release %s/%s --reason TEXT --key FILE", site, node)
	}
	o := releaseOrder(order.Next(last, f.env.Now()), f.env.Now(), site, node, f.reason, q)
	doc, err := o.Encode()
	if err != nil {
		return err
	}
	sig, err := sign.Sign(ctx, doc)
	if err != nil {
		return err
	}
	if err := give(trust.Signed{Doc: doc, Sig: sig}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(f.env.Stdout, "order %d given to %s/%s: it ends quarantine %s (%s)\nuntil the node has said so it is in the list: meshctl quarantine list\n",
		o.Sequence, site, node, q.ID, cli.Printable(q.String()))
	return err
}

// releaseOrder is the order that ends a quarantine, and no other one.
func releaseOrder(sequence uint64, now time.Time, site, node, reason string, q status.Quarantine) *order.Order {
	return &order.Order{Schema: order.Schema, Sequence: sequence, Created: order.Timestamp(now), Kind: order.Release, Bundle: q.Bundle, Version: q.Version, Checksum: q.Checksum,
		Targets: order.Targets{Sites: []string{site}, Nodes: []string{node}, Labels: map[string]string{}}, Reason: reason, Quarantine: q.ID}
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
