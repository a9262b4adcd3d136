package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/build"
)

// Version is the command that says which program this is, in one line.
func Version(env Env, program string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "say which version this is",
		Args:  Args(0, 0, "nothing"),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(env.Stdout, build.Line(program))
			return err
		},
	}
}
