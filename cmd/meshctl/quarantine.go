package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newQuarantine(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{
		Use:   "quarantine",
		Short: "see and decide whom the fleet does not trust",
		Long: `A node puts itself under quarantine when something that it was to install, or has
installed, is not what was signed. It then starts no new installation, whatever the
policies say and with the WAN down too, until it has checked itself and found nothing,
or until an operator's signed order ends it: release. Going back is always allowed.

A person can put a node here under quarantine too: it then gets no place in a rollout.
What a policy without a rollout asks of it is not held back by that.

A source is put under quarantine when several of its neighbours accuse it: it is not
the uplink of its site.`,
	}
	s.addFlags(c, callTimeout)
	c.AddCommand(newQuarantineList(s), newQuarantineShow(s), newQuarantineAdd(s), newQuarantineRelease(s))
	return c
}

func newQuarantineList(s *server) *cobra.Command {
	var out output
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "list who is under quarantine, the newest first",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				list, err := client.Quarantines(ctx, all)
				if err != nil || out.json {
					return inJSON(s, list, err)
				}
				var t cli.Table
				t.Row("ID", "SCOPE", "WHAT", "SINCE", "REASON", "ENDS BY")
				for _, q := range list {
					ends := q.Release
					if q.Released != nil {
						ends = "released " + day(q.Released) + " by " + q.ReleasedBy
					}
					t.Row(strconv.FormatInt(q.ID, 10), string(q.Scope), cli.Printable(q.Site+"/"+q.Node), day(&q.Since), cli.Printable(q.Reason), cli.Printable(ends))
				}
				_, err = t.WriteTo(s.env.Stdout)
				return err
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "those that were released, too")
	out.addFlags(c, "table", "json")
	return c
}

func newQuarantineShow(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "show ID | SITE/NODE",
		Short: "show what is known of a quarantine",
		Args:  cli.Args(1, 1, "ID or SITE/NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				list, err := quarantinesOf(ctx, client, args[0], true)
				if err != nil || out.json {
					return inJSON(s, list, err)
				}
				for _, q := range list {
					fmt.Fprintf(s.env.Stdout, "quarantine %d  %s %s since %s, by %s\n  reason    %s", q.ID, q.Scope, cli.Printable(q.Site+"/"+q.Node), day(&q.Since), cli.Printable(q.By), cli.Printable(q.Reason))
					if q.Code != "" {
						fmt.Fprintf(s.env.Stdout, " (%s)", cli.Printable(q.Code))
					}
					if q.Evidence != "" {
						fmt.Fprintf(s.env.Stdout, "\n  evidence  %s", cli.Printable(q.Evidence))
					}
					if q.Released == nil {
						fmt.Fprintf(s.env.Stdout, "\n  ends by   %s\n", cli.Printable(q.Release))
					} else {
						fmt.Fprintf(s.env.Stdout, "\n  released  %s by %s: %s\n", day(q.Released), cli.Printable(q.ReleasedBy), cli.Printable(q.Why))
					}
				}
				return nil
			})
		},
	}
	out.addFlags(c, "text", "json")
	return c
}

func newQuarantineAdd(s *server) *cobra.Command {
	var scope, reason string
	c := &cobra.Command{
		Use:     "add SITE/NODE --reason TEXT",
		Short:   "put a node, or a source, under quarantine",
		Example: `  meshctl quarantine add store-0417/pos-07 --reason "was opened by a stranger"`,
		Args:    cli.Args(1, 1, "SITE/NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			site, node, err := place(c, args)
			if err != nil {
				return err
			}
			if node == "" {
				return cli.Usage(c, "%q: want SITE/NODE", args[0])
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				q, err := client.AddQuarantine(ctx, api.QuarantineSpec{Scope: api.QuarantineScope(scope), Site: site, Node: node, Reason: reason})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.env.Stdout, "quarantine %d: %s %s/%s\n", q.ID, q.Scope, q.Site, q.Node)
				return err
			})
		},
	}
	c.Flags().StringVar(&scope, "scope", "node", "node: it gets no place in a rollout; source: it is not the uplink")
	c.Flags().StringVar(&reason, "reason", "", "why; it is kept")
	return c
}

// quarantinesOf finds entries by number, or by SITE/NODE.
func quarantinesOf(ctx context.Context, client *api.Client, what string, all bool) (out []api.QuarantineEntry, err error) {
	list, err := client.Quarantines(ctx, all)
	if err != nil {
		return nil, err
	}
	for _, q := range list {
		if what == strconv.FormatInt(q.ID, 10) || strings.Contains(what, "/") && what == q.Site+"/"+q.Node {
			out = append(out, q)
		}
	}
	if len(out) == 0 {
		return nil, problem.New(problem.NotFound, "%.80q is not under quarantine", what).WithNext("meshctl quarantine list")
	}
	return out, nil
}
