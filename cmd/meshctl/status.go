package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// nodeSocket is where meshd listens on a node.
const nodeSocket = "/run/meshd/meshd.sock"

// statusFlags of "meshctl status".
type statusFlags struct {
	server
	out    output
	socket string
	watch  bool
	every  time.Duration
}

func newStatus(env cli.Env) *cobra.Command {
	s := &statusFlags{server: server{env: env}}
	c := &cobra.Command{
		Use:   "status [SITE | SITE/NODE]",
		Short: "show the fleet, a site or a node",
		Long: `Status shows what every node is doing and why.

On a node, with no seeder configured, it asks the local daemon: the answer is the
node's own site, and it works with the WAN down. With a seeder it shows the whole
fleet, or the site or node that is named.

The fleet fits one screen: what is under way, how many nodes are where, and what
a person should look at, with the command that shows it. -o wide lists the sites;
jsonl, csv and name give a line for each node (name of the fleet: for each site).

It ends with 3 when somebody has to look at a node: silent, rolled back, failed or
quarantined.`,
		Example: `  meshctl status
  meshctl status store-0417 -o wide
  meshctl status store-0417/pos-03 --json
  meshctl status --watch`,
		Args: cli.Args(0, 1, "SITE or SITE/NODE"),
		RunE: s.run,
	}
	s.addFlags(c, callTimeout)
	s.out.addFlags(c, "table", "wide", "json", "yaml", "jsonl", "csv", "name")
	c.Flags().StringVar(&s.socket, "socket", "", "ask the daemon at this `path` (default "+nodeSocket+" when no seeder is named)")
	c.Flags().BoolVarP(&s.watch, "watch", "w", false, "show it again and again until interrupted")
	c.Flags().DurationVar(&s.every, "every", 2*time.Second, "how often --watch asks")
	return c
}

func (s *statusFlags) run(c *cobra.Command, args []string) error {
	if err := s.out.check(c); err != nil {
		return err
	}
	if s.every <= 0 {
		return cli.Usage(c, "--every %s: want more than 0", s.every)
	}
	site, node, _ := strings.Cut(strings.Join(args, ""), "/")
	if len(args) == 1 && (site == "" || strings.HasSuffix(args[0], "/") || strings.Contains(node, "/")) {
		return cli.Usage(c, "%q: want SITE or SITE/NODE", args[0])
	}
	ask, err := s.source(site)
	if err != nil {
		return err
	}
	if s.watch {
		return s.watchLoop(c.Context(), ask, node)
	}
	return s.once(c.Context(), s.env.Stdout, ask, node)
}

// reply is what a speaker says: the fleet in a few lines, the whole of it, or a site.
type reply struct {
	summary *status.Summary
	fleet   *status.Fleet
	site    *status.Site
}

type asker func(context.Context) (reply, error)

func (s *statusFlags) source(site string) (asker, error) {
	who, err := s.speaker(s.socket)
	if err != nil {
		return nil, err
	}
	client, seeder := who.(*api.Client)
	switch {
	case !seeder || site != "":
		return func(ctx context.Context) (reply, error) {
			x, err := who.Site(ctx, site)
			return reply{site: &x}, err
		}, nil
	case s.out.format == "table" || s.out.format == "wide" || s.out.format == "name":
		return func(ctx context.Context) (reply, error) {
			x, err := client.Fleet(ctx, s.out.format != "table")
			return reply{summary: &x}, err
		}, nil
	}
	return func(ctx context.Context) (reply, error) {
		f, err := client.Status(ctx)
		return reply{fleet: &f}, err
	}, nil
}

func (s *statusFlags) once(ctx context.Context, w io.Writer, ask asker, node string) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	r, err := ask(ctx)
	if err != nil {
		return err
	}
	v := view{wide: s.out.format == "wide"}
	switch {
	case r.summary != nil:
		if s.out.format == "name" {
			err = siteLines(w, r.summary.SiteLines)
		} else {
			err = v.fleet(w, *r.summary)
		}
		return cmp.Or(err, summaryAttention(*r.summary))
	case r.fleet != nil:
		return s.show(w, r.fleet, r.fleet.Sites, nil, attention(r.fleet.Sites...))
	case node == "":
		return s.show(w, r.site, []status.Site{*r.site}, func(w io.Writer) error { return v.site(w, *r.site) }, attention(*r.site))
	}
	n, err := nodeOf(*r.site, node)
	if err != nil {
		return err
	}
	one := *r.site
	one.Nodes = []status.Seen{n}
	return s.show(w, n, []status.Site{one}, func(w io.Writer) error { return v.node(w, one.AsOf, n) }, attention(one))
}

// show prints the document, its nodes or the screen, and then reports what needs attention, if anything does.
func (s *statusFlags) show(w io.Writer, document any, sites []status.Site, screen func(io.Writer) error, attention error) error {
	var err error
	switch s.out.format {
	case "table", "wide":
		err = screen(w)
	case "name", "csv":
		err = nodeRows(w, s.out.format, sites)
	default:
		err = s.out.structured(w, document, func(emit func(any) error) error {
			for _, x := range sites {
				for _, n := range x.Nodes {
					if err := emit(n); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return cmp.Or(err, attention)
}

// summaryAttention is attention for the fleet in a few lines.
func summaryAttention(f status.Summary) error {
	why, failed := map[string]int{"silent": f.Silent}, 0
	for _, p := range f.Phases {
		if status.Failed(p.Phase) {
			why[string(p.Phase)] = p.Nodes
			why["silent"] -= p.Silent // each node counts once
			failed += p.Nodes
		}
	}
	next := "meshctl node list --filter attention=true"
	if len(f.Attention) > 0 {
		next = f.Attention[0].Command
	}
	return needs(why, failed+why["silent"], next)
}

// attention is the error that makes the command end with 3, or nil.
func attention(sites ...status.Site) error {
	why := map[string]int{}
	var nodes int
	var first string
	for _, s := range sites {
		for _, n := range s.Nodes {
			if w := needsAttention(n); w != "" {
				why[w]++
				nodes++
				if first == "" {
					first = s.Site + "/" + n.Node.Node
				}
			}
		}
	}
	return needs(why, nodes, "meshctl status "+first)
}

// needs is the error that says how many nodes need attention, and why; nil for none.
func needs(why map[string]int, nodes int, next string) error {
	if nodes == 0 {
		return nil
	}
	var parts []string
	for _, w := range []string{"silent", string(status.RolledBack), string(status.InstallFailed), string(status.Quarantined)} {
		if why[w] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", why[w], w))
		}
	}
	verb := "need"
	if nodes == 1 {
		verb = "needs"
	}
	return problem.New(problem.NeedsAttention, "%s %s attention: %s", cli.Count(nodes, "node"), verb, strings.Join(parts, ", ")).
		WithNext("%s", next)
}

// watchLoop shows the status until the context ends. A seeder that is away for a moment does not end it.
func (s *statusFlags) watchLoop(ctx context.Context, ask asker, node string) error {
	f, ok := s.env.Stdout.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		var b bytes.Buffer
		err := s.once(ctx, &b, ask, node)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if terminal {
			b = *bytes.NewBuffer(append([]byte("\x1b[H\x1b[2J"), b.Bytes()...))
		}
		if _, werr := b.WriteTo(s.env.Stdout); werr != nil {
			return werr
		}
		switch problem.ExitOf(err) {
		case problem.ExitOK, problem.ExitDegraded:
		case problem.ExitUnreachable, problem.ExitTimeout:
			fmt.Fprintln(s.env.Stderr, err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
