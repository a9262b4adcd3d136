package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newLeave(env cli.Env) *cobra.Command {
	var s settings
	var timeout time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use:   "leave",
		Short: "end the daemon as soon as its neighbours can do without it",
		Long: `leave asks the daemon on this machine to leave its site, before a reboot or for good:
it gives the uplink lease back, asks for nothing more, stays while a neighbour wants
chunks that no other node within reach has, at most for --timeout, and ends. What is
then still only here is said, and leave ends with status 5: the neighbours get it when
this node is back, or over the WAN.`,
		Example: "  meshd leave --timeout 10m && reboot",
		Args:    cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			client, err := api.NewNodeClient(cfg.Socket)
			if err != nil {
				return err
			}
			defer client.CloseIdle()
			ctx, cancel := context.WithTimeout(c.Context(), timeout+time.Minute)
			defer cancel()
			r, err := client.Leave(ctx, timeout)
			if err != nil {
				return err
			}
			if asJSON {
				err = cli.JSON(env.Stdout, r)
			} else if r.OnlyHere == 0 {
				_, err = fmt.Fprintf(env.Stdout, "left after %s: the neighbours have what they want\n", cli.Age(time.Duration(r.WaitedMillis)*time.Millisecond))
			}
			if err != nil || r.OnlyHere == 0 {
				return err
			}
			return problem.New(problem.NeedsAttention, "%s that neighbours want are only on this node", cli.Bytes(r.OnlyHere)).
				WithDone("the daemon has left all the same").WithNext("start it again, or they fetch that over the WAN")
		},
	}
	s.addFlags(c)
	c.Flags().StringVar(&s.socket, "socket", "", "path of the local socket")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long the daemon may stay for its neighbours")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}
