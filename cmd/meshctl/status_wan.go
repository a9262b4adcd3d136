package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// wanLine says what a link carried against what had to be carried: payload is what crossed, needed what the chunks
// sent have together when each is counted once.
func wanLine(x status.WAN) string {
	least := ""
	if x.Unsure > 0 {
		least = ">= "
	}
	line := fmt.Sprintf("%s%s carried for %s%s of chunks", least, cli.Bytes(x.Payload), least, cli.Bytes(x.Needed))
	if x.Needed > 0 {
		line += fmt.Sprintf(" (%.3f)", float64(x.Payload)/float64(x.Needed))
	}
	line += fmt.Sprintf("   %s%s sent twice", least, cli.Bytes(x.Duplicate))
	if x.CapBytesPerSecond > 0 {
		line += "   cap " + cli.Rate(x.CapBytesPerSecond)
	}
	if x.LeaseSplit > 0 {
		line += "   " + cli.Count(x.LeaseSplit, "lease") + " beside the first: the LAN was split"
	}
	if x.Unsure > 0 {
		line += fmt.Sprintf("   the seeder was killed: up to %s more", cli.Bytes(x.Unsure))
	}
	return line
}

// rateLine says how fast the site is sent something now, why not faster, and when that changes.
func rateLine(s status.Site) string {
	x := s.WAN
	line := cli.Printable(x.Why)
	switch {
	case x.Paused:
		line = "paused: " + line
	case x.Rate > 0 && x.Allowed > 0:
		line = fmt.Sprintf("%s: %s", share(x.Rate, x.Allowed), line)
	case x.Rate > 0:
		line = fmt.Sprintf("%s: %s", cli.Rate(x.Rate), line)
	}
	if zone, err := time.LoadLocation(s.Timezone); err == nil && x.Until != nil && !x.Paused {
		line += x.Until.In(zone).Format("   changes Mon 15:04")
	}
	if x.DayLimit > 0 {
		line += fmt.Sprintf("   today %s of %s", decimal(x.Today), wanprofile.FormatSize(x.DayLimit))
	}
	return line
}

// share writes "4.1 of 6 Mbit/s".
func share(rate, allowed int64) string {
	a, unit, _ := strings.Cut(cli.Rate(allowed), " ")
	for _, u := range []struct {
		name string
		size float64
	}{{"bit/s", 1}, {"kbit/s", 1e3}, {"Mbit/s", 1e6}, {"Gbit/s", 1e9}} {
		if u.name == unit {
			return fmt.Sprintf("%s of %s %s", short(float64(rate)*8/u.size), a, unit)
		}
	}
	return cli.Rate(rate) + " of " + cli.Rate(allowed)
}

func short(v float64) string {
	if v < 9.95 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// decimal writes bytes in the units of a day's total.
func decimal(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	v := float64(n) / 1000
	for _, u := range []string{"kB", "MB"} {
		if v < 999.5 {
			return short(v) + u
		}
		v /= 1000
	}
	return short(v) + "GB"
}

// strikes says a line for each node that another one caught misbehaving: who, what, when, and until when it is avoided.
func strikes(w io.Writer, s status.Site) error {
	var t cli.Table
	nodes := slices.Clone(s.Nodes)
	slices.SortFunc(nodes, func(a, b status.Seen) int { return cmp.Compare(a.Node.Node, b.Node.Node) })
	for _, n := range nodes {
		if len(n.Struck) == 0 {
			continue
		}
		var said []string
		var until time.Time
		for _, x := range n.Struck {
			said = append(said, fmt.Sprintf("%s: %s %s, last %s ago", cli.Printable(x.By), strings.ReplaceAll(cli.Printable(string(x.Kind)), "_", " "),
				cli.Count(x.Count, "time"), cli.Age(s.AsOf.Sub(x.Last))))
			if x.Until != nil && x.Until.After(until) {
				until = *x.Until
			}
		}
		avoided := "-"
		if until.After(s.AsOf) {
			avoided = "avoided until " + nextTry(&until)
		}
		t.Row("  "+cli.Printable(n.Node.Node), avoided, strings.Join(said, "; "))
	}
	var b strings.Builder
	if _, err := t.WriteTo(&b); err != nil || b.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "\nSTRIKES\n%s", b.String())
	return err
}
