package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newDiff(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var files policyFlags
	var prune bool
	var against []string
	var save string
	var out output
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "say what policies would change: nodes, bytes, windows, the projected finish",
		Long: `Diff gives the policies to the seeder, which says what they would change and changes
nothing: fields, nodes and sites, conflicts, what crosses the WANs, sites that are
not staged before their window, windows, batches, and when it would be done.

The finish is the earliest: installs that take long and nodes that are away make it
later. It ends with 1 when there are changes, as diff does.

--offline asks nobody. It takes what is in force from a directory, which is laid out as
the Git repository is or holds nothing but policies, or from a file that --save-state
wrote; several add up, and the last one counts. A directory knows no nodes; from a state
bytes are the most that may cross the WANs.`,
		Example: `  meshctl diff -f policy.yaml
  meshctl diff -f policies/ --prune
  meshctl diff --save-state fleet.json
  meshctl diff -f policies/ --prune --offline fleet.json --offline ../main`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if save != "" {
				return s.do(c, func(ctx context.Context, client *api.Client) error { return saveState(ctx, client, save, env.Stdout) })
			}
			if err := files.check(c); err != nil {
				return err
			}
			if len(against) > 0 {
				p, err := planOffline(env, files, against, prune)
				if err != nil {
					return err
				}
				if out.forPeople() {
					offlineNote(env.Stdout, p)
				}
				return showPlan(env.Stdout, &out, *p)
			}
			p, err := planOf(c, s, files, prune)
			if err != nil {
				return err
			}
			return showPlan(env.Stdout, &out, p)
		},
	}
	s.addFlags(c, callTimeout)
	files.addFlags(c)
	c.Flags().StringArrayVar(&against, "offline", nil, "compare with what is in force by this `path`, a directory or a saved state, and ask nobody; may be given several times")
	c.Flags().StringVar(&save, "save-state", "", "write what a plan goes by to this `file`, for --offline")
	c.Flags().BoolVar(&prune, "prune", false, "policies in force that are not in the files go, as they do from Git")
	out.addFlags(c, "text", "json", "yaml")
	return c
}

func planOf(c *cobra.Command, s *server, files []string, prune bool) (api.Plan, error) {
	texts, err := readPolicies(s.env, files)
	if err != nil {
		return api.Plan{}, err
	}
	q := api.PlanRequest{Policies: []api.PlanFile{}, Prune: prune}
	for _, t := range texts {
		q.Policies = append(q.Policies, api.PlanFile{File: t.file, Text: string(t.text)})
	}
	client, err := s.client()
	if err != nil {
		return api.Plan{}, err
	}
	ctx, cancel := s.within(c.Context())
	defer cancel()
	return client.Plan(ctx, q)
}

// showPlan prints a plan and returns what it comes to: an error that stands in the way, or exit status 1 for changes.
func showPlan(w io.Writer, out *output, p api.Plan) error {
	var err error
	if out.format == "text" {
		err = drawPlan(w, p)
	} else {
		err = out.structured(w, p, nil)
	}
	if err != nil {
		return err
	}
	for _, x := range p.Warnings {
		if x.Error {
			return problem.New(problem.Code(x.Code), "%s", x.Text).WithDone("nothing was changed")
		}
	}
	if p.Changed() {
		return cli.Status(problem.ExitFailure)
	}
	return nil
}

// listed is how many late sites and fields a plan names.
const listed = 8

func drawPlan(w io.Writer, p api.Plan) error {
	var b strings.Builder
	for _, c := range p.Changes {
		drawChange(&b, c)
	}
	if !p.Changed() {
		b.WriteString("nothing changes\n")
	}
	for _, x := range p.Warnings {
		if !x.Error { // an error is the end of the command
			fmt.Fprintf(&b, "  ! warning[%s]: %s\n", x.Code, cli.Printable(x.Text))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func drawChange(w io.Writer, c plan.Change) {
	sign := map[string]string{plan.Add: "+", plan.Modify: "~", plan.Remove: "-", plan.Same: "="}[c.Action]
	fmt.Fprintf(w, "%s PatchPolicy/%s   %s %s\n", sign, cli.Printable(c.Policy), cli.Printable(c.Bundle), cli.Printable(c.Version))
	if c.Action == plan.Same {
		return
	}
	for i, f := range c.Fields {
		if i == listed {
			fmt.Fprintf(w, "  ... %s\n", cli.Count(len(c.Fields)-i, "more field"))
			break
		}
		fmt.Fprintf(w, "  %s  %s -> %s\n", cli.Printable(f.Path), dash(f.Was), dash(f.Is))
	}
	var t cli.Table
	t.Row("  matches", fmt.Sprintf("%s in %s   (was %d)", cli.Count(c.Nodes, "node"), cli.Count(c.Sites, "site"), c.NodesWere))
	if c.Action == plan.Remove {
		fmt.Fprintf(w, "  %s are not managed any more; their software stays\n", cli.Count(c.NodesWere, "node"))
		return
	}
	revoked := 0
	if c.Revoked {
		revoked = 1
	}
	t.Row("  conflicts", fmt.Sprintf("%d   downgrades %d   revoked %d", len(c.Conflicts), c.Downgrades, revoked))
	staged := "nothing to send"
	if c.WANBytes > 0 {
		staged = fmt.Sprintf("%s over the WANs, at most %s a site", cli.Bytes(c.WANBytes), cli.Bytes(c.SiteBytes))
		if c.StagedBy != nil {
			staged += "; staged by " + c.StagedBy.UTC().Format("Mon 2006-01-02 15:04 MST")
		}
	}
	t.Row("  transfer", staged)
	for i, l := range c.Late {
		if i == listed {
			t.Row("", fmt.Sprintf("... %s late", cli.Count(len(c.Late)-i, "more site")))
			break
		}
		t.Row("", lateLine(l))
	}
	t.Row("  schedule", scheduleLine(c))
	_, _ = t.WriteTo(w) // a strings.Builder takes everything
}

func lateLine(l plan.Late) string {
	rate := ""
	if l.Rate > 0 {
		rate = cli.Rate(l.Rate) + ", "
	}
	if l.Late == 0 {
		return fmt.Sprintf("%s never: %s", cli.Printable(l.Site), cli.Printable(l.Reason))
	}
	return fmt.Sprintf("%s late by %s (%s%s)", cli.Printable(l.Site), cli.Age(l.Late), rate, cli.Printable(l.Reason))
}

// scheduleLine says "100 batches, 8 a window -> 13 windows -> finishes 2026-11-17 at the earliest".
func scheduleLine(c plan.Change) string {
	if c.Finish == nil {
		return "no projected finish: " + cli.Printable(c.Why)
	}
	batches := "1 batch"
	if c.Batches != 1 {
		batches = fmt.Sprintf("%d batches", c.Batches)
	}
	return fmt.Sprintf("%s, %d a window -> %s -> finishes %s at the earliest", batches, c.PerWindow, cli.Count(c.Count, "window"), c.Finish.UTC().Format(time.DateOnly))
}
