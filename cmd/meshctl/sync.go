package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newSync(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var out output
	var now bool
	var accept, reason string
	c := &cobra.Command{
		Use:   "sync",
		Short: "show how the seeder follows its Git repository",
		Long: `Sync shows which commit is in force, who signed it, and why the newest one is not, if
it is not. With --now the seeder looks at the repository first.

A commit that takes more than a fifth of the managed nodes away from their policies
waits for a person: --accept-prune lets exactly that commit in.`,
		Example: `  meshctl sync --now
  meshctl sync --accept-prune 3f9c1ab --reason "12 stores are closed"`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if (accept != "") != (reason != "") {
				return cli.Usage(c, "--accept-prune and --reason belong together")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			st, err := syncState(ctx, client, now, accept, reason)
			if err != nil {
				return err
			}
			if out.json {
				err = cli.JSON(env.Stdout, st)
			} else {
				printSync(env.Stdout, st, env.Now())
			}
			if err == nil && st.Problem != "" {
				err = cli.Status(problem.ExitDegraded)
			}
			return err
		},
	}
	s.addFlags(c, 5*time.Minute) // a first fetch takes its time
	c.Flags().BoolVar(&now, "now", false, "have the seeder look at the repository, and wait")
	c.Flags().StringVar(&accept, "accept-prune", "", "let this held `commit` in, which removes much")
	c.Flags().StringVar(&reason, "reason", "", "why; kept in the audit log")
	out.addFlags(c, "text", "json")
	return c
}

func syncState(ctx context.Context, client *api.Client, now bool, accept, reason string) (api.SyncState, error) {
	switch {
	case accept != "":
		return client.AcceptPrune(ctx, api.PruneAccept{Commit: accept, Reason: reason})
	case now:
		return client.SyncNow(ctx)
	}
	return client.Sync(ctx)
}

func printSync(w io.Writer, s api.SyncState, now time.Time) {
	if s.Repository == "" {
		fmt.Fprintln(w, "this seeder follows no Git repository")
		return
	}
	ago := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return cli.Age(now.Sub(*t)) + " ago"
	}
	fmt.Fprintf(w, "repository  %s, branch %s\n", s.Repository, s.Branch)
	if s.Commit == "" {
		fmt.Fprintln(w, "in force    no commit yet")
	} else {
		fmt.Fprintf(w, "in force    %.12s %s\n            by %s, signed by %s, applied %s\n", s.Commit, s.Subject, s.Author, s.Signer, ago(s.Applied))
	}
	fmt.Fprintf(w, "checked     %s\n", ago(s.Checked))
	if s.Problem == "" {
		return
	}
	fmt.Fprintf(w, "! %s: %s\n", s.Code, strings.TrimPrefix(s.Problem, s.Code+": "))
	if s.Refused != "" {
		fmt.Fprintf(w, "            commit %.12s is not in force; tried %d times\n", s.Refused, s.Failures)
	}
	if s.Held != nil {
		fmt.Fprintf(w, "            it waits since %s; if it is meant: meshctl sync --accept-prune %.12s --reason TEXT\n", ago(&s.Held.Since), s.Held.Commit)
	}
}
