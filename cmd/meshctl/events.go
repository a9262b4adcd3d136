package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// eventFlags of "meshctl events".
type eventFlags struct {
	server
	out    output
	follow bool
	every  time.Duration
	limit  int
}

func newEvents(env cli.Env) *cobra.Command {
	f := &eventFlags{server: server{env: env}}
	c := &cobra.Command{
		Use:   "events [SITE | SITE/NODE]",
		Short: "show what the nodes have reported, the newest last",
		Long: `Events shows the reports of the nodes: phases, outcomes, and what came of orders.
Each is signed by its node and kept by the seeder in the order in which it came,
which may be long after it happened. Of one node, and with -o wide, it shows the
packages that changed as well.`,
		Example: `  meshctl events store-0417
  meshctl events store-0417/pos-03 --limit 10
  meshctl events -f -o jsonl`,
		Args: cli.Args(0, 1, "SITE or SITE/NODE"),
		RunE: f.run,
	}
	f.addFlags(c, callTimeout)
	f.out.addFlags(c, "text", "wide", "json", "jsonl")
	c.Flags().IntVar(&f.limit, "limit", 50, "the last so many, 1 to 1000")
	c.Flags().BoolVarP(&f.follow, "follow", "f", false, "then show what comes, until interrupted")
	c.Flags().DurationVar(&f.every, "every", 2*time.Second, "how often --follow asks")
	return c
}

func (f *eventFlags) run(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	site, node, err := place(c, args)
	switch {
	case err != nil:
		return err
	case f.limit < 1 || f.limit > 1000:
		return cli.Usage(c, "--limit %d: want 1 to 1000", f.limit)
	case f.every <= 0:
		return cli.Usage(c, "--every %s: want more than 0", f.every)
	case f.follow && f.out.json:
		return cli.Usage(c, "-o json is one document: follow with -o jsonl")
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	page, err := f.page(c.Context(), client, api.ReportQuery{Site: site, Node: node, Limit: f.limit, Newest: true})
	if err != nil {
		return err
	}
	if len(page.Reports) == 0 && site != "" { // a name that is not known says nothing either
		if err := f.known(c.Context(), client, site, node); err != nil {
			return err
		}
	}
	wide := node != "" || f.out.format == "wide"
	if err := f.show(page, wide); err != nil || !f.follow {
		return err
	}
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for after := page.Next; ; {
		select {
		case <-c.Context().Done():
			return c.Context().Err()
		case <-tick.C:
		}
		page, err := f.page(c.Context(), client, api.ReportQuery{Site: site, Node: node, Limit: 1000, After: after})
		switch exit := problem.ExitOf(err); {
		case c.Context().Err() != nil:
			return c.Context().Err()
		case exit == problem.ExitUnreachable || exit == problem.ExitTimeout: // for a moment, maybe
			fmt.Fprintln(f.env.Stderr, err)
			continue
		case err != nil:
			return err
		}
		after = page.Next
		if err := f.show(page, wide); err != nil {
			return err
		}
	}
}

// place reads SITE or SITE/NODE.
func place(c *cobra.Command, args []string) (site, node string, err error) {
	if len(args) == 0 {
		return "", "", nil
	}
	site, node, found := strings.Cut(args[0], "/")
	if site == "" || found && node == "" || strings.Contains(node, "/") {
		return "", "", cli.Usage(c, "%q: want SITE or SITE/NODE", args[0])
	}
	return site, node, nil
}

// oneNode reads SITE/NODE.
func oneNode(c *cobra.Command, args []string) (site, node string, err error) {
	if site, node, err = place(c, args); err == nil && node == "" {
		err = cli.Usage(c, "%q: want SITE/NODE", args[0])
	}
	return site, node, err
}

func (f *eventFlags) page(ctx context.Context, client *api.Client, q api.ReportQuery) (api.ReportPage, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	return client.Reports(ctx, q)
}

func (f *eventFlags) known(ctx context.Context, client *api.Client, site, node string) error {
	ctx, cancel := f.within(ctx)
	defer cancel()
	s, err := client.Site(ctx, site)
	if err != nil || node == "" {
		return err
	}
	_, err = nodeOf(s, node)
	return err
}

func nodeOf(s status.Site, node string) (status.Seen, error) {
	for _, n := range s.Nodes {
		if n.Node.Node == node {
			return n, nil
		}
	}
	return status.Seen{}, problem.New(problem.NotFound, "site %s has no node %s", s.Site, node).WithNext("meshctl status %s", s.Site)
}

func (f *eventFlags) show(page api.ReportPage, wide bool) error {
	switch f.out.format {
	case "json":
		return cli.JSON(f.env.Stdout, page.Reports)
	case "jsonl":
		e := json.NewEncoder(f.env.Stdout)
		e.SetEscapeHTML(false)
		for _, r := range page.Reports {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range page.Reports {
		if _, err := io.WriteString(f.env.Stdout, eventText(r, wide)); err != nil {
			return err
		}
	}
	return nil
}

// eventText is one report: when it happened, where, what came of it, and below what there is to say.
func eventText(r api.RecordedReport, wide bool) string {
	b := r.Body
	out := fmt.Sprintf("%s  %-20s  %-20s  %s\n", b.Occurred.UTC().Format(time.RFC3339), cli.Printable(b.Site+"/"+b.Node), outcome(b), eventLine(r))
	for _, line := range eventDetails(b, wide) {
		out += "    " + line + "\n"
	}
	return out
}

// outcome is what came of it, or the phase that was reached.
func outcome(b status.ReportBody) string {
	if b.Outcome != "" {
		return strings.ReplaceAll(cli.Printable(b.Outcome), "_", " ")
	}
	return cli.Printable(string(b.Phase))
}

// eventLine says of what and why.
func eventLine(r api.RecordedReport) string {
	b := r.Body
	var out strings.Builder
	out.WriteString(cli.Printable(strings.TrimSpace(b.Bundle + " " + b.Version)))
	if b.Reason != "" && b.Reason != string(b.Phase) {
		fmt.Fprintf(&out, ": %s", words(b.Reason))
	}
	if b.Code != "" {
		fmt.Fprintf(&out, " (%s)", cli.Printable(b.Code))
	}
	if n := len(b.Packages) + b.More; n > 0 {
		fmt.Fprintf(&out, ", %s changed", cli.Count(n, "package"))
	}
	if b.Seconds > 0 {
		fmt.Fprintf(&out, " in %s", cli.Age(time.Duration(b.Seconds)*time.Second))
	}
	if b.Order > 0 {
		fmt.Fprintf(&out, ", order %d", b.Order)
	}
	if b.Next != nil {
		fmt.Fprintf(&out, ", next try %s", nextTry(b.Next))
	}
	if len(b.Reboot) > 0 {
		fmt.Fprintf(&out, ", reboot needed: %s", cli.Printable(strings.Join(b.Reboot, ", ")))
	}
	if late := r.Recorded.Sub(b.Occurred); late >= time.Hour {
		fmt.Fprintf(&out, " (heard of %s later)", cli.Age(late))
	}
	return out.String()
}

// eventDetails are lines that stand below.
func eventDetails(b status.ReportBody, wide bool) []string {
	out := lines(b.Detail)
	if !wide {
		return out
	}
	for _, c := range b.Packages {
		out = append(out, cli.Printable(change(c)))
	}
	if b.More > 0 {
		out = append(out, "and "+cli.Count(b.More, "more package"))
	}
	if b.Snapshot != "" {
		out = append(out, "snapshot "+cli.Printable(b.Snapshot))
	}
	return out
}

// change writes a package as "bundle diff" does: ~ changed, + new, - gone.
func change(c packages.Change) string {
	switch {
	case c.From == "":
		return fmt.Sprintf("+ %s  %s", c.ID(), c.To)
	case c.To == "":
		return fmt.Sprintf("- %s  %s", c.ID(), c.From)
	}
	return fmt.Sprintf("~ %s  %s -> %s", c.ID(), c.From, c.To)
}
