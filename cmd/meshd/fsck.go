package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newFsck(env cli.Env) *cobra.Command {
	var s settings
	var repair, asJSON bool
	c := &cobra.Command{
		Use:   "fsck",
		Short: "read every chunk of the store and compare it with its name",
		Long: `fsck reads the whole chunk store of a daemon that is not running and compares every
chunk with its identity. With --repair it removes what is damaged; the daemon fetches
it again from its neighbours. It ends with status 5 if there was damage.`,
		Args: cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			st, err := store.Open(filepath.Join(cfg.State, "chunks"), store.Options{})
			if err != nil {
				return err
			}
			defer st.Close()
			res, err := st.Fsck(c.Context(), repair, func(f store.Finding) {
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
				_, err = fmt.Fprintf(env.Stdout, "%s good, %s\n", cli.Count(res.Chunks, "chunk"), cli.Bytes(res.Bytes))
			}
			if err != nil {
				return err
			}
			if !res.Clean() {
				e := problem.New(problem.StoreDamaged, "the store in %s has damage", cfg.State)
				if repair {
					return e.WithDone("%s removed", cli.Count(res.Repaired, "file")).WithNext("start meshd: it fetches what is missing")
				}
				return e.WithNext("run meshd fsck --repair, then start meshd: it fetches what is missing")
			}
			return nil
		},
	}
	s.addFlags(c)
	c.Flags().BoolVar(&repair, "repair", false, "remove what is damaged")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}
