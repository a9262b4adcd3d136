// Meshd is the daemon on every node: it joins a site, shares bundles with its neighbours, stages what the policy in
// force asks for and has it installed by mesh-install. It needs no privileges. Everything it decides is in package
// node; here are flags, signals and words.
package main

import (
	"os"
	_ "time/tzdata" // a small machine may have none installed

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
)

func main() {
	env := cli.System()
	os.Exit(cli.Main(env, newRoot(env)))
}

func newRoot(env cli.Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshd",
		Short: "the daemon on every node of a site",
		Long: `meshd shares patch bundles inside a site: one node takes each chunk over the WAN once,
the nodes pass it on over the LAN, and every node verifies and installs by itself.

A node joins once with a token from "meshctl site token SITE", then runs.
Files: state /var/lib/meshd, socket /run/meshd/meshd.sock, configuration
/etc/meshd/meshd.yaml (all may be set by flags).`,
		Example: `  meshd join --name pos-01 pmt1_...
  meshd run
  meshctl status`,
	}
	root.AddCommand(newJoin(env), newRun(env), newLeave(env), newFsck(env), cli.Version(env, "meshd"))
	return root
}
