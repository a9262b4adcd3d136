package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/window"
)

// whyFlags of "meshctl why".
type whyFlags struct {
	server
	out output
}

func newWhy(env cli.Env) *cobra.Command {
	f := &whyFlags{server: server{env: env}}
	c := &cobra.Command{
		Use:   "why SITE/NODE",
		Short: "say why a node is in the state it is in, and what comes next",
		Long: `Why puts together what the seeder knows of a node: what the policy asks for and
when it may be installed, how much of it is there, what came of the last try, and
when the next one is.`,
		Example: `  meshctl why store-0417/pos-03`,
		Args:    cli.Args(1, 1, "SITE/NODE"),
		RunE:    f.run,
	}
	f.addFlags(c, callTimeout)
	f.out.addFlags(c, "text", "json")
	return c
}

// answerWhy is the JSON answer.
type answerWhy struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"` // NodeReasons
	AsOf       time.Time           `json:"asOf"`
	Timezone   string              `json:"timezone"`
	Headline   string              `json:"headline"`
	Node       status.Seen         `json:"node"`
	Policy     *api.PolicyInfo     `json:"policy,omitempty"`
	MatchedBy  map[string]string   `json:"matchedBy,omitempty"`
	AlsoMatch  []string            `json:"alsoMatched"` // other policies for the same bundle
	Window     string              `json:"window,omitempty"`
	Last       *api.RecordedReport `json:"last,omitempty"` // outcome
}

func (f *whyFlags) run(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	site, node, err := place(c, args)
	if err == nil && node == "" {
		err = cli.Usage(c, "%q: want SITE/NODE", args[0])
	}
	if err != nil {
		return err
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	ctx, cancel := f.within(c.Context())
	defer cancel()
	a, err := whyOf(ctx, client, site, node)
	if err != nil {
		return err
	}
	if f.out.json {
		return cli.JSON(f.env.Stdout, a)
	}
	return a.write(f.env.Stdout)
}

// lastReports is how far back the last outcome is looked for: between two outcomes a node says six things at most.
const lastReports = 20

func whyOf(ctx context.Context, client *api.Client, site, node string) (*answerWhy, error) {
	s, err := client.Site(ctx, site)
	if err != nil {
		return nil, err
	}
	n, err := nodeOf(s, node)
	if err != nil {
		return nil, err
	}
	policies, err := client.Policies(ctx)
	if err != nil {
		return nil, err
	}
	page, err := client.Reports(ctx, api.ReportQuery{Site: site, Node: node, Newest: true, Limit: lastReports})
	if err != nil {
		return nil, err
	}
	return reasonsOf(s, n, policies, page.Reports), nil
}

// reasonsOf puts the answer together. Pure.
func reasonsOf(s status.Site, n status.Seen, policies []api.PolicyInfo, reports []api.RecordedReport) *answerWhy {
	a := &answerWhy{APIVersion: status.APIVersion, Kind: "NodeReasons", AsOf: s.AsOf, Timezone: s.Timezone, Node: n, AlsoMatch: []string{}, Headline: headline(n)}
	for i := range policies {
		p := parsed(policies[i])
		switch {
		case p == nil:
		case n.Desired != nil && policies[i].Name == n.Desired.Policy:
			a.Policy, a.MatchedBy = &policies[i], p.Selector.Labels
			a.Window = windowLine(p, s.Timezone, s.AsOf)
		case n.Desired != nil && p.Bundle.Name == n.Desired.Bundle && p.Matches(n.Labels):
			a.AlsoMatch = append(a.AlsoMatch, p.Name)
		}
	}
	for i := len(reports) - 1; i >= 0; i-- {
		if reports[i].Body.Outcome != "" {
			a.Last = &reports[i]
			break
		}
	}
	return a
}

// windowLine says when the policy lets an install start at the site.
func windowLine(p *policy.Policy, timezone string, now time.Time) string {
	s := p.Schedule
	if s.Windows == "" && len(s.Blackouts) == 0 && s.NotBefore.IsZero() {
		return "none: at any time"
	}
	site, err := policy.LoadZone(timezone)
	if err != nil {
		site = nil
	}
	v, err := s.Decide(now, site)
	if err != nil {
		return cli.Printable(err.Error())
	}
	zone := timezone // of what is shown: the one the windows are written in
	if s.Zone != "" && s.Zone != policy.ZoneSite {
		zone = s.Zone
	}
	line := "always"
	if s.Windows != "" {
		line = fmt.Sprintf("%s %s", cli.Printable(s.Windows), cli.Printable(zone))
	}
	shut := "closed"
	if v.Reason != window.Closed {
		shut = fmt.Sprintf("%s (%s)", words(string(v.Reason)), cli.Printable(v.Text))
	}
	switch {
	case v.Start && v.Closes.IsZero():
		return line + ", open"
	case v.Start:
		line += fmt.Sprintf(", open until %s (%s)", clock(zone, v.Closes), cli.Age(v.Closes.Sub(now)))
		if s.Cutoff > 0 {
			line += "; start cut-off " + clock(zone, v.Closes.Add(-s.Cutoff))
		}
		return line
	case v.Next.IsZero():
		return fmt.Sprintf("%s, %s: it never opens", line, shut)
	}
	return fmt.Sprintf("%s, %s; opens %s (in %s)", line, shut, date(zone, v.Next), cli.Age(v.Next.Sub(now)))
}

// date is clock for a time that may be days away.
func date(timezone string, at time.Time) string {
	zone, err := time.LoadLocation(timezone)
	if err != nil {
		zone = time.UTC
	}
	return at.In(zone).Format("Mon 2006-01-02 15:04 MST")
}

// parsed is the policy in force, or nil when there is none or this program cannot read it.
func parsed(i api.PolicyInfo) *policy.Policy {
	d, err := policy.Read(i.Document)
	if i.Deleted || err != nil {
		return nil
	}
	p, err := d.Parse()
	if err != nil {
		return nil
	}
	return p
}

// headline is the answer in one sentence.
func headline(n status.Seen) string {
	what := "a bundle"
	if n.Desired != nil {
		what = n.Desired.Bundle + " " + n.Desired.Version
	}
	why := words(n.Reason)
	if first, _, _ := strings.Cut(n.Detail, "\n"); first != "" && n.Phase != status.Installed {
		why += " (" + first + ")"
	}
	var line string
	switch n.Phase {
	case status.Installed:
		line = "has what the policy asks for: " + what
		if n.Desired == nil {
			line = "keeps what it has: no policy asks it for anything"
		}
	case status.Installing:
		line = "installs " + what + " now"
	case status.Staged, status.Scheduled:
		line = "has all of " + what + " and does not install it yet: " + why
	case status.Staging:
		line = "does not have all of " + what + " yet: " + why
	case status.Pending:
		line = "waits: " + why
	case status.Deferred:
		line = "will not install " + what + " now: " + why
	case status.RolledBack:
		line = "went back from " + what + " and holds it: " + why
	case status.InstallFailed:
		line = "could not install " + what + ": " + why
	case status.Quarantined:
		line = "refuses " + what + ": " + why
	default:
		line = "is " + string(n.Phase) + ": " + why
	}
	switch line = strings.TrimSuffix(line, ": "); {
	case n.LastSeen.IsZero():
		line = "has never been heard of"
	case n.Silent:
		line = "is silent; when it was last heard it said that it " + line
	}
	return cli.Printable(n.Node.Node + " " + line)
}

func (a *answerWhy) write(w io.Writer) error {
	n := a.Node
	var t cli.Table
	if p := a.Policy; p != nil {
		line := fmt.Sprintf("%s, matched by %s", policyOf(n.Node), cli.Printable(pairs(a.MatchedBy)))
		if p.Revision != n.Desired.Revision {
			line += fmt.Sprintf("; revision %d is in force and has not reached it", p.Revision)
		}
		if len(a.AlsoMatch) > 0 {
			line += "; also matched: " + cli.Printable(strings.Join(a.AlsoMatch, ", "))
		}
		t.Row("  policy", line)
		t.Row("  window", a.Window)
	} else if n.Desired != nil {
		t.Row("  policy", policyOf(n.Node)+", which is not in force any more or cannot be read here")
	}
	if x := n.Transfer; x.Chunks > 0 {
		t.Row("  content", fmt.Sprintf("%d of %d chunks verified", x.ChunksHave, x.Chunks))
	}
	for _, i := range n.Installed {
		t.Row("  in force", fmt.Sprintf("%s %s since %s", cli.Printable(i.Bundle), cli.Printable(i.Version), date(a.Timezone, i.Since)))
	}
	if n.Snapshot != "" {
		t.Row("  snapshot", cli.Printable(n.Snapshot)+" of the state before")
	}
	if n.Reboot != "" {
		t.Row("  reboot", "needed: "+cli.Printable(n.Reboot))
	}
	if n.Order != "" {
		t.Row("  order", cli.Printable(n.Order))
	}
	if n.NextAttempt != nil {
		t.Row("  next try", date(a.Timezone, *n.NextAttempt))
	}
	if a.Last != nil {
		t.Row("  last", fmt.Sprintf("%s, %s: %s", date(a.Timezone, a.Last.Body.Occurred), outcome(a.Last.Body), eventLine(*a.Last)))
		for _, line := range eventDetails(a.Last.Body, false) {
			t.Row("", line)
		}
		for _, line := range lines(a.Last.Body.Log) {
			t.Row("", "| "+line)
		}
	}
	if _, err := fmt.Fprintln(w, a.Headline+"."); err != nil {
		return err
	}
	_, err := t.WriteTo(w)
	return err
}

func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}
