package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// targetsOf is whom the policy selects, in one line.
func targetsOf(p *policy.Policy) string {
	line := cli.Printable(p.Selector.String())
	if !p.Exclude.IsZero() {
		line += " except " + cli.Printable(p.Exclude.String())
	}
	if p.Priority != 0 {
		line += fmt.Sprintf(", priority %d", p.Priority)
	}
	return line
}

// rolloutOf says in words what the strategy does, defaults included.
func rolloutOf(p *policy.Policy) (lines []string) {
	o := p.Rollout
	if o == nil {
		return []string{}
	}
	if c := o.Canary; c != nil {
		then := "then the rest"
		if c.Manual {
			then = "then a person promotes"
		}
		line := fmt.Sprintf("canary %s, %s of soaking, %s", cli.Printable(c.Selector.String()), c.Soak, then)
		if f := p.FastTrack; f != nil {
			line += fmt.Sprintf("; left out for %s, approved by %s", f.CVE, cli.Printable(strings.Join(f.Approvers, ", ")))
		}
		lines = append(lines, line)
	}
	what := "nodes"
	if o.BySite {
		what = "sites"
	}
	line := "all " + what + " in one batch"
	if !o.Batch.IsZero() {
		of := ""
		if o.Batch.Percent > 0 {
			of = "of the "
		}
		from := "the end"
		if o.FromStarted {
			from = "the start"
		}
		line = fmt.Sprintf("batches of %s %s%s, %s from %s of one to the next", o.Batch, of, what, o.BatchDelay, from)
	}
	line += fmt.Sprintf(", at most %s of a site at once, %s for each node", o.MaxUnavailable, o.ProgressDeadline)
	exceeded := "pauses"
	if o.Budget.Rollback {
		exceeded = "goes back"
	}
	lines = append(lines, line, fmt.Sprintf("%s with more than %s failed (from %d nodes on), a site stops with more than %d", exceeded, o.Budget.Max, o.Budget.MinSamples, o.Budget.MaxPerSite))
	if o.Strict {
		lines = append(lines, fmt.Sprintf("strict: a node needs a grant younger than %s, and waits while the WAN is cut", shortly(policy.GrantFresh)))
	}
	return lines
}

func shortly(d time.Duration) string { return fmt.Sprintf("%d minutes", int(d.Minutes())) }

// conflicts reports the first pair of policies that would contradict each other on some node, and how many more do.
func conflicts(policies []*policy.Policy) error {
	var found []string
	for i, b := range policies {
		for _, a := range policies[:i] {
			labels, sure := policy.Overlap(a, b)
			switch {
			case !sure:
				found = append(found, fmt.Sprintf("%s and %s may select the same node for the bundle %q, with equal priority: their conditions are too many to tell", a.Name, b.Name, a.Bundle.Name))
			case labels != nil:
				found = append(found, fmt.Sprintf("%s and %s both select a node with %s for the bundle %q, with equal priority", a.Name, b.Name, nodeWith(labels), a.Bundle.Name))
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	if len(found) > 1 {
		found[0] += fmt.Sprintf(" (and %d more such pairs)", len(found)-1)
	}
	return problem.New(problem.PolicyConflict, "%s", found[0]).
		WithDone("nothing was applied; such a node would keep what it has").
		WithNext("give one of them a higher spec.priority, or change the selector of all but one")
}

func nodeWith(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, cli.Printable(k+"="+labels[k]))
	}
	if len(parts) == 0 {
		return "no labels"
	}
	return strings.Join(parts, ",")
}
