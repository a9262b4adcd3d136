package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
)

func newAccess(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{
		Use:   "access",
		Short: "give and take tokens of the seeder's API",
		Long: `Access makes tokens for people and programs. A token has a role: viewer reads,
operator ships bundles, policies and orders, admin does everything, and node may only
send what old scripts report. What is done with it stands in "meshctl audit" under its
name. The seeder keeps no secret: lose it, and revoke the token.`,
	}
	s.addFlags(c, callTimeout)
	c.AddCommand(newAccessCreate(s), newAccessList(s), newAccessRevoke(s))
	return c
}

func newAccessCreate(s *server) *cobra.Command {
	var out output
	var role string
	var ttl time.Duration
	c := &cobra.Command{
		Use:     "create NAME --role ROLE",
		Short:   "make a token and print it, once",
		Example: "  (umask 077; meshctl access create grafana --role viewer > grafana.token)\n  meshctl access create alice --role operator --ttl 720h",
		Args:    cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if role == "" {
				return cli.Usage(c, "--role: want viewer, operator, admin or node")
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				a, err := client.CreateAccess(ctx, api.AccessSpec{Name: args[0], Role: api.Role(role), TTLSeconds: int64(ttl / time.Second)})
				if err != nil {
					return err
				}
				if out.json {
					return cli.JSON(s.env.Stdout, a)
				}
				_, err = fmt.Fprintln(s.env.Stdout, a.Token)
				return err
			})
		},
	}
	c.Flags().StringVar(&role, "role", "", "viewer, operator, admin or node")
	c.Flags().DurationVar(&ttl, "ttl", 0, "it ends after this long; 0: it does not")
	out.addFlags(c, "text", "json")
	return c
}

func newAccessList(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "list",
		Short: "list the tokens, without their secrets",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				list, err := client.AccessList(ctx)
				if err != nil || out.json {
					return inJSON(s, list, err)
				}
				var t cli.Table
				t.Row("NAME", "ROLE", "CREATED", "BY", "EXPIRES", "LAST USED", "STATE")
				for _, a := range list {
					state := "valid"
					switch {
					case a.Revoked != nil:
						state = "revoked"
					case a.Expires != nil && a.Expires.Before(s.env.Now()):
						state = "expired"
					}
					t.Row(cli.Printable(a.Name), string(a.Role), day(&a.Created), cli.Printable(a.By), day(a.Expires), day(a.LastUsed), state)
				}
				_, err = t.WriteTo(s.env.Stdout)
				return err
			})
		},
	}
	out.addFlags(c, "table", "json")
	return c
}

func newAccessRevoke(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "end a token at once",
		Args:  cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				if err := client.RevokeAccess(ctx, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.env.Stdout, "token %s revoked\n", args[0])
				return err
			})
		},
	}
}

// inJSON prints an answer as JSON, or passes its error on.
func inJSON(s *server, v any, err error) error {
	if err != nil {
		return err
	}
	return cli.JSON(s.env.Stdout, v)
}

// day is an instant in a table; "-" is none.
func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

func newAudit(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var out output
	var limit int
	c := &cobra.Command{
		Use:   "audit",
		Short: "show who changed what, and from where",
		Long: `Audit shows the changes that were made by the API and those that were refused, the
newest last. An entry is on disk before its change begins; status 0 is a change that
was begun when the seeder ended. Entries are kept for 400 days, refusals for 30 days
and at most 100,000 of them.`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if limit < 1 || limit > 1000 {
				return cli.Usage(c, "--limit %d: want 1 to 1000", limit)
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				p, err := client.Audit(ctx, 0, limit, true)
				if err != nil || out.json {
					return inJSON(s, p.Entries, err)
				}
				var t cli.Table
				t.Row("AT", "WHO", "ROLE", "FROM", "STATUS", "ACTION", "SUBJECT")
				for _, e := range p.Entries {
					t.Row(e.At.UTC().Format(time.RFC3339), cli.Printable(e.Who), string(e.Role), cli.Printable(e.From), fmt.Sprint(e.Status), cli.Printable(e.Action), cli.Printable(e.Subject))
				}
				_, err = t.WriteTo(s.env.Stdout)
				return err
			})
		},
	}
	s.addFlags(c, callTimeout)
	out.addFlags(c, "table", "json")
	c.Flags().IntVar(&limit, "limit", 50, "the last so many, 1 to 1000")
	return c
}
