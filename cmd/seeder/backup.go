package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/seeder"
)

func newBackup(env cli.Env) *cobra.Command {
	o := defaults()
	var to string
	c := &cobra.Command{
		Use:   "backup --to FILE",
		Short: "write the database and the keys to one file, while the seeder runs",
		Long: `backup writes the whole database as it is at one instant, and the seeder's keys
(identity.pem, roster.key, admin.token), to a new file. The seeder may be running and is
not held up. Keep the file as secret as the state directory: who has it can be the seeder.

Chunks are not in it: after a restore push the bundles again, or copy STATE/store back
before it; "seeder fsck" says what is missing.

The file is the same whether the database is SQLite or PostgreSQL, and can be restored
into either: that is also the way from one to the other.`,
		Args: cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			if to == "" {
				return cli.Usage(c, "--to is not given")
			}
			source, err := o.Database.source(c)
			if err != nil {
				return err
			}
			res, err := seeder.Backup(c.Context(), o.State, source, to, env.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "%s: %s and the keys, database version %d\n", cli.Printable(to), cli.Count(int(res.Rows), "row"), res.Version)
			return err
		},
	}
	c.Flags().StringVar(&to, "to", "", "new `file`")
	c.Flags().StringVar(&o.State, "state", o.State, "state `directory`")
	o.Database.addFlags(c)
	return c
}

func newRestore(env cli.Env) *cobra.Command {
	o := defaults()
	var from string
	c := &cobra.Command{
		Use:   "restore --from FILE",
		Short: "fill an empty state directory and an empty database from a backup",
		Long: `restore reads the whole file and verifies it before it writes anything. Then it puts back
the keys and, in one transaction, the database: all of it or nothing. What is not empty is
refused. A backup of an older seeder is brought to this one's version.

What was recorded after the backup was made is gone. Do not let two seeders with the same
keys run: stop the old one for good.`,
		Args: cli.Args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			if from == "" {
				return cli.Usage(c, "--from is not given")
			}
			source, err := o.Database.source(c)
			if err != nil {
				return err
			}
			res, err := seeder.Restore(c.Context(), o.State, source, from)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "%s restored, as of %s; chunks are not in a backup: seeder fsck says which bundles to push again\n",
				cli.Count(int(res.Rows), "row"), res.Created.Format("2006-01-02 15:04:05 MST"))
			return err
		},
	}
	c.Flags().StringVar(&from, "from", "", "backup `file`")
	c.Flags().StringVar(&o.State, "state", o.State, "state `directory`")
	o.Database.addFlags(c)
	return c
}
