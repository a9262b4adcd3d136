package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
)

func newWebhook(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{
		Use:   "webhook",
		Short: "have events sent to other programs",
		Long: `A webhook gets each event as a POST with JSON, in order, again for some nine hours if
it does not answer with 2xx, and after that not any more ("meshctl webhook dead" shows
the newest 1000 of 30 days; 10,000 may wait, further ones are dropped). The header
` + api.HeaderSignature + ` is t=T,v1=H, where H is in hex the HMAC-SHA256 with the
webhook's secret over T, a dot, and the body.`,
	}
	s.addFlags(c, callTimeout)
	c.AddCommand(newWebhookAdd(s), newWebhookList(s), newWebhookRemove(s), newWebhookDead(s))
	return c
}

func newWebhookAdd(s *server) *cobra.Command {
	var spec api.WebhookSpec
	var out output
	c := &cobra.Command{
		Use:     "add NAME URL",
		Short:   "add a webhook and print its secret, once",
		Example: "  meshctl webhook add pager https://hooks.example.com/patchmesh --event quarantine --event rollout\n  meshctl webhook add alerts http://127.0.0.1:9093/api/v2/alerts --format alertmanager",
		Args:    cli.Args(2, 2, "NAME URL"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			spec.Name, spec.URL = args[0], args[1]
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				h, err := client.AddWebhook(ctx, spec)
				if err != nil || out.json {
					return inJSON(s, h, err)
				}
				_, err = fmt.Fprintln(s.env.Stdout, h.Secret)
				return err
			})
		},
	}
	c.Flags().StringSliceVar(&spec.Events, "event", nil, "`kind` of events: rollout, site, node, quarantine, bundle, policy, sync (default all)")
	c.Flags().StringVar(&spec.Format, "format", "patchmesh", "patchmesh or alertmanager")
	out.addFlags(c, "text", "json")
	return c
}

func newWebhookList(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "list",
		Short: "list the webhooks and how they do",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				list, err := client.Webhooks(ctx)
				if err != nil || out.json {
					return inJSON(s, list, err)
				}
				var t cli.Table
				t.Row("NAME", "EVENTS", "FORMAT", "DELIVERED", "WAITING", "DEAD", "LAST TRY", "URL", "PROBLEM")
				for _, h := range list {
					events := strings.Join(h.Events, ",")
					if events == "" {
						events = "all"
					}
					t.Row(cli.Printable(h.Name), cli.Printable(events), cli.Printable(h.Format), fmt.Sprint(h.Delivered), fmt.Sprint(h.Waiting), fmt.Sprint(h.Dead), day(h.LastTry), cli.Printable(h.URL), cli.Printable(h.LastError))
				}
				_, err = t.WriteTo(s.env.Stdout)
				return err
			})
		},
	}
	out.addFlags(c, "table", "json")
	return c
}

func newWebhookRemove(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "remove a webhook and all that waits for it",
		Args:  cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				if err := client.RemoveWebhook(ctx, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.env.Stdout, "webhook %s removed\n", args[0])
				return err
			})
		},
	}
}

func newWebhookDead(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "dead NAME",
		Short: "show the events that could not be delivered",
		Args:  cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				list, err := client.DeadLetters(ctx, args[0])
				if err != nil || out.json {
					return inJSON(s, list, err)
				}
				for _, l := range list {
					fmt.Fprintf(s.env.Stdout, "%s    %d tries, the last: %s\n", eventOf(l.Event), l.Tries, cli.Printable(l.Error))
				}
				return nil
			})
		},
	}
	out.addFlags(c, "text", "json")
	return c
}
