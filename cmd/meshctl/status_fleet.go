package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
)

// The fleet's screen fits a terminal unless it is wide.
const (
	fleetHeight   = 30 // lines
	shownRollouts = 2
)

// fleet draws the fleet in a few lines.
func (v view) fleet(w io.Writer, f status.Summary) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "FLEET    %s in %s   %d seen   %d silent%s\n", cli.Count(f.Nodes, "node"), cli.Count(f.Sites, "site"), f.Nodes-f.Silent, f.Silent, longest(f))
	for i, r := range f.Rollouts {
		if i == shownRollouts && !v.wide {
			fmt.Fprintf(&b, "         and %s: meshctl rollout status\n", cli.Count(len(f.Rollouts)-i, "more rollout"))
			break
		}
		rolloutLines(&b, r, f.AsOf)
	}
	now := ""
	if f.WAN.Rate > 0 {
		now = "   now " + cli.Rate(f.WAN.Rate)
	}
	fmt.Fprintf(&b, "WAN      %s%s%s\n", wanLine(f.WAN), saved(f), now)
	if f.Nodes > 0 {
		b.WriteByte('\n')
		if err := phaseTable(&b, f); err != nil {
			return err
		}
	}
	if len(f.Attention) > 0 {
		room := fleetHeight - bytes.Count(b.Bytes(), []byte("\n")) - 2
		if v.wide {
			room = len(f.Attention)
		}
		if err := attentionTable(&b, f, room); err != nil {
			return err
		}
	}
	if v.wide {
		b.WriteByte('\n')
		if _, err := siteTable(f.SiteLines).WriteTo(&b); err != nil {
			return err
		}
	}
	_, err := b.WriteTo(w)
	return err
}

func longest(f status.Summary) string {
	if f.Longest == nil {
		return ""
	}
	return fmt.Sprintf(" (longest %s: %s)", cli.Age(f.AsOf.Sub(f.Longest.Since)), cli.Printable(f.Longest.Site))
}

// saved compares what crossed the WANs with what would have, had each node fetched for itself. It is never more than
// all, and nothing where the links carried more.
func saved(f status.Summary) string {
	if f.Naive <= f.WAN.Payload || f.Naive == 0 {
		return ""
	}
	return fmt.Sprintf("   saved %.1f%% of %s", 100*(1-float64(f.WAN.Payload)/float64(f.Naive)), cli.Bytes(f.Naive))
}

// rolloutLines says where a rollout stands, when its window closes or opens, and what it may still lose.
func rolloutLines(w io.Writer, r status.RolloutLine, now time.Time) {
	commit := ""
	if r.Commit != "" {
		commit = " (" + cli.Printable(r.Commit[:min(len(r.Commit), 7)]) + ")"
	}
	state := strings.ToUpper(cli.Printable(r.State))
	if r.Batches > 0 {
		state += fmt.Sprintf(" batch %d/%d", r.Batch, r.Batches)
	}
	if r.Reason != "" {
		state += ": " + cli.Printable(r.Reason)
	}
	fmt.Fprintf(w, "ROLLOUT  %s rev %d%s   %s %s   %s\n", cli.Printable(r.Policy), r.Revision, commit, cli.Printable(r.Bundle), cli.Printable(r.Version), state)
	var at []string
	if r.Window != "" {
		at = append(at, "window "+cli.Printable(r.Window))
	}
	switch {
	case r.Next == nil:
	case r.Open:
		at = append(at, "OPEN, closes in "+cli.Age(r.Next.Sub(now)))
	default:
		at = append(at, "opens in "+cli.Age(r.Next.Sub(now)))
	}
	if r.Finish != nil {
		at = append(at, "finishes ~"+r.Finish.UTC().Format("2006-01-02"))
	}
	if len(at) > 0 {
		fmt.Fprintf(w, "         %s\n", strings.Join(at, "   "))
	}
	fmt.Fprintf(w, "BUDGET   failed %d of %d settled%s   %d allowed   sites over their own budget: %d\n", r.Failed, r.Settled, percent(r.Failed, r.Settled), r.Budget, r.SitesOver)
}

func percent(part, of int) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf(" = %.2f%%", 100*float64(part)/float64(of))
}

// phaseTable says how many nodes are in each phase, and why.
func phaseTable(w io.Writer, f status.Summary) error {
	var t cli.Table
	t.Row("PHASE", " NODES", "    %", "OF WHICH SILENT", "")
	for _, p := range f.Phases {
		share := float64(p.Nodes) / float64(max(f.Nodes, 1))
		t.Row(cli.Printable(string(p.Phase)), fmt.Sprintf("%6d", p.Nodes), fmt.Sprintf("%5.1f", 100*share), fmt.Sprintf("%15d", p.Silent),
			strings.TrimSpace(strings.Repeat("#", int(share*30+0.5))+"  "+reasons(p.Reasons)))
	}
	_, err := t.WriteTo(w)
	return err
}

// attentionTable lists what a person should look at, in at most so many lines.
func attentionTable(w io.Writer, f status.Summary, room int) error {
	shown, rest := f.Attention, f.More
	if room = max(room, 2); len(shown) > room || rest > 0 {
		keep := min(len(shown), room-1)
		shown, rest = shown[:keep], rest+len(shown)-keep
	}
	var t cli.Table
	for _, a := range shown {
		text := cli.Printable(a.Text)
		if a.Since != nil {
			text += " " + cli.Age(f.AsOf.Sub(*a.Since))
		}
		t.Row("  "+cli.Printable(a.Subject), text, cli.Printable(a.Command))
	}
	if rest > 0 {
		t.Row(fmt.Sprintf("  and %d more", rest), "", "meshctl status -o wide")
	}
	if _, err := fmt.Fprint(w, "\nATTENTION\n"); err != nil {
		return err
	}
	_, err := t.WriteTo(w)
	return err
}

func siteTable(lines []status.SiteLine) *cli.Table {
	var t cli.Table
	t.Row("SITE", "NODES", "INSTALLED", "READY", "SILENT", "FAILED", "PAYLOAD", "NEEDED", "TWICE", "UPLINK", "BUNDLE")
	for _, s := range lines {
		t.Row(cli.Printable(s.Site), fmt.Sprintf("%5d", s.Nodes), fmt.Sprintf("%9d", s.Phases[status.Installed]), fmt.Sprintf("%5d", s.Ready), fmt.Sprintf("%6d", s.Silent),
			fmt.Sprintf("%6d", s.Failed), size(s.Payload), size(s.Needed), size(s.Duplicate), dash(s.Uplink), dash(s.Version))
	}
	return &t
}

func siteLines(w io.Writer, lines []status.SiteLine) error {
	for _, s := range lines {
		if _, err := fmt.Fprintln(w, cli.Printable(s.Site)); err != nil {
			return err
		}
	}
	return nil
}

// nodeRows prints a line for each node: its name, or what a spreadsheet wants to know.
func nodeRows(w io.Writer, format string, sites []status.Site) error {
	var b bytes.Buffer
	c := csv.NewWriter(&b)
	if format == "csv" {
		if err := c.Write([]string{"site", "node", "phase", "silent", "last_seen", "bundle", "installed", "wanted", "policy", "chunks_have", "chunks", "from_wan", "from_lan", "reason", "code", "next_attempt"}); err != nil {
			return err
		}
	}
	for _, s := range sites {
		for _, n := range s.Nodes {
			if format == "name" {
				fmt.Fprintf(&b, "%s/%s\n", cli.Printable(s.Site), cli.Printable(n.Node.Node))
				continue
			}
			seen, bundle := "", ""
			if !n.LastSeen.IsZero() {
				seen = n.LastSeen.UTC().Format(time.RFC3339)
			}
			if n.Desired != nil {
				bundle = n.Desired.Bundle
			}
			if err := c.Write([]string{s.Site, n.Node.Node, string(n.Phase), fmt.Sprint(n.Silent), seen, cell(bundle), cell(installed(n.Node)), cell(wanted(n.Node)), cell(policyOf(n.Node)),
				fmt.Sprint(n.Transfer.ChunksHave), fmt.Sprint(n.Transfer.Chunks), fmt.Sprint(n.Transfer.FromWAN), fmt.Sprint(n.Transfer.FromLAN), cell(n.Reason), cell(n.Code), nextTry(n.NextAttempt)}); err != nil {
				return err
			}
		}
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}

// cell is a text from another machine, fit for a spreadsheet: what begins like a formula is not taken for one.
func cell(s string) string {
	if s = cli.Printable(s); s != "" && strings.ContainsRune("=+@", rune(s[0])) {
		s = "'" + s
	}
	return s
}
