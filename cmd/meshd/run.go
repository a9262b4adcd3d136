package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/node"
)

func newRun(env cli.Env) *cobra.Command {
	var s settings
	var logs cli.Log
	c := &cobra.Command{
		Use:   "run",
		Short: "take part in the site until stopped",
		Long: `run takes part in the site until SIGINT or SIGTERM. An installer under way is waited for.
Before it ends it gives the uplink lease back and stays for a while where neighbours want what only
this node has (leaveTimeout). A second signal ends the daemon at once (the installer goes on by itself).`,
		Args: cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			log := logs.Logger(env)
			cfg.LimitMemory()
			if err := cfg.GiveWay(); err != nil {
				log.Warn("the daemon runs at the priority of other programs", "err", err)
			}
			n, err := node.New(cfg, log)
			if err != nil {
				return err
			}
			site, name := n.Name()
			log.Info("ready", "site", site, "node", name, "peer", n.ID(), "mesh", n.Addr(), "gossip", n.GossipAddr(), "socket", cfg.Socket)
			fmt.Fprintf(env.Stdout, "ready %s/%s mesh %s gossip %s\n", site, name, n.Addr(), n.GossipAddr())
			if err := cli.NotifyReady(env); err != nil {
				log.Warn("nobody was told", "err", err)
			}
			return n.Run(c.Context())
		},
	}
	s.addFlags(c)
	s.addRunFlags(c)
	logs.AddFlags(c, "log what neighbours cannot be reached, and more")
	return c
}
