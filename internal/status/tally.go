package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Tally counts the nodes of a fleet into a Summary, site by site, and keeps no node. The zero value is ready; it is used
// by one goroutine.
type Tally struct {
	sum     Summary
	phases  map[Phase]*PhaseCount
	faults  map[fault]*places
	overdue places
	quarant places
	quiet   places // silent nodes of sites of which others are heard
	silent  []SilentSite
	counts  []int // nodes of the sites in silent
	alarms  map[string]*places
	oldest  SilentSite
}

// fault is what nodes that failed in the same way have in common.
type fault struct {
	phase  Phase
	reason string
	code   string
}

// places counts nodes and the sites that they are of.
type places struct {
	nodes, sites int
	last         string
}

func (p *places) add(site string) {
	p.nodes++
	if p.last != site || p.sites == 0 {
		p.last = site
		p.sites++
	}
}

func (p *places) String() string {
	if p.sites == 1 {
		return "in " + p.last
	}
	return fmt.Sprintf("in %d sites", p.sites)
}

// Order lists the phases in the order of a node's life, as screens show them.
func Order() []Phase {
	return []Phase{Installed, Installing, Scheduled, Staged, Staging, Pending, Deferred, RolledBack, InstallFailed, Quarantined}
}

// Site counts one site and returns its line. wan is its account.
func (t *Tally) Site(name, timezone, uplink string, nodes []Seen, wan WAN) SiteLine {
	if t.phases == nil {
		t.phases, t.faults, t.alarms = map[Phase]*PhaseCount{}, map[fault]*places{}, map[string]*places{}
	}
	line := SiteLine{Site: name, Timezone: timezone, Nodes: len(nodes), Phases: map[Phase]int{}, Uplink: uplink,
		Payload: wan.Payload, Needed: wan.Needed, Duplicate: wan.Duplicate}
	wanted := map[string]int{}
	var newest time.Time
	for i := range nodes {
		n := &nodes[i]
		t.node(name, n)
		line.Phases[n.Phase]++
		if n.Silent {
			line.Silent++
		}
		if Failed(n.Phase) {
			line.Failed++
		}
		if n.Transfer.Bytes > 0 && n.Transfer.BytesHave == n.Transfer.Bytes {
			line.Ready++
		}
		if n.Desired != nil {
			wanted[n.Desired.Bundle+" "+n.Desired.Version]++
		}
		if n.LastSeen.After(newest) {
			newest = n.LastSeen
		}
	}
	for v, c := range wanted {
		if c > wanted[line.Version] || c == wanted[line.Version] && v < line.Version {
			line.Version = v
		}
	}
	switch {
	case line.Silent == 0:
	case line.Silent == len(nodes):
		t.silent, t.counts = append(t.silent, SilentSite{name, newest}), append(t.counts, line.Silent)
	default:
		for range line.Silent {
			t.quiet.add(name)
		}
	}
	s := &t.sum
	s.Sites++
	s.Nodes += len(nodes)
	s.Silent += line.Silent
	s.WAN.Payload += wan.Payload
	s.WAN.Plain += wan.Plain
	s.WAN.Needed += wan.Needed
	s.WAN.Duplicate += wan.Duplicate
	s.WAN.LeaseSplit += wan.LeaseSplit
	s.WAN.Unsure += wan.Unsure
	s.WAN.Rate += wan.Rate
	s.Naive += wan.Needed * int64(len(nodes))
	return line
}

func (t *Tally) node(site string, n *Seen) {
	p := t.phases[n.Phase]
	if p == nil {
		p = &PhaseCount{Phase: n.Phase}
		t.phases[n.Phase] = p
	}
	p.Nodes++
	if Explained(n.Phase) {
		if p.Reasons == nil {
			p.Reasons = map[string]int{}
		}
		p.Reasons[n.Reason]++
	}
	if n.Silent {
		p.Silent++
		if !n.LastSeen.IsZero() && (t.oldest.Site == "" || n.LastSeen.Before(t.oldest.Since)) {
			t.oldest = SilentSite{site, n.LastSeen}
		}
	}
	switch {
	case n.Phase == Quarantined || n.Quarantine != "":
		t.quarant.add(site)
	case Failed(n.Phase):
		f := fault{n.Phase, n.Reason, n.Code}
		if t.faults[f] == nil {
			t.faults[f] = &places{}
		}
		t.faults[f].add(site)
	}
	for _, a := range n.Alarms {
		if a.Code == string(problem.InstallOverdue) {
			t.overdue.add(site)
			continue
		}
		if t.alarms[a.Code] == nil {
			t.alarms[a.Code] = &places{}
		}
		t.alarms[a.Code].add(site)
	}
}

// Failed reports whether a node in this phase went wrong and somebody has to look at it.
func Failed(p Phase) bool { return p == Quarantined || p == InstallFailed || p == RolledBack }

// Summary is what was counted so far. Rollouts are the caller's; a paused one needs attention.
func (t *Tally) Summary(asOf time.Time, rollouts []RolloutLine) Summary {
	s := t.sum
	s.APIVersion, s.Kind, s.AsOf = APIVersion, "FleetSummary", asOf
	s.Rollouts = append([]RolloutLine{}, rollouts...)
	s.Phases = []PhaseCount{}
	known := Order()
	for _, p := range slices.Sorted(maps.Keys(t.phases)) { // one that a newer node speaks of comes last
		if !slices.Contains(known, p) {
			known = append(known, p)
		}
	}
	for _, p := range known {
		if c := t.phases[p]; c != nil {
			s.Phases = append(s.Phases, *c)
		}
	}
	if t.oldest.Site != "" {
		o := t.oldest
		s.Longest = &o
	}
	s.Attention = t.attention(rollouts)
	if n := len(s.Attention) - MaxAttention; n > 0 {
		s.Attention, s.More = s.Attention[:MaxAttention], n
	}
	return s
}

// shownSilent is how many silent sites are named one by one.
const shownSilent = 5

// attention lists what a person should look at, the most urgent first.
func (t *Tally) attention(rollouts []RolloutLine) []Attention {
	out := []Attention{}
	nodes := func(p *places, what, command, code string) {
		if p.nodes > 0 {
			out = append(out, Attention{Subject: count(p.nodes, "node"), Text: what + " " + p.String(), Command: command, Code: code, Count: p.nodes})
		}
	}
	nodes(&t.quarant, "quarantined", "meshctl quarantine list", "")
	for _, r := range rollouts {
		if r.State == "Paused" {
			out = append(out, Attention{Subject: r.Policy, Text: strings.TrimSuffix("rollout paused: "+r.Reason, ": "), Command: "meshctl rollout status " + r.Policy, Count: 1})
		}
	}
	faults := slices.SortedFunc(maps.Keys(t.faults), func(a, b fault) int {
		return cmp.Or(cmp.Compare(t.faults[b].nodes, t.faults[a].nodes), cmp.Compare(a.phase, b.phase), cmp.Compare(a.reason, b.reason), cmp.Compare(a.code, b.code))
	})
	for _, f := range faults {
		filter := "phase=" + string(f.phase)
		what := string(f.phase)
		if f.reason != "" {
			filter += ",reason=" + quoted(f.reason)
			what += ": " + f.reason
		}
		if f.code != "" {
			filter += ",code=" + f.code
			what += " (" + f.code + ")"
		}
		nodes(t.faults[f], what, "meshctl node list --filter "+shell(filter), f.code)
	}
	overdue, silent := string(problem.InstallOverdue), string(problem.SiteSilent)
	nodes(&t.overdue, "overdue", "meshctl node list --filter alarm="+overdue, overdue)
	out = append(out, t.silence()...)
	nodes(&t.quiet, "silent", "meshctl node list --filter silent=true", silent)
	for _, code := range slices.Sorted(maps.Keys(t.alarms)) {
		nodes(t.alarms[code], "alarm "+code, "meshctl node list --filter alarm="+shell(code), code)
	}
	return out
}

// silence names the sites that have been silent for longest, and counts the others.
func (t *Tally) silence() (out []Attention) {
	order := make([]int, len(t.silent))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(t.silent[a].Since.Compare(t.silent[b].Since), cmp.Compare(t.silent[a].Site, t.silent[b].Site))
	})
	rest := 0
	for i, k := range order {
		if i >= shownSilent && len(order) > shownSilent+1 {
			rest++
			continue
		}
		a := Attention{Subject: t.silent[k].Site, Text: count(t.counts[k], "node") + " never heard of",
			Command: "meshctl status " + t.silent[k].Site, Code: string(problem.SiteSilent), Count: t.counts[k]}
		if since := t.silent[k].Since; !since.IsZero() {
			a.Text, a.Since = count(t.counts[k], "node")+" silent", &since
		}
		out = append(out, a)
	}
	if rest > 0 {
		out = append(out, Attention{Subject: count(rest, "more site"), Text: "silent", Command: "meshctl status -o wide", Code: string(problem.SiteSilent), Count: rest})
	}
	return out
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// quoted is a value of a filter, in double quotes where it needs them.
func quoted(v string) string {
	if strings.ContainsAny(v, ", \"=!") {
		return `"` + strings.ReplaceAll(v, `"`, "'") + `"`
	}
	return v
}

// shell is an argument of a command line as a shell reads it.
func shell(v string) string {
	for _, r := range v {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("=,._-/", r)) {
			return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'"
		}
	}
	return v
}
