package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// complianceFlags of "meshctl compliance".
type complianceFlags struct {
	server
	out           output
	asOf, knownAt string
	q             api.ComplianceQuery
}

func newCompliance(env cli.Env) *cobra.Command {
	f := &complianceFlags{server: server{env: env}}
	c := &cobra.Command{
		Use:   "compliance",
		Short: "show which bundle each node ran at a time",
		Long: `Compliance shows, for each node and bundle, what was in force at one time by what
was known at another. It goes by receipts, which the nodes have signed. A node that
was silent is shown with the last that is known, one that never said anything as
well. The same question has the same answer whenever it is asked.

A time is RFC 3339, or a date, which means the end of that day in UTC, or now if
the day is not over.`,
		Example: `  meshctl compliance --as-of 2026-03-12
  meshctl compliance --as-of 2026-03-12 --known-at 2026-03-12 -o csv
  meshctl compliance --policy retail-pos-prod -l role=pos`,
		Args: cli.Args(0, 0, ""),
		RunE: f.run,
	}
	f.addFlags(c, callTimeout)
	f.out.addFlags(c, "table", "csv", "json", "jsonl")
	c.Flags().StringVar(&f.asOf, "as-of", "", "the time that is asked about; now if not given")
	c.Flags().StringVar(&f.knownAt, "known-at", "", "leave out what was recorded later; now if not given")
	c.Flags().StringVar(&f.q.Site, "site", "", "of this site only")
	c.Flags().StringVar(&f.q.Policy, "policy", "", "under this policy only")
	c.Flags().StringVar(&f.q.Bundle, "bundle", "", "of this bundle name only")
	c.Flags().StringVarP(&f.q.Selector, "selector", "l", "", "nodes with these labels: KEY=VALUE,...")
	return c
}

// instant reads a time or a date.
func instant(c *cobra.Command, flag, s string, now time.Time) (time.Time, error) {
	if s == "" || s == "now" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return t, cli.Usage(c, "--%s %q: want 2026-03-12 or 2026-03-12T10:00:00Z", flag, s)
	}
	if t = t.AddDate(0, 0, 1).Add(-time.Microsecond); t.After(now) {
		return time.Time{}, nil
	}
	return t, nil
}

func (f *complianceFlags) run(c *cobra.Command, _ []string) (err error) {
	if err := f.out.check(c); err != nil {
		return err
	}
	now := time.Now()
	if f.q.AsOf, err = instant(c, "as-of", f.asOf, now); err != nil {
		return err
	}
	if f.q.KnownAt, err = instant(c, "known-at", f.knownAt, now); err != nil {
		return err
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	all := api.CompliancePage{Rows: []api.ComplianceRow{}}
	f.q.Limit = 1000 // as many as a page may have
	for {
		page, err := f.page(c.Context(), client)
		if err != nil {
			return err
		}
		all.AsOf, all.KnownAt, all.Rows = page.AsOf, page.KnownAt, append(all.Rows, page.Rows...)
		if page.Next == "" {
			break
		}
		f.q.After, f.q.AsOf, f.q.KnownAt = page.Next, page.AsOf, page.KnownAt
	}
	return showCompliance(f.env.Stdout, f.out.format, all)
}

func (f *complianceFlags) page(ctx context.Context, client *api.Client) (api.CompliancePage, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	return client.Compliance(ctx, f.q)
}

func showCompliance(w io.Writer, format string, p api.CompliancePage) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	switch format {
	case "json":
		return e.Encode(p)
	case "jsonl":
		for _, r := range p.Rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	case "csv":
		return complianceCSV(w, p.Rows)
	}
	fmt.Fprintf(w, "AS OF %s   KNOWN AT %s\n\n", p.AsOf.Format(time.RFC3339), p.KnownAt.Format(time.RFC3339))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tBUNDLE\tVERSION\tSINCE\tPOLICY\tOUTCOME\tSOURCE\tNOTE")
	for _, r := range p.Rows {
		note := ""
		if r.LastKnown {
			note = "silent: last known"
		}
		if r.Gap {
			note = join(note, "receipts are missing")
		}
		if r.Revoked {
			note = join(note, "revoked")
		}
		policy := r.Policy
		if r.Revision > 0 {
			policy += "@" + strconv.FormatUint(r.Revision, 10)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", nodeName(r), dash(r.Bundle), dash(r.Version), dash(moment(r.Since)), dash(policy), dash(r.Outcome), r.Source, note)
	}
	return t.Flush()
}

func complianceCSV(w io.Writer, rows []api.ComplianceRow) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"node", "bundle", "version", "checksum", "since", "policy", "commit", "signed_by", "snapshot", "receipt", "occurred_at", "recorded_at",
		"outcome", "last_known", "source", "gap", "revoked"})
	for _, r := range rows {
		_ = c.Write([]string{nodeName(r), r.Bundle, r.Version, digestText(r.Checksum), moment(r.Since), r.Policy, r.Commit, r.SignedBy, r.Snapshot, digestText(r.Receipt),
			moment(r.Occurred), moment(r.Recorded), r.Outcome, strconv.FormatBool(r.LastKnown), r.Source, strconv.FormatBool(r.Gap), strconv.FormatBool(r.Revoked)})
	}
	c.Flush()
	return c.Error() // of any of the lines
}

func nodeName(r api.ComplianceRow) string {
	if r.Site == "" {
		return r.Node
	}
	return r.Site + "/" + r.Node
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

func digestText(d *manifest.Digest) string {
	if d == nil {
		return ""
	}
	return d.String()
}

func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
