package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
)

func newPolicyHistory(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "history NAME",
		Short: "list all revisions of a policy: what it asked for, when, signed by whom",
		Args:  cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) ([]api.PolicyRevision, error) {
				return client.PolicyHistory(ctx, args[0])
			},
				historyTable)
		},
	}
	out.addFlags(c, "table", "json")
	return c
}

func historyTable(revisions []api.PolicyRevision) *cli.Table {
	var t cli.Table
	t.Row("REVISION", "CREATED", "BUNDLE", "VERSION", "CHECKSUM", "COMMIT", "SIGNED-BY", "")
	for _, r := range revisions {
		note, checksum := "", r.Checksum.Short()
		switch {
		case r.Deleted:
			note, checksum = "deleted", "-"
		case r.Reverts > 0:
			note = fmt.Sprintf("reverts %d", r.Reverts)
		}
		t.Row(fmt.Sprintf("%8d", r.Revision), r.Created.UTC().Format(time.RFC3339), dash(r.Bundle), dash(r.Version), checksum,
			dash(r.Commit[:min(len(r.Commit), 7)]), dash(r.SignedBy), note)
	}
	return &t
}
