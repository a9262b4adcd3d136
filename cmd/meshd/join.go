package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/node"
)

func newJoin(env cli.Env) *cobra.Command {
	var s settings
	var name string
	var advertise []string
	c := &cobra.Command{
		Use:   "join TOKEN",
		Short: "join a site, once",
		Long: `join redeems a token: it makes this node's key, proves it to the seeder that the token
names, and writes identity, roster and signing keys into the state directory. A token
works once, for one site, until it expires; if the answer was lost, the same
command may be repeated.`,
		Example: "  meshd join --name pos-01 pmt1_...",
		Args:    cli.Args(1, 1, "TOKEN"),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			if name == "" {
				if name, err = os.Hostname(); err != nil {
					return err
				}
				name, _, _ = strings.Cut(strings.ToLower(name), ".")
			}
			if len(advertise) == 0 {
				advertise = hints(cfg.ListenGossip)
			}
			ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
			defer cancel()
			j, err := node.Join(ctx, cfg.State, name, args[0], advertise)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "joined site %s as %s (peer ID %s, roster version %d)\n", j.Site, j.Node, j.PeerID, j.Roster)
			fmt.Fprintf(env.Stdout, "next, as root: write \"site: %s\" and \"node: %s\" into /etc/meshd/mesh-install.yaml, so that the executor need not take our word for it\n", j.Site, j.Node)
			return nil
		},
	}
	s.addFlags(c)
	c.Flags().StringVar(&name, "name", "", "name of this node in its site (default: the host's name)")
	c.Flags().StringSliceVar(&advertise, "advertise", nil, "host:port of this node's gossip, for its neighbours (default: from --listen-gossip)")
	return c
}

// hints are the addresses to tell neighbours: the listening one, or for an unspecified host those of this machine.
func hints(listen string) []string {
	a, err := netip.ParseAddrPort(listen)
	if err != nil || a.Port() == 0 {
		return nil
	}
	if !a.Addr().IsUnspecified() {
		return []string{a.String()}
	}
	var out []string
	ifs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, i := range ifs {
		if p, err := netip.ParsePrefix(i.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && len(out) < 8 {
			out = append(out, netip.AddrPortFrom(p.Addr(), a.Port()).String())
		}
	}
	return out
}
