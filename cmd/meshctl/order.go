package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// orderFlags of "meshctl rollback" and "meshctl retry".
type orderFlags struct {
	server
	key                  keyFlags
	out                  output
	kind                 order.Kind
	sites, nodes, labels []string
	version, reason      string
	now, yes, dryRun     bool
}

func newRollback(env cli.Env) *cobra.Command {
	f := &orderFlags{server: server{env: env}, key: keyFlags{env: env}, kind: order.Rollback}
	c := &cobra.Command{
		Use:   "rollback BUNDLE --site SITE --reason TEXT (--key FILE | --gpg ID)",
		Short: "order nodes to go back from a release",
		Long: `Rollback signs an order with the operator's key and gives it to the seeder, which
hands it to the sites. Each node verifies it itself, puts the release before in
force, and holds the one it went back from until "meshctl retry", or until the
policy asks for another one. A node on which the release is not in force yet holds
it back.

A node goes back in its maintenance window, or at once with --now. What it keeps is
all it can go back to: the release before must still be there, and its bytes are
checked first. The outcome is reported: meshctl events SITE.`,
		Example: `  meshctl rollback pos-rhel9 --site store-0417 --reason "tills freeze" --key operator.key
  meshctl rollback pos-rhel9 --site store-0417 --node pos-03 --now --reason "CHG0012345" --gpg 0xB5A2F3C1
  meshctl rollback pos-rhel9 --label ring=canary --reason "H-5021" --key operator.key --dry-run`,
		Args: cli.Args(1, 1, "BUNDLE"),
		RunE: f.run,
	}
	f.addFlags(c)
	c.Flags().BoolVar(&f.now, "now", false, "do not wait for the maintenance window")
	return c
}

func newRetry(env cli.Env) *cobra.Command {
	f := &orderFlags{server: server{env: env}, key: keyFlags{env: env}, kind: order.Retry}
	c := &cobra.Command{
		Use:   "retry BUNDLE --site SITE --reason TEXT (--key FILE | --gpg ID)",
		Short: "order nodes to try a release again that they hold back",
		Long: `Retry signs an order with the operator's key and gives it to the seeder, which
hands it to the sites. A node that rolled the release back, or failed to install
it, forgets that, and tries it again in its maintenance window.`,
		Example: `  meshctl retry pos-rhel9 --site store-0417 --reason "disk replaced" --key operator.key`,
		Args:    cli.Args(1, 1, "BUNDLE"),
		RunE:    f.run,
	}
	f.addFlags(c)
	return c
}

func (f *orderFlags) addFlags(c *cobra.Command) {
	f.server.addFlags(c, 2*time.Minute) // a smart card waits for its owner
	f.key.addFlags(c)
	c.Flags().StringArrayVar(&f.sites, "site", nil, "nodes of this `site`; may be given several times")
	c.Flags().StringArrayVar(&f.nodes, "node", nil, "only the node of this `name`, of the one site; may be given several times")
	c.Flags().StringArrayVar(&f.labels, "label", nil, "only nodes with this label, `KEY=VALUE`; may be given several times")
	c.Flags().StringVar(&f.version, "version", "", "the release's `version` (default: the one that it can only be)")
	c.Flags().StringVar(&f.reason, "reason", "", "`why`, for the people who read the reports")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask when more than one site may be concerned")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be ordered, and order nothing")
	f.out.addFlags(c, "text", "json")
}

func (f *orderFlags) run(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	targets, err := f.targets(c)
	if err != nil {
		return err
	}
	if f.reason == "" {
		return cli.Usage(c, "no reason: give --reason TEXT")
	}
	var sign signer.Signer
	if !f.dryRun {
		if sign, err = f.key.signer(c); err != nil {
			return err
		}
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	ctx, cancel := f.within(c.Context())
	defer cancel()
	sites, err := sitesOf(ctx, client, targets.Sites)
	if err != nil {
		return err
	}
	p, err := planOrder(f.kind, args[0], f.version, targets, sites)
	if err != nil {
		return err
	}
	p.now, p.reason = f.now, f.reason
	if !f.out.json {
		fmt.Fprint(f.env.Stdout, p.text())
	}
	if f.dryRun {
		if f.out.json {
			return cli.JSON(f.env.Stdout, p.summary())
		}
		return nil
	}
	if (len(p.sites) > 1 || len(targets.Sites) == 0) && !f.yes {
		if err := f.confirm(c, args[0]); err != nil {
			return err
		}
	}
	return f.give(ctx, client, sign, p)
}

// targets are whose order it is, by the flags.
func (f *orderFlags) targets(c *cobra.Command) (order.Targets, error) {
	t := order.Targets{Sites: slices.Sorted(slices.Values(f.sites)), Nodes: slices.Sorted(slices.Values(f.nodes)), Labels: map[string]string{}}
	t.Sites, t.Nodes = slices.Compact(t.Sites), slices.Compact(t.Nodes)
	for _, l := range f.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return t, cli.Usage(c, "--label %q: want KEY=VALUE", l)
		}
		t.Labels[k] = v
	}
	switch {
	case len(t.Sites) == 0 && len(t.Labels) == 0:
		return t, cli.Usage(c, "no node is named: give --site SITE or --label KEY=VALUE")
	case len(t.Nodes) > 0 && len(t.Sites) != 1:
		return t, cli.Usage(c, "--node needs exactly one --site")
	}
	if t.Sites == nil {
		t.Sites = []string{}
	}
	if t.Nodes == nil {
		t.Nodes = []string{}
	}
	return t, nil
}

// sitesOf asks for the named sites, or for all.
func sitesOf(ctx context.Context, client *api.Client, names []string) ([]status.Site, error) {
	if len(names) == 0 {
		fleet, err := client.Status(ctx)
		return fleet.Sites, err
	}
	var out []status.Site
	for _, name := range names {
		s, err := client.Site(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// confirm has the person type the bundle's name.
func (f *orderFlags) confirm(c *cobra.Command, bundle string) error {
	file, ok := f.env.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return cli.Usage(c, "more than one site may be concerned: give --yes").WithDone("nothing was ordered")
	}
	fmt.Fprintf(f.env.Stderr, "Type the name of the bundle to go on: ")
	line, err := bufio.NewReader(io.LimitReader(f.env.Stdin, 256)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != bundle {
		return cli.Usage(c, "that is not %s", bundle).WithDone("nothing was ordered")
	}
	return nil
}

// give signs the order as the next one and submits it.
func (f *orderFlags) give(ctx context.Context, client *api.Client, sign signer.Signer, p *orderPlan) error {
	info, err := giveOrder(ctx, client, sign, f.env.Now(), p.order())
	if err != nil {
		return err
	}
	if f.out.json {
		return cli.JSON(f.env.Stdout, info)
	}
	where := ""
	if len(p.sites) == 1 {
		where = " " + p.sites[0]
	}
	_, err = fmt.Fprintf(f.env.Stdout, "order %d given to %s; what comes of it: meshctl events%s\n", info.Order.Sequence, cli.Count(info.Nodes, "node"), where)
	return err
}

// giveOrder signs an order as the next one and submits it.
func giveOrder(ctx context.Context, client *api.Client, sign signer.Signer, now time.Time, o order.Order) (api.OrderInfo, error) {
	given, err := client.Orders(ctx)
	if err != nil {
		return api.OrderInfo{}, err
	}
	var last uint64
	if n := len(given); n > 0 {
		last = given[n-1].Order.Sequence
	}
	_, d, err := signOrder(ctx, sign, last, now, o)
	if err != nil {
		return api.OrderInfo{}, err
	}
	return client.PutOrder(ctx, d)
}

// signOrder signs an order as the one after the last.
func signOrder(ctx context.Context, sign signer.Signer, last uint64, now time.Time, o order.Order) (order.Order, trust.Signed, error) {
	if err := order.CheckLast(last, now); err != nil {
		return o, trust.Signed{}, err
	}
	o.Schema, o.Sequence, o.Created = order.Schema, order.Next(last, now), order.Timestamp(now)
	doc, err := o.Encode()
	if err != nil {
		return o, trust.Signed{}, err
	}
	sig, err := sign.Sign(ctx, doc)
	return o, trust.Signed{Doc: doc, Sig: sig}, err
}

func newOrder(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{Use: "order", Short: "orders given to nodes: rollback, retry, release"}
	s.addFlags(c, callTimeout)
	var out output
	list := &cobra.Command{
		Use:   "list",
		Short: "list the orders, the newest last",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) ([]api.OrderInfo, error) { return client.Orders(ctx) },
				func(infos []api.OrderInfo) *cli.Table {
					var t cli.Table
					t.Row("ORDER", "KIND", "BUNDLE", "VERSION", "FOR", "NODES", "WHEN", "RECORDED", "REASON")
					for _, i := range infos {
						o := i.Order
						when := "window"
						if o.Now || o.Kind == order.Retry {
							when = "now"
						}
						t.Row(fmt.Sprint(o.Sequence), string(o.Kind), o.Bundle, o.Version, addressees(o.Targets), fmt.Sprintf("%5d", i.Nodes), when,
							i.Recorded.UTC().Format(time.RFC3339), cli.Printable(o.Reason))
					}
					return &t
				})
		},
	}
	out.addFlags(list, "table", "json")
	c.AddCommand(list)
	return c
}
