package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder"
)

func newFsck(env cli.Env) *cobra.Command {
	o := defaults()
	var repair, asJSON bool
	c := &cobra.Command{
		Use:   "fsck",
		Short: "read every chunk and the database and look for damage",
		Long: `fsck reads the whole store of a seeder that is not running, compares every chunk with
its identity, lets the database check itself, and names the chunks that published
bundles lack. With --repair it removes what is damaged; push the bundles again to
bring it back. It ends with status 5 if there was damage.`,
		Args: cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			source, err := o.Database.source(c)
			if err != nil {
				return err
			}
			res, err := seeder.Fsck(c.Context(), o.State, source, repair, func(f store.Finding) {
				if !asJSON {
					fmt.Fprintf(env.Stdout, "%s %s repaired=%v\n", f.Kind, cli.Printable(f.Path), f.Repaired)
				}
			})
			if err != nil {
				return err
			}
			if asJSON {
				err = cli.JSON(env.Stdout, res)
			} else {
				_, err = fmt.Fprintf(env.Stdout, "%s good, %s; %s in published bundles missing\n",
					cli.Count(res.Store.Chunks, "chunk"), cli.Bytes(res.Store.Bytes), cli.Count(res.Lacking, "chunk"))
			}
			if err != nil || res.Clean() {
				return err
			}
			e := problem.New(problem.StoreDamaged, "the store in %s has damage", o.State)
			if repair {
				return e.WithDone("%s removed", cli.Count(res.Store.Repaired, "file")).WithNext("start the seeder and push the bundles again: only what is missing is sent")
			}
			return e.WithNext("run seeder fsck --repair, start the seeder and push the bundles again")
		},
	}
	c.Flags().StringVar(&o.State, "state", o.State, "state `directory`")
	o.Database.addFlags(c)
	c.Flags().BoolVar(&repair, "repair", false, "remove what is damaged")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}
