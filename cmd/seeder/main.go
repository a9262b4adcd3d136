// Seeder is the data-centre program: it keeps bundles, serves one uplink of each site, and holds the management API.
// What it does is decided in package seeder; here are only flags, the configuration file and the life of the process.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
)

func main() {
	env := cli.System()
	os.Exit(cli.Main(env, newRoot(env)))
}

func newRoot(env cli.Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "seeder",
		Short: "the data-centre side of patchmesh",
		Long: `seeder keeps bundles, sends each site what it needs once, and holds the management
API that meshctl speaks.

It makes its keys when it is first started. Back it up with "seeder backup": with a new
identity every node would have to join again.`,
		Example: `  seeder serve --state /var/lib/seeder --listen-mesh 0.0.0.0:7400 --listen-api 0.0.0.0:7443 \
      --advertise-mesh seed.example.com:7400 --advertise-api seed.example.com:7443 \
      --release-key release.pub --policy-key operator.pub`,
	}
	root.AddCommand(newServe(env), newFsck(env), newBackup(env), newRestore(env), cli.Version(env, "seeder"))
	return root
}
