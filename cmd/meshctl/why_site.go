package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
)

// answerWhySite is the JSON answer about a site.
type answerWhySite struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"` // SiteReasons
	AsOf       time.Time      `json:"asOf"`
	Site       string         `json:"site"`
	Timezone   string         `json:"timezone"`
	Source     string         `json:"source"`
	Headline   string         `json:"headline"`
	Nodes      int            `json:"nodes"`
	Silent     int            `json:"silent"`
	LastSeen   *time.Time     `json:"lastSeen,omitempty"` // of any of its nodes
	Phases     map[string]int `json:"phases"`             // of the nodes, each with its reason: "Deferred: window closed"
	Policies   []string       `json:"policies"`           // what they follow
	Window     string         `json:"window,omitempty"`   // of the policy that most follow
	Content    []string       `json:"content"`            // who holds what
	Next       string         `json:"next"`
}

// siteReasons puts together why a site stands where it stands. Pure.
func siteReasons(s status.Site, policies []api.PolicyInfo) *answerWhySite {
	a := &answerWhySite{APIVersion: status.APIVersion, Kind: "SiteReasons", AsOf: s.AsOf, Site: s.Site, Timezone: s.Timezone, Source: s.Source,
		Nodes: len(s.Nodes), Phases: map[string]int{}, Policies: []string{}, Content: []string{}}
	follows := map[string]int{}
	waits, failed := 0, 0
	var first status.Seen // of those that wait for a time, the one that tries first
	for _, n := range s.Nodes {
		if n.Silent {
			a.Silent++
		}
		if !n.LastSeen.IsZero() && (a.LastSeen == nil || n.LastSeen.After(*a.LastSeen)) {
			at := n.LastSeen
			a.LastSeen = &at
		}
		what := string(n.Phase)
		if n.Reason != what && n.Phase != status.Installed {
			what += ": " + words(n.Reason)
		}
		a.Phases[cli.Printable(what)]++
		switch {
		case status.Failed(n.Phase) || n.Quarantine != "":
			failed++
		case !status.Final(n.Phase):
			waits++
			if t := n.NextAttempt; t != nil && t.After(s.AsOf) && (first.NextAttempt == nil || t.Before(*first.NextAttempt)) {
				first = n
			}
		}
		if n.Desired != nil {
			follows[policyOf(n.Node)+" for "+wanted(n.Node)]++
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(follows), func(x, y string) int { return cmp.Or(cmp.Compare(follows[y], follows[x]), cmp.Compare(x, y)) }) {
		a.Policies = append(a.Policies, fmt.Sprintf("%s on %s", p, cli.Count(follows[p], "node")))
	}
	if len(a.Policies) > 0 {
		name, _, _ := strings.Cut(a.Policies[0], "@")
		if p := parsed(find(policies, name)); p != nil {
			a.Window = windowLine(p, s.Timezone, s.AsOf)
		}
	}
	for _, b := range s.Bundles {
		a.Content = append(a.Content, cli.Printable(fmt.Sprintf("%s %s is whole on %d of %d that want it", b.Bundle, b.Version, b.Holders, b.Wanted)))
	}
	a.Headline, a.Next = a.sum(waits, failed), a.next(waits, failed, first)
	return a
}

// sum is the answer in one sentence.
func (a *answerWhySite) sum(waits, failed int) string {
	switch {
	case a.Nodes == 0:
		return a.Site + " has no nodes: meshctl site token " + a.Site
	case a.Silent == a.Nodes && a.LastSeen == nil:
		return fmt.Sprintf("%s has never been heard of", a.Site)
	case a.Silent == a.Nodes:
		return fmt.Sprintf("%s has said nothing for %s: its %s keep the last signed policy and may install in their window without us", a.Site, cli.Age(a.AsOf.Sub(*a.LastSeen)), cli.Count(a.Nodes, "node"))
	}
	out := fmt.Sprintf("%s is heard of: %d of %s", a.Site, a.Nodes-a.Silent, cli.Count(a.Nodes, "node"))
	if failed > 0 {
		out += fmt.Sprintf("; %d went wrong", failed)
	}
	if waits > 0 {
		out += fmt.Sprintf("; %d not done yet", waits)
	} else if failed == 0 {
		out += "; all have what is asked of them"
	}
	return out
}

func (a *answerWhySite) next(waits, failed int, first status.Seen) string {
	switch {
	case first.NextAttempt != nil:
		return fmt.Sprintf("%s (in %s): %s, the first of %d", date(a.Timezone, *first.NextAttempt), cli.Age(first.NextAttempt.Sub(a.AsOf)), first.Node.Node, waits)
	case a.Nodes == 0:
		return "when a node joins"
	case a.Silent == a.Nodes:
		return "when it is heard of again: its reports wait there"
	case waits > 0:
		return fmt.Sprintf("now: %s at it", cli.Count(waits, "node"))
	case failed > 0:
		return "none by itself; see meshctl node list --filter site=" + a.Site + ",attention=true"
	}
	return "none: it is done"
}

// write is the answer in at most six lines.
func (a *answerWhySite) write(w io.Writer) error {
	var t cli.Table
	if len(a.Phases) > 0 {
		t.Row("  nodes", reasons(a.Phases))
	}
	if len(a.Policies) > 0 {
		t.Row("  policy", strings.Join(a.Policies, "; "))
	}
	if a.Window != "" {
		t.Row("  window", a.Window)
	}
	if len(a.Content) > 0 {
		t.Row("  content", strings.Join(a.Content, "; "))
	}
	t.Row("  next", cli.Printable(a.Next))
	if _, err := fmt.Fprintln(w, cli.Printable(a.Headline)+"."); err != nil {
		return err
	}
	_, err := t.WriteTo(w)
	return err
}
