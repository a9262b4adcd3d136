package main

import (
	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy/schemadoc"
)

func newPolicySchema(env cli.Env) *cobra.Command {
	return printed(env, "schema", schemadoc.JSON, "print the JSON Schema of policies, for editors",
		`Schema prints the JSON Schema (draft 2020-12) of PatchPolicy. An editor that knows it
completes fields and underlines what is wrong; "meshctl lint" checks more.`,
		`  meshctl policy schema > patchpolicy.schema.json
  # first line of a policy:
  # yaml-language-server: $schema=patchpolicy.schema.json`)
}

func newPolicyCRD(env cli.Env) *cobra.Command {
	return printed(env, "crd", schemadoc.CRD, "print the Kubernetes definition of policies",
		`Crd prints the CustomResourceDefinition of PatchPolicy, so that a cluster can keep
policies. Nothing in the cluster acts on them.`,
		`  meshctl policy crd | kubectl apply -f -`)
}

// printed is a command that prints a generated document.
func printed(env cli.Env, name string, generate func() ([]byte, error), short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Long: long, Example: example,
		Args: cli.Args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			b, err := generate()
			if err != nil {
				return err
			}
			_, err = env.Stdout.Write(b)
			return err
		},
	}
}
