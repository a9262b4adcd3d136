// Meshctl is the operator's and the build server's program: it makes keys and bundles, sends them to the seeder,
// applies policies and shows what every node is doing. It keeps no state of its own. What a bundle is, who may sign
// and what a policy means is decided in the packages below; here are only flags, words and screens.
package main

import (
	"os"
	_ "time/tzdata" // sites have time zones, and a build server's container may have none installed

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
)

func main() {
	env := cli.System()
	os.Exit(cli.Main(env, newRoot(env)))
}

func newRoot(env cli.Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshctl",
		Short: "build, sign and ship patch bundles, and see what every node is doing",
		Long: `meshctl builds and signs patch bundles, sends them to the seeder, applies policies
and shows the state of every site and node.

On a node it needs no configuration: "meshctl status" asks the local daemon, and
works with the WAN down. Elsewhere, name the seeder in
~/.config/meshctl/config.yaml, in MESHCTL_SERVER or with --server.`,
		Example: `  meshctl key generate release
  meshctl bundle build --name app --version 1.2 --sequence 12 --format files \
      --target-os any --from ./app --key release.key
  meshctl bundle push app-1.2.bundle
  meshctl apply -f policy.yaml --key operator.key
  meshctl status`,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetHelpTemplate(helpTemplate)
	root.AddCommand(newKey(env), newBundle(env), newSite(env), newApply(env), newDiff(env), newLint(env), newPolicy(env), newStatus(env), newWhy(env), newEvents(env), newCompliance(env), newHistory(env), newReceipt(env), newNode(env), newDoctor(env), newRollback(env), newRetry(env), newOrder(env), newRollout(env), newSync(env), newQuarantine(env), newWatch(env), newWebhook(env), newAccess(env), newAudit(env), newExplain(env), cli.Version(env, "meshctl"))
	completeNames(env, root)
	return root
}

// helpTemplate is cobra's, with the exit statuses at the end of every command: scripts depend on them.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}{{if not .HasSubCommands}}
Exit status:
  0 done, or nothing to do      5 verification failed
  1 failed                      6 conflict with what is there
  2 wrong use, invalid file     7 permission denied
  3 done, but degraded          8 time ran out
  4 server unreachable         10 not found          130 interrupted
{{end}}`
