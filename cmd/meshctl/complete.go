package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
)

// What a shell may ask for. A person waits for the answer with a finger on the key: it comes at once or not at all, and
// what goes wrong is not told.
const completionBudget = 300 * time.Millisecond

// names is a kind of name that an argument is chosen from.
type names string

const (
	noNames      names = ""
	siteNames    names = "sites"
	placeNames   names = "places" // SITE or SITE/NODE
	nodeNames    names = "nodes"  // SITE/NODE
	policyNames  names = "policies"
	rolloutNames names = "rollouts"
	bundleNames  names = "bundles"
)

// argument says what the n-th argument of a command is.
func argument(command string, n int) names {
	_, command, _ = strings.Cut(command, " ") // without the program's name
	switch command {
	case "site remove-node":
		return []names{siteNames, nodeNames, noNames}[min(n, 2)]
	}
	if n > 0 {
		return noNames
	}
	switch command {
	case "status", "events", "why":
		return placeNames
	case "history", "receipt export", "node get", "quarantine add", "quarantine show", "quarantine release":
		return nodeNames
	case "site get", "site wan", "site timezone", "site token":
		return siteNames
	case "policy get", "policy delete", "policy history":
		return policyNames
	case "rollout status", "rollout history", "rollout pause", "rollout resume", "rollout promote", "rollout retry", "rollout undo":
		return rolloutNames
	case "rollback", "retry":
		return bundleNames
	}
	return noNames
}

// option says what the value of a flag is.
func option(flag string) names {
	switch flag {
	case "site":
		return siteNames
	case "policy":
		return policyNames
	case "bundle":
		return bundleNames
	}
	return noNames
}

// fixed completes a flag from words that are known beforehand.
func fixed(c *cobra.Command, flag string, words ...string) {
	// It fails only for a flag that the command has not, or that is completed already: a test would show it.
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeNames has every command below c complete its arguments and flags.
func completeNames(env cli.Env, c *cobra.Command) {
	for _, sub := range c.Commands() {
		completeNames(env, sub)
	}
	if c.ValidArgsFunction == nil && argument(c.CommandPath(), 0) != noNames {
		c.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			k := argument(c.CommandPath(), len(args))
			if k == nodeNames && len(args) > 0 { // the node of a site that is said already
				found, directive := suggest(env, c, k, args[0]+"/"+typed)
				for i := range found {
					found[i] = strings.TrimPrefix(found[i], args[0]+"/")
				}
				return found, directive
			}
			return suggest(env, c, k, typed)
		}
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if k := option(f.Name); k != noNames && f.Value.Type() != "bool" {
			_ = c.RegisterFlagCompletionFunc(f.Name, func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return suggest(env, c, k, typed)
			})
		}
	})
}

// suggest names what begins with what was typed.
func suggest(env cli.Env, c *cobra.Command, k names, typed string) ([]string, cobra.ShellCompDirective) {
	directive := cobra.ShellCompDirectiveNoFileComp
	q := query{k, ""}
	suffix := ""
	switch site, _, inSite := strings.Cut(typed, "/"); {
	case (k == nodeNames || k == placeNames) && inSite:
		q = query{nodeNames, site}
	case k == nodeNames:
		q, suffix, directive = query{siteNames, ""}, "/", directive|cobra.ShellCompDirectiveNoSpace
	case k == placeNames:
		q, directive = query{siteNames, ""}, directive|cobra.ShellCompDirectiveNoSpace
	}
	var out []string
	for _, n := range newPrompter(env, c).names(c.Context(), q) {
		if strings.HasPrefix(n, typed) {
			out = append(out, n+suffix)
		}
	}
	return out, directive
}

// query is what is asked of the seeder, or of the daemon of this machine.
type query struct {
	of   names
	site string // of nodes
}

// ask puts a query to the seeder.
func (q query) ask(ctx context.Context, client *api.Client) (out []string, err error) {
	switch q.of {
	case siteNames:
		all, err := client.Sites(ctx)
		return each(all, func(i api.SiteInfo) string { return i.Name }), err
	case nodeNames:
		s, err := client.Site(ctx, q.site)
		for _, n := range s.Nodes {
			out = append(out, s.Site+"/"+n.Node.Node)
		}
		return out, err
	case policyNames:
		all, err := client.Policies(ctx)
		return each(all, func(i api.PolicyInfo) string { return i.Name }), err
	case rolloutNames:
		all, err := client.Rollouts(ctx)
		return each(all, func(r api.Rollout) string { return r.Policy }), err
	case bundleNames:
		all, err := client.Bundles(ctx)
		return each(all, func(i api.BundleInfo) string { return i.Name }), err
	case noNames, placeNames:
	}
	return nil, nil
}

// askNode puts a query to the daemon of this machine, which knows its own site.
func (q query) askNode(ctx context.Context, client *api.NodeClient) (out []string, err error) {
	s, err := client.Status(ctx)
	switch {
	case err != nil:
	case q.of == siteNames:
		out = []string{s.Site}
	case q.of == nodeNames && q.site == s.Site:
		for _, n := range s.Nodes {
			out = append(out, s.Site+"/"+n.Node.Node)
		}
	}
	return out, err
}

func each[T any](all []T, name func(T) string) (out []string) {
	for _, x := range all {
		out = append(out, name(x))
	}
	return out
}

// fit leaves out what a shell might take for more than a name, and what is named twice.
func fit(all []string) []string {
	out := slices.DeleteFunc(slices.Clone(all), func(n string) bool {
		return n == "" || strings.ContainsFunc(n, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/", r))
		})
	})
	slices.SortFunc(out, cmp.Compare[string])
	return slices.Compact(out)
}
