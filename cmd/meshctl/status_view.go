package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
)

// view draws status screens: plain ASCII, no state, no clock. Ages are measured against the time at which the
// speaker made the document, so that they do not depend on this machine's clock.
type view struct {
	wide bool
}

// needsAttention says why somebody has to look at a node, or "".
func needsAttention(n status.Seen) string {
	switch {
	case status.Failed(n.Phase):
		return string(n.Phase)
	case n.Quarantine != "":
		return string(status.Quarantined)
	case n.Silent:
		return "silent"
	}
	return ""
}

// shownReasons is how many reasons of a phase the fleet screen names.
const shownReasons = 5

// reasons counts why nodes are in a phase, the most frequent first: "118 window closed, 41 low disk, 12 locked".
func reasons(count map[string]int) string {
	names := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	var out []string
	rest := 0
	for i, r := range names {
		if i < shownReasons {
			out = append(out, fmt.Sprintf("%d %s", count[r], words(r)))
		} else {
			rest += count[r]
		}
	}
	if rest > 0 {
		out = append(out, fmt.Sprintf("%d for other reasons", rest))
	}
	return strings.Join(out, ", ")
}

// words writes a reason of the closed list as people say it: WindowClosed is "window closed".
func words(reason string) string {
	var b strings.Builder
	for i, r := range cli.Printable(reason) {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte(' ')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func (v view) site(w io.Writer, s status.Site) error {
	seen := 0
	for _, n := range s.Nodes {
		if !n.Silent {
			seen++
		}
	}
	fmt.Fprintf(w, "SITE    %s   %s%s   %s, %d seen   uplink %s   as %s sees it\n", cli.Printable(s.Site), dash(s.Timezone), localTime(s),
		cli.Count(len(s.Nodes), "node"), seen, dash(s.Uplink), dash(s.Source))
	fmt.Fprintf(w, "WAN     %s\n", wanLine(s.WAN))
	if s.WAN.Why != "" {
		fmt.Fprintf(w, "RATE    %s\n", rateLine(s))
	}
	bundles := slices.Clone(s.Bundles)
	slices.SortFunc(bundles, func(a, b status.SiteWant) int {
		return cmp.Or(cmp.Compare(b.Wanted, a.Wanted), cmp.Compare(a.Bundle, b.Bundle), cmp.Compare(b.Version, a.Version))
	})
	for _, b := range bundles {
		fmt.Fprintf(w, "BUNDLE  %s %s   %s   %d of %d wanting it hold it whole   %s\n", cli.Printable(b.Bundle), cli.Printable(b.Version), cli.Bytes(b.Bytes),
			b.Holders, b.Wanted, b.Checksum.Short())
	}
	fmt.Fprintln(w)
	if _, err := v.nodes(s).WriteTo(w); err != nil {
		return err
	}
	return errors.Join(strikes(w, s), alarms(w, s))
}

// localTime is the time in the site when the document was made; nothing for UTC or a zone this machine does not know.
func localTime(s status.Site) string {
	zone, err := time.LoadLocation(s.Timezone)
	if err != nil || s.Timezone == "" || s.Timezone == "UTC" || s.AsOf.IsZero() {
		return ""
	}
	return s.AsOf.In(zone).Format(" (now Mon 15:04)")
}

func (v view) nodes(s status.Site) *cli.Table {
	var t cli.Table
	head := []string{"NODE", "PHASE", "VERSION", "CHUNKS", "     WAN", "  LAN-IN", " LAN-OUT", "  REUSED", "SEEN", "REASON"}
	if v.wide {
		head = append(head[:len(head)-1:len(head)-1], "WANTED", "POLICY", "BATCH", "GRANT", "PEERS", "  WASTED", "OUTBOX", "NEXT-TRY", "SNAPSHOT", "CLOCK-SKEW", "AGENT", "REASON")
	}
	t.Row(head...)
	nodes := slices.Clone(s.Nodes)
	slices.SortFunc(nodes, func(a, b status.Seen) int { return cmp.Compare(a.Node.Node, b.Node.Node) })
	for _, n := range nodes {
		row := []string{
			cli.Printable(n.Node.Node), dash(string(n.Phase)), installed(n.Node), fmt.Sprintf("%d/%d", n.Transfer.ChunksHave, n.Transfer.Chunks),
			size(n.Transfer.FromWAN), size(n.Transfer.FromLAN), size(n.Transfer.ToLAN), size(n.Transfer.Reused), seenAge(s.AsOf, n),
		}
		if v.wide {
			row = append(row, wanted(n.Node), policyOf(n.Node), ordinal(n.Batch), ordinal(n.Grant), fmt.Sprint(n.Transfer.Peers), size(n.Transfer.Wasted), fmt.Sprint(n.Outbox),
				nextCell(s.AsOf, n), dash(n.Snapshot), skew(n.Node), dash(n.Software))
		}
		t.Row(append(row, remark(s, n))...)
	}
	return &t
}

// skew is how far a node's clock is from those of its site; nothing where that is not worth a word.
func skew(n status.Node) string {
	if n.SkewSeconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%+ds", -n.SkewSeconds)
}

// remark is the reason, when the node tries again, and what an operator has yet to do or has ordered.
func remark(s status.Site, n status.Seen) string {
	out := []string{reason(n)}
	if (n.Phase == status.Deferred || n.Phase == status.Scheduled) && n.NextAttempt != nil && !n.Silent {
		out[0] += ", next try " + clock(s.Timezone, *n.NextAttempt)
	}
	if n.Quarantine != "" && n.Phase != status.Quarantined {
		out = append(out, "under quarantine: "+cli.Printable(n.Quarantine))
	}
	if n.Reboot != "" {
		out = append(out, "reboot needed")
	}
	if n.Order != "" {
		out = append(out, "order waits")
	}
	return strings.TrimPrefix(strings.Join(out, "; "), "; ")
}

// clock is a time as the site's wall clocks show it, with the day and the zone.
func clock(timezone string, at time.Time) string {
	zone, err := time.LoadLocation(timezone)
	if err != nil {
		zone = time.UTC
	}
	return at.In(zone).Format("Mon 15:04 MST")
}

func alarms(w io.Writer, s status.Site) error {
	var t cli.Table
	for _, n := range s.Nodes {
		for _, a := range n.Alarms {
			t.Row("  "+cli.Printable(n.Node.Node), cli.Printable(a.Code), cli.Age(s.AsOf.Sub(a.Since)), cli.Printable(a.Message))
		}
	}
	var b strings.Builder
	if _, err := t.WriteTo(&b); err != nil || b.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "\nALARMS\n%s", b.String())
	return err
}

func (v view) node(w io.Writer, asOf time.Time, n status.Seen) error {
	var t cli.Table
	state := string(n.Phase)
	if r := reason(n); r != "" {
		state += ": " + r
	}
	seen := "never seen"
	if !n.LastSeen.IsZero() {
		seen = "seen " + seenAge(asOf, n) + " ago"
	}
	t.Row("NODE", fmt.Sprintf("%s/%s   %s", cli.Printable(n.Site), cli.Printable(n.Node.Node), seen))
	t.Row("PHASE", state)
	if n.NextAttempt != nil {
		t.Row("NEXT TRY", nextTry(n.NextAttempt))
	}
	for i, line := range lines(n.Detail) {
		t.Row([]string{"DETAIL", ""}[min(i, 1)], line)
	}
	if n.Order != "" {
		t.Row("ORDER", cli.Printable(n.Order))
	}
	if d := n.Desired; d != nil {
		t.Row("WANTED", fmt.Sprintf("%s   %s   by policy %s", wanted(n.Node), d.Checksum, policyOf(n.Node)))
	}
	items := slices.Clone(n.Installed)
	slices.SortFunc(items, func(a, b status.InstalledItem) int { return cmp.Compare(a.Bundle, b.Bundle) })
	for _, i := range items {
		t.Row("INSTALLED", fmt.Sprintf("%s %s   %s   since %s%s", cli.Printable(i.Bundle), cli.Printable(i.Version), i.Checksum, i.Since.UTC().Format(time.RFC3339), revokedNote(i)))
	}
	if n.Snapshot != "" {
		t.Row("SNAPSHOT", cli.Printable(n.Snapshot)+"   of the state before")
	}
	if n.Reboot != "" {
		t.Row("REBOOT", "needed: "+cli.Printable(n.Reboot))
	}
	x := n.Transfer
	t.Row("CHUNKS", fmt.Sprintf("%d of %d   %s of %s", x.ChunksHave, x.Chunks, cli.Bytes(x.BytesHave), cli.Bytes(x.Bytes)))
	t.Row("RECEIVED", fmt.Sprintf("%s from the WAN (%s on the wire)   %s from neighbours   %s reused   %s wasted", cli.Bytes(x.FromWAN), cli.Bytes(x.WANPayload),
		cli.Bytes(x.FromLAN), cli.Bytes(x.Reused), cli.Bytes(x.Wasted)))
	t.Row("SENT", fmt.Sprintf("%s to neighbours   %s connected", cli.Bytes(x.ToLAN), cli.Count(x.Peers, "peer")))
	t.Row("REPORTS", fmt.Sprintf("%d wait to be sent", n.Outbox))
	for _, a := range n.Alarms {
		t.Row("ALARM", fmt.Sprintf("%s %s, since %s", cli.Printable(a.Code), cli.Printable(a.Message), cli.Age(asOf.Sub(a.Since))))
	}
	t.Row("AGENT", fmt.Sprintf("%s   %s", dash(n.Software), dash(n.PeerID)))
	_, err := t.WriteTo(w)
	return err
}

// lines are those of a text from another machine, each fit to be shown.
func lines(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(cli.Printable(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", " "))); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func size(n int64) string { return cli.Right(8, cli.Bytes(n)) }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return cli.Printable(s)
}

func seenAge(asOf time.Time, n status.Seen) string {
	if n.LastSeen.IsZero() {
		return "never"
	}
	return cli.Age(asOf.Sub(n.LastSeen))
}

// installed is the version in force of the bundle that is wanted, or of the only one there is.
func installed(n status.Node) string {
	for _, i := range n.Installed {
		if n.Desired == nil || i.Bundle == n.Desired.Bundle {
			return cli.Printable(i.Version)
		}
	}
	return "-"
}

func wanted(n status.Node) string {
	if n.Desired == nil {
		return "-"
	}
	return cli.Printable(n.Desired.Bundle + " " + n.Desired.Version)
}

func policyOf(n status.Node) string {
	if n.Desired == nil {
		return "-"
	}
	at := fmt.Sprintf("%s@%d", n.Desired.Policy, n.Desired.Revision)
	if c := n.Desired.Commit; c != "" {
		at += "/" + c[:min(len(c), 7)]
	}
	return cli.Printable(at)
}

func nextTry(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// nextCell is nextTry in a table: a node that is at it tries now, and of a silent one we shall hear.
func nextCell(asOf time.Time, n status.Seen) string {
	switch {
	case n.NextAttempt == nil || n.NextAttempt.After(asOf):
		return nextTry(n.NextAttempt)
	case n.Silent:
		return "when heard of"
	}
	return "now"
}

func reason(n status.Seen) string {
	r := cli.Printable(n.Reason)
	if n.Reason == string(n.Phase) {
		r = ""
	}
	if n.Code != "" {
		r += " (" + cli.Printable(n.Code) + ")"
	}
	switch {
	case n.Silent && n.LastSeen.IsZero():
		r = "silent"
	case n.Silent:
		r = strings.TrimSuffix("silent; was: "+r, "; was: ")
	}
	return strings.TrimSpace(r)
}
