package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/window"
)

// whyFlags of "meshctl why".
type whyFlags struct {
	server
	out    output
	socket string
}

func newWhy(env cli.Env) *cobra.Command {
	f := &whyFlags{server: server{env: env}}
	c := &cobra.Command{
		Use:   "why SITE/NODE | SITE",
		Short: "say why a node, or a site, is in the state it is in, and what comes next",
		Long: `Why puts together what is known of a node, in at most six lines: the phase and its
reason, the policy that won and by what, when it may be installed, its batch and the
grant it waits for or holds, how much of the bundle is there, and when it tries next.
-o wide adds what is in force and what came of the last try.

Of a site it says who is heard, who waits for what, and what happens without the seeder.

On a node, with no seeder configured, it asks the local daemon, and works with the WAN down.`,
		Example: `  meshctl why store-0417/pos-03
  meshctl why store-0417`,
		Args: cli.Args(1, 1, "SITE/NODE or SITE"),
		RunE: f.run,
	}
	f.addFlags(c, callTimeout)
	f.out.addFlags(c, "text", "wide", "json", "yaml")
	c.Flags().StringVar(&f.socket, "socket", "", "ask the daemon at this `path` (default "+nodeSocket+" when no seeder is named)")
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
	Priority   int                 `json:"priority"`
	MatchedBy  map[string]string   `json:"matchedBy,omitempty"`
	AlsoMatch  []string            `json:"alsoMatched"` // other policies for the same bundle
	Window     string              `json:"window,omitempty"`
	Next       string              `json:"next"`           // what comes next, and when
	Last       *api.RecordedReport `json:"last,omitempty"` // outcome
}

func (f *whyFlags) run(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	site, node, err := place(c, args)
	if err != nil {
		return err
	}
	who, err := f.server.speaker(f.socket)
	if err != nil {
		return err
	}
	ctx, cancel := f.within(c.Context())
	defer cancel()
	s, err := who.Site(ctx, site)
	if err != nil {
		return err
	}
	policies, err := who.Policies(ctx)
	if err != nil {
		return err
	}
	if node == "" {
		a := siteReasons(s, policies)
		return f.out.screen(f.env.Stdout, a, a.write)
	}
	n, err := nodeOf(s, node)
	if err != nil {
		return err
	}
	page, err := who.Reports(ctx, api.ReportQuery{Site: site, Node: node, Newest: true, Limit: lastReports})
	if err != nil {
		return err
	}
	a := reasonsOf(s, n, policies, page.Reports)
	return f.out.screen(f.env.Stdout, a, func(w io.Writer) error { return a.write(w, f.out.wide()) })
}

// lastReports is how far back the last outcome is looked for: between two outcomes a node says six things at most.
const lastReports = 20

// reasonsOf puts the answer together. Pure.
func reasonsOf(s status.Site, n status.Seen, policies []api.PolicyInfo, reports []api.RecordedReport) *answerWhy {
	a := &answerWhy{APIVersion: status.APIVersion, Kind: "NodeReasons", AsOf: s.AsOf, Timezone: s.Timezone, Node: n, AlsoMatch: []string{}, Headline: headline(n)}
	for i := range policies {
		p := parsed(policies[i])
		switch {
		case p == nil:
		case n.Desired != nil && policies[i].Name == n.Desired.Policy:
			a.Policy, a.MatchedBy, a.Priority = &policies[i], p.Selector.Labels, p.Priority
			a.Window = windowLine(p, s.Timezone, s.AsOf)
		case n.Desired != nil && p.Bundle.Name == n.Desired.Bundle && p.Matches(n.Labels):
			a.AlsoMatch = append(a.AlsoMatch, fmt.Sprintf("%s (priority %d)", p.Name, p.Priority))
		}
	}
	for i := len(reports) - 1; i >= 0; i-- {
		if reports[i].Body.Outcome != "" {
			a.Last = &reports[i]
			break
		}
	}
	a.Next = nextLine(n, s)
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

// nextLine says when the node tries again by itself, or what a person can do where it does not.
func nextLine(n status.Seen, s status.Site) string {
	switch {
	case n.LastSeen.IsZero():
		return "when it is heard of: does meshd run there?"
	case n.Quarantine != "" || n.Phase == status.Quarantined:
		return quarantineNext(n, s.Timezone, s.AsOf)
	case n.Reason == install.ReasonRevoked || n.Phase == status.Installed && revokedRuns(n.Node):
		return "when a policy names another bundle: meshctl bundle list, meshctl apply -f FILE"
	case n.Phase == status.Installed:
		return "none: it is done"
	case status.Final(n.Phase) && n.Desired != nil:
		return "none until the policy asks for another release, or: meshctl retry " + n.Desired.Bundle + " --site " + s.Site + " --node " + n.Node.Node
	case status.Final(n.Phase), n.NextAttempt == nil:
		return "none until a policy asks for a release"
	case n.NextAttempt.After(s.AsOf):
		return fmt.Sprintf("%s (in %s)", date(s.Timezone, *n.NextAttempt), cli.Age(n.NextAttempt.Sub(s.AsOf)))
	case n.Silent:
		return "by itself, in its window, without being seen here"
	}
	return "now: it is at it"
}

// write is the answer in at most six lines; wide, in as many as there is to say.
func (a *answerWhy) write(w io.Writer, wide bool) error {
	n := a.Node
	var t cli.Table
	t.Row("  phase", a.phase())
	if p := a.Policy; p != nil {
		line := fmt.Sprintf("%s, matched by %s (priority %d; also matched: %s)", policyOf(n.Node), cli.Printable(pairs(a.MatchedBy)), a.Priority, cmp.Or(cli.Printable(strings.Join(a.AlsoMatch, ", ")), "none"))
		if p.Revision != n.Desired.Revision {
			line += fmt.Sprintf("; revision %d is in force and has not reached it", p.Revision)
		}
		t.Row("  policy", line)
		t.Row("  window", a.Window)
	} else if n.Desired != nil {
		t.Row("  policy", policyOf(n.Node)+", which is not in force any more or cannot be read here")
	} else if !n.LastSeen.IsZero() {
		t.Row("  policy", "none is in force there; its labels: "+cmp.Or(cli.Printable(pairs(n.Labels)), "none"))
	}
	if line := a.batchLine(); line != "" {
		t.Row("  batch", line)
	}
	t.Row("  next try", cli.Printable(a.Next))
	if wide {
		a.more(&t)
	}
	if _, err := fmt.Fprintln(w, a.Headline+"."); err != nil {
		return err
	}
	_, err := t.WriteTo(w)
	return err
}

// phase says the phase, its reason and code, and what else a person has to know of the node.
func (a *answerWhy) phase() string {
	n := a.Node
	out := []string{dash(string(n.Phase))}
	if n.Reason != "" && n.Reason != string(n.Phase) {
		out[0] += ", " + cli.Printable(n.Reason)
	}
	if n.Code != "" {
		out[0] += fmt.Sprintf(" (meshctl explain %s)", cli.Printable(n.Code))
	}
	if a.Last != nil && a.Last.Body.Phase == n.Phase && status.Final(n.Phase) {
		out[0] += " since " + date(a.Timezone, a.Last.Body.Occurred)
	}
	if n.Silent && !n.LastSeen.IsZero() {
		out = append(out, "not heard for "+cli.Age(a.AsOf.Sub(n.LastSeen)))
	}
	if n.Missed > 0 {
		out = append(out, cli.Count(n.Missed, "window")+" missed")
	}
	for _, i := range n.Installed {
		if note := revokedNote(i); note != "" {
			out = append(out, cli.Printable(i.Bundle+" "+i.Version)+note)
		}
	}
	if n.Quarantine != "" {
		out = append(out, "under quarantine: "+cli.Printable(n.Quarantine))
	}
	if n.Reboot != "" {
		out = append(out, "reboot needed: "+cli.Printable(n.Reboot))
	}
	if n.Order != "" {
		out = append(out, cli.Printable(n.Order))
	}
	return strings.Join(out, "; ")
}

// batchLine says which batch, by which grant, and how much of the bundle is there.
func (a *answerWhy) batchLine() string {
	n, ordered := a.Node, true
	if a.Policy != nil {
		p := parsed(*a.Policy)
		ordered = p != nil && p.Rollout != nil
	}
	var out []string
	switch {
	case n.Batch > 0:
		out = append(out, fmt.Sprintf("%d, by grant %d", n.Batch, n.Grant))
	case n.Grant > 0:
		out = append(out, fmt.Sprintf("none yet; its site holds grant %d", n.Grant))
	case n.Desired == nil || n.Phase == status.Installed:
	case ordered:
		out = append(out, "none yet; its site has no grant for it")
	default:
		out = append(out, "the policy has none")
	}
	if x := n.Transfer; x.Chunks > 0 {
		out = append(out, fmt.Sprintf("content %d of %d chunks verified", x.ChunksHave, x.Chunks))
	}
	return strings.Join(out, "; ")
}

// more is what there is to say beyond six lines.
func (a *answerWhy) more(t *cli.Table) {
	n := a.Node
	for _, i := range n.Installed {
		t.Row("  in force", fmt.Sprintf("%s %s since %s", cli.Printable(i.Bundle), cli.Printable(i.Version), date(a.Timezone, i.Since)))
	}
	for _, b := range n.Beside {
		t.Row("  beside", fmt.Sprintf("%s: %s, %s, next try %s", cli.Printable(b.Bundle), dash(string(b.Phase)), cli.Printable(b.Reason), nextTry(b.NextAttempt)))
	}
	if n.Snapshot != "" {
		t.Row("  snapshot", cli.Printable(n.Snapshot)+" of the state before")
	}
	if a.Last == nil {
		return
	}
	t.Row("  last", fmt.Sprintf("%s, %s: %s", date(a.Timezone, a.Last.Body.Occurred), outcome(a.Last.Body), eventLine(*a.Last)))
	for _, line := range eventDetails(a.Last.Body, false) {
		t.Row("", line)
	}
	for _, line := range lines(a.Last.Body.Log) {
		t.Row("", "| "+line)
	}
}

func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}
