package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// watchAgain is how long after a stream broke it is opened anew.
const watchAgain = 2 * time.Second

func newWatch(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var out output
	var kinds []string
	c := &cobra.Command{
		Use:   "watch",
		Short: "show what happens in the fleet as it happens",
		Long: `Watch shows events as the seeder sees them: phases of nodes, sites that fall silent
and return, policies, bundles, rollouts, quarantine. It goes on where it was when the
connection breaks, and says so where something was missed. What nodes have signed is in
"meshctl events".`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			only := map[string]bool{}
			for _, k := range kinds {
				only[k] = true
			}
			show := func(e api.Event) error {
				if len(only) > 0 && !only[e.Kind] {
					return nil
				}
				if out.format == "jsonl" {
					enc := json.NewEncoder(env.Stdout)
					enc.SetEscapeHTML(false)
					return enc.Encode(e)
				}
				_, err := fmt.Fprint(env.Stdout, eventOf(e))
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			for last := int64(0); ; {
				last, err = client.Watch(ctx, last, show, func() { fmt.Fprintln(env.Stderr, "some events were missed: meshctl status") })
				switch {
				case c.Context().Err() != nil:
					return c.Context().Err()
				case ctx.Err() != nil:
					return nil // --timeout: watched for so long
				case problem.CodeOf(err) != problem.SeederUnreachable && problem.CodeOf(err) != problem.Busy:
					return err
				}
				fmt.Fprintln(env.Stderr, err)
				t := time.NewTimer(watchAgain)
				select {
				case <-t.C:
				case <-ctx.Done():
					t.Stop()
				}
			}
		},
	}
	s.addFlags(c, 0)
	out.addFlags(c, "text", "jsonl")
	c.Flags().StringSliceVar(&kinds, "event", nil, "only this `kind`: rollout, site, node, quarantine, bundle, policy, sync; may be given several times")
	return c
}

// eventOf is an event as a line.
func eventOf(e api.Event) string {
	out := fmt.Sprintf("%s  %-8s  %-10s  %s", e.At.UTC().Format(time.RFC3339), cli.Printable(e.Severity), cli.Printable(e.Kind), cli.Printable(e.Text))
	if e.Code != "" {
		out += " (" + cli.Printable(e.Code) + ")"
	}
	return out + "\n"
}
