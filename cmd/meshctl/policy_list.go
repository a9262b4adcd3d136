package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newPolicyList(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "list",
		Short: "list the newest revision of every policy",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) ([]api.PolicyInfo, error) { return client.Policies(ctx) }, out.policyTable)
		},
	}
	out.addFlags(c, "table", "wide", "json", "yaml")
	return c
}

func newPolicyGet(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "show one policy",
		Long: `Get shows the newest revision of a policy. -o text prints it as it was written, fit
for "meshctl apply -f -".`,
		Example: `  meshctl policy get retail-pos-prod -o text`,
		Args:    cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			ask := func(ctx context.Context, client *api.Client) (api.PolicyInfo, error) {
				return policyInForce(ctx, client, args[0])
			}
			if out.format != "text" || out.json {
				return answer(c, s, &out, ask, func(i api.PolicyInfo) *cli.Table { return out.policyTable([]api.PolicyInfo{i}) })
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				i, err := ask(ctx, client)
				if err == nil && i.Deleted {
					err = problem.New(problem.NotFound, "policy %s is deleted", args[0]).WithNext("meshctl policy history %s", args[0])
				}
				if err == nil {
					_, err = io.WriteString(s.env.Stdout, current(i))
				}
				return err
			})
		},
	}
	out.addFlags(c, "table", "wide", "json", "yaml", "text")
	return c
}

// policyInForce asks for the newest revision of one policy.
func policyInForce(ctx context.Context, client *api.Client, name string) (api.PolicyInfo, error) {
	infos, err := client.Policies(ctx)
	if err != nil {
		return api.PolicyInfo{}, err
	}
	i := find(infos, name)
	if i.Revision == 0 {
		err = problem.New(problem.NotFound, "there is no policy %s", name).WithNext("meshctl policy list")
	}
	return i, err
}

func (o *output) policyTable(infos []api.PolicyInfo) *cli.Table {
	var t cli.Table
	head := []string{"POLICY", "REVISION", "STATE", "BUNDLE", "VERSION", "CHECKSUM", "CREATED"}
	if o.wide() {
		head = append(head, "PRIORITY", "COMMIT", "WINDOW", "SELECTS")
	}
	t.Row(head...)
	for _, i := range infos {
		p, state, checksum := parsed(i), "in force", i.Checksum.Short()
		switch {
		case i.Deleted:
			state, checksum = "deleted", "-"
		case p != nil && p.Suspend:
			state = "suspended"
		}
		row := []string{i.Name, fmt.Sprintf("%8d", i.Revision), state, dash(i.Bundle), dash(i.Version), checksum, i.Created.UTC().Format(time.RFC3339)}
		if o.wide() {
			row = append(row, policyCells(i, p)...)
		}
		t.Row(row...)
	}
	return &t
}

// policyCells are what the wide table says beside.
func policyCells(i api.PolicyInfo, p *policy.Policy) []string {
	if p == nil {
		return []string{"-", "-", "-", "-"}
	}
	commit, window := "", p.Schedule.Windows
	if d, err := policy.Read(i.Document); err == nil && d.Commit != nil {
		commit = d.Commit.ID[:min(len(d.Commit.ID), 7)]
	}
	if window != "" {
		window += " " + p.Schedule.Zone
	}
	selects := p.Selector.String()
	if !p.Exclude.IsZero() {
		selects += ", not " + p.Exclude.String()
	}
	return []string{fmt.Sprintf("%8d", p.Priority), dash(commit), dash(window), dash(selects)}
}
