package main

import (
	"bytes"
	"context"
	"errors"
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
	s.out.addFlags(c, "table", "wide", "json")
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

// answerer returns the fleet or, where one was named or the speaker knows only one, a site.
type answerer func(context.Context) (*status.Fleet, *status.Site, error)

func (s *statusFlags) source(site string) (answerer, error) {
	access, found, err := s.access.Resolve(s.env.Getenv)
	if err != nil {
		return nil, err
	}
	if s.socket != "" || !found {
		return s.local(site)
	}
	client, err := api.NewClient(access)
	if err != nil {
		return nil, err
	}
	if site == "" {
		return func(ctx context.Context) (*status.Fleet, *status.Site, error) {
			f, err := client.Status(ctx)
			return &f, nil, err
		}, nil
	}
	return func(ctx context.Context) (*status.Fleet, *status.Site, error) {
		x, err := client.Site(ctx, site)
		return nil, &x, err
	}, nil
}

func (s *statusFlags) local(site string) (answerer, error) {
	socket := s.socket
	if socket == "" {
		socket = nodeSocket
	}
	client, err := api.NewNodeClient(socket)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (*status.Fleet, *status.Site, error) {
		x, err := client.Status(ctx)
		var p *problem.Error
		if s.socket == "" && errors.As(err, &p) && p.Code == problem.DaemonUnreachable {
			p.WithNext("on a node, check that meshd runs; elsewhere name the seeder: --server, MESHCTL_SERVER or ~/.config/meshctl/config.yaml")
		}
		if err == nil && site != "" && x.Site != site {
			err = problem.New(problem.NotFound, "this node is of site %s and knows no site %s", x.Site, site).WithNext("ask the seeder: --server")
		}
		return nil, &x, err
	}, nil
}

func (s *statusFlags) once(ctx context.Context, w io.Writer, ask answerer, node string) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	fleet, site, err := ask(ctx)
	if err != nil {
		return err
	}
	v := view{wide: s.out.format == "wide"}
	switch {
	case fleet != nil:
		return s.show(w, fleet, v.fleetOf(fleet), attention(fleet.Sites...))
	case node == "":
		return s.show(w, site, func(w io.Writer) error { return v.site(w, *site) }, attention(*site))
	}
	for _, n := range site.Nodes {
		if n.Node.Node == node {
			one := *site
			one.Nodes = []status.Seen{n}
			return s.show(w, n, func(w io.Writer) error { return v.node(w, site.AsOf, n) }, attention(one))
		}
	}
	return problem.New(problem.NotFound, "site %s has no node %s", site.Site, node).WithNext("meshctl status %s", site.Site)
}

func (v view) fleetOf(f *status.Fleet) func(io.Writer) error {
	return func(w io.Writer) error { return v.fleet(w, *f) }
}

// show prints the document or the screen and then reports what needs attention, if anything does.
func (s *statusFlags) show(w io.Writer, document any, screen func(io.Writer) error, attention error) error {
	var err error
	if s.out.json {
		err = cli.JSON(w, document)
	} else {
		err = screen(w)
	}
	if err != nil {
		return err
	}
	return attention
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
		WithNext("meshctl status %s", first)
}

// watchLoop shows the status until the context ends. A seeder that is away for a moment does not end it.
func (s *statusFlags) watchLoop(ctx context.Context, ask answerer, node string) error {
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
