package main

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/seeder"
)

// gcPercent is how much garbage there may be for what is in use. With a thousand sites that is mostly the state of their
// sessions, which does not change: collecting twice as often costs little and halves the garbage. GOGC wins over it.
const gcPercent = 40

func newServe(env cli.Env) *cobra.Command {
	o := defaults()
	var file string
	var logs cli.Log
	c := &cobra.Command{
		Use:   "serve",
		Short: "serve sites and administrators until stopped",
		Long: `serve serves until SIGINT or SIGTERM, then lets requests end and writes what is in
memory; a second signal ends it at once. It can be killed at any time: what was
acknowledged is on disk.

When it serves it prints one line that begins with "ready", and STATE/admin.json
holds what meshctl needs: meshctl --config STATE/admin.json status`,
		Args: cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.load(c, file)
			if err != nil {
				return err
			}
			cfg.Logger, cfg.Now = logs.Logger(env), env.Now
			if env.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			s, err := seeder.New(c.Context(), cfg)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "ready mesh %s api %s peer %s\n", s.MeshAddr(), strings.Join(s.Access().URLs, " "), s.PeerID())
			if err := cli.NotifyReady(env); err != nil {
				cfg.Logger.Warn("nobody was told", "err", err)
			}
			return s.Run(c.Context())
		},
	}
	o.addFlags(c)
	c.Flags().StringVar(&file, "config", "", "YAML configuration `file`; flags win over it")
	logs.AddFlags(c, "log connections and refusals too")
	return c
}
