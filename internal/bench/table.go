package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// target is a line of the first table: a figure of ours, its physical bound, and what was promised.
type target struct {
	label       string
	part, row   string
	figure      string
	limit       string  // the physical bound, for people
	promised    string  // the target, for people; empty: none
	most, least float64 // and as numbers; NaN: nothing on this side
	format      string
}

func targets() []target {
	const (
		ratio   = "%.3f"
		seconds = "%.1f s"
		ms      = "%.1f ms"
	)
	no := math.NaN()
	most := func(label, part, row, figure, limit string, v float64, format string) target {
		return target{label: label, part: part, row: row, figure: figure, limit: limit, most: v, least: no, format: format, promised: "<= " + fmt.Sprintf(format, v)}
	}
	least := func(label, part, row, figure, limit string, v float64, format string) target {
		return target{label: label, part: part, row: row, figure: figure, limit: limit, most: no, least: v, format: format, promised: ">= " + fmt.Sprintf(format, v)}
	}
	var list []target
	for _, n := range []string{"8", "2", "16", "30"} {
		list = append(list,
			most("A_wan, interface, "+n+" nodes", "fill-"+n, n+" nodes", wanBytes, "1.036", 1.045, ratio),
			most("A_wan, payload, "+n+" nodes", "fill-"+n, n+" nodes", wanPayload, "1.000", 1.005, "%.4f"),
			least("E_wan, "+n+" nodes", "fill-"+n, n+" nodes", eWAN, "1.00", 0.97, ratio))
	}
	const four = "4 sites x 4 nodes"
	bound := mostTwice(50e6/8, 40e6)
	return append(list,
		most("A_wan, interface, "+four+", the worst", "sites", four, wanBytes, "1.036", 1.045, ratio),
		most("A_wan, payload, "+four+", the worst", "sites", four, wanPayload, "1.000", 1.005, "%.4f"),
		least("E_wan, "+four+", the last of all", "sites", four, eWAN, "1.00", 0.97, ratio),
		most("1 % loss: last node / (size/rate)", "faults", "8 nodes, 1 % loss", lastNode, "0.95", 1.25, "%.2f"),
		most("WAN cut for 20 s: seconds more", "faults", "8 nodes, WAN cut for 20 s", extra, "20", 22, seconds),
		most("B_re: bytes again after kill -9 of the uplink", "faults", "8 nodes, uplink killed", twiceBytes, "in flight", bound, "%.0f"),
		most("G: WAN idle after kill -9 of the uplink", "faults", "8 nodes, uplink killed", idleSeconds, "detection", 3, seconds),
		most("B_re after its cable is pulled", "faults", "8 nodes, uplink's cable pulled", twiceBytes, "in flight", bound, "%.0f"),
		most("G after its cable is pulled", "faults", "8 nodes, uplink's cable pulled", idleSeconds, "detection", 8, seconds),
		target{label: "all daemons start at once: last node / (size/rate)", part: "faults", row: "8 nodes, all daemons start at once", figure: lastNode, limit: "1.00", most: no, least: no, format: "%.2f"},
		most("R_lan, 8 nodes at 100 Mbit/s", "lan-8", "8 nodes, LAN broadcast at 100 Mbit/s", rLAN, "1.00", 1.10, "%.2f"),
		most("R_lan, 16 nodes at 50 Mbit/s", "lan-16", "16 nodes, LAN broadcast at 50 Mbit/s", rLAN, "1.00", 1.10, "%.2f"),
		most("R_lan, 30 nodes at 25 Mbit/s", "lan-30", "30 nodes, LAN broadcast at 25 Mbit/s", rLAN, "1.00", 1.10, "%.2f"),
		most("A_lan, 8 nodes", "lan-8", "8 nodes, LAN broadcast at 100 Mbit/s", aLAN, "1.00", 1.02, ratio),
		most("A_lan, 30 nodes", "lan-30", "30 nodes, LAN broadcast at 25 Mbit/s", aLAN, "1.00", 1.02, ratio),
		most("CPU seconds per GB delivered, 8 nodes", "fill-8", "8 nodes", cpuPerGB, "1.5 and the kernel", 2.4, "%.1f"),
		most("memory of a node, MiB: peak", "fill-8", "8 nodes", rssPeak, "-", 48, "%.0f"),
		most("memory of a node, MiB: idle", "fill-8", "8 nodes", rssIdle, "-", 30, "%.0f"),
		most("idle: bytes per second on the WAN, a site", "fill-8", "8 nodes", idleWAN, "0", 100, "%.0f"),
		target{label: "idle: bytes per second on the LAN, a node", part: "fill-8", row: "8 nodes", figure: idleLAN, limit: "0", most: no, least: no, format: "%.0f"},
		most("bystander's ping: p95 during a fill beyond before", "polite", politeFill, pingRise, "0", 20, ms),
		least("of the idle link is used meanwhile", "polite", politeFill, linkUse, "1.00", 0.90, "%.2f"),
		most("our share 5 s after a bulk flow began", "polite", politeBulk, bulkShare, "0", 0.10, "%.2f"),
		target{label: "link use 3 s after it ended", part: "polite", row: politeBulk, figure: recovered, limit: "1.00", most: no, least: no, format: "%.2f"})
}

// met says whether a value keeps the promise.
func (t target) met(v float64) string {
	switch {
	case t.promised == "":
		return ""
	case v > t.most || v < t.least:
		return "no"
	}
	return "yes"
}

// bounds is the first table: ours against what is possible and what was promised. Figures that were not measured are
// left out.
func bounds(d *results) [][]string {
	rows := [][]string{{"figure", "bound", "target", "measured", "reached"}}
	for _, t := range targets() {
		v, ok := d.find(t.part, ours, t.row).value(t.figure)
		if !ok {
			continue
		}
		rows = append(rows, []string{t.label, t.limit, t.promised, fmt.Sprintf(t.format, v), t.met(v)})
	}
	return rows
}

// comparison is the second table: what distributes a file to eight nodes, ours first.
func comparison(d *results) [][]string {
	const eight = "8 nodes"
	rows := [][]string{{"8 nodes, one site", "WAN / size", "first node", "last node", "CPU s/GB", "MiB", "fetching node or cache killed: others that complete"}}
	cell := func(r *row, figure, format string) string {
		v, ok := r.value(figure)
		if !ok {
			return "-"
		}
		return fmt.Sprintf(format, v)
	}
	add := func(name string, r *row, killed string) {
		if r != nil {
			rows = append(rows, []string{name, cell(r, wanBytes, "%.3f"), cell(r, firstNode, "%.2f"), cell(r, lastNode, "%.2f"), cell(r, cpuPerGB, "%.1f"), cell(r, rssPeak, "%.0f"), killed})
		}
	}
	killed := "-"
	if _, ok := d.find("faults", ours, "8 nodes, uplink killed").value(twiceBytes); ok {
		killed = "all, and it too when it is back"
	}
	add("**"+ours+"**", d.find("fill-8", ours, eight), killed)
	for _, name := range append([]string{"one curl, one node"}, names(rivals())...) {
		killed := "-"
		if r := d.find("rivals-killed", name, eight); r != nil {
			if v, ok := r.value(restDone); ok {
				killed = fmt.Sprintf("%.0f of 7", v*7)
				if v >= 1 {
					killed = "all, " + cell(r, wanKilled, "%.2f") + " copies"
				}
			}
		}
		r := d.find("rivals-8", name, eight)
		if r != nil && len(r.Figures[lastNode].Samples) == 1 {
			name += " (1 run)"
		}
		add(name, r, killed)
	}
	return rows
}

// elsewhere is the third table: rivals in the other situations, beside ours.
func elsewhere(d *results) [][]string {
	rows := [][]string{{"elsewhere", "figure", "patchmesh", "others"}}
	add := func(label, about, figure, format, oursPart, theirPart, situation string) {
		v, ok := d.find(oursPart, ours, situation).value(figure)
		var others []string
		for _, name := range append([]string{"one curl, one node"}, names(rivals())...) {
			if o, ok := d.find(theirPart, name, situation).value(figure); ok {
				others = append(others, name+" "+fmt.Sprintf(format, o))
			}
		}
		if ok && len(others) > 0 {
			rows = append(rows, []string{label, about, fmt.Sprintf(format, v), strings.Join(others, "; ")})
		}
	}
	add("4 sites x 4 nodes", "WAN / size, the worst site", wanBytes, "%.2f", "sites", "rivals-sites", "4 sites x 4 nodes")
	add("LAN broadcast, 8 nodes", "last node / bound", rLAN, "%.2f", "lan-8", "rivals-lan", "8 nodes, LAN broadcast at 100 Mbit/s")
	add("bystander's ping, 20 Mbit/s", "p95 in ms beyond before", pingRise, "%.0f", "polite", "polite", politeFill)
	return rows
}

func names(list []rival) (out []string) {
	for _, v := range list {
		out = append(out, v.name)
	}
	return out
}

// plainText aligns a table for a terminal.
func plainText(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, c := range r {
			line += fmt.Sprintf("%-*s  ", width[i], strings.ReplaceAll(c, "**", ""))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// markdown is a table for the README.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, r := range rows {
		b.WriteString("| " + strings.Join(r, " | ") + " |\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(r)) + "|\n")
		}
	}
	return b.String()
}

// provenance says from what the tables were made.
func provenance(d *results) string {
	if len(d.Parts) == 0 {
		return "Nothing was measured yet."
	}
	var commits, machines, runs, seeds []string
	note := func(list *[]string, s string) {
		if !slices.Contains(*list, s) {
			*list = append(*list, s)
		}
	}
	var skipped, trouble []string
	for _, p := range d.Parts {
		note(&commits, p.Commit)
		note(&machines, fmt.Sprintf("%d cores, %s, %s, files of all hosts %s", p.Machine.Cores, p.Machine.CPU, p.Machine.Kernel, p.Machine.Files))
		note(&runs, fmt.Sprint(p.Runs))
		note(&seeds, fmt.Sprint(p.Seed))
		skipped = append(skipped, p.Skipped...)
		for _, t := range p.Trouble {
			trouble = append(trouble, p.Name+": "+strings.ReplaceAll(t, "\n", "; "))
		}
	}
	s := fmt.Sprintf("Medians of %s runs; commit %s; seed %s; %s.", strings.Join(runs, " and "), strings.Join(commits, ", "), strings.Join(seeds, ", "), strings.Join(machines, "; "))
	if len(skipped) > 0 {
		s += " Skipped: " + strings.Join(skipped, "; ") + "."
	}
	if len(trouble) > 0 {
		s += " Trouble: " + strings.Join(trouble, "; ") + "."
	}
	return s
}
