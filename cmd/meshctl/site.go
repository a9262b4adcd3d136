package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// callTimeout is enough for any call that carries no bundle, over a poor link.
const callTimeout = 30 * time.Second

func newSite(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{Use: "site", Short: "sites, join tokens and nodes"}
	s.addFlags(c, callTimeout)
	c.AddCommand(newSiteCreate(s), newSiteList(s), newSiteGet(s), newSiteWAN(s), newSiteTimezone(s), newSiteToken(s), newSiteRemoveNode(s))
	return c
}

func newSiteCreate(s *server) *cobra.Command {
	var zone, limit string
	var out output
	c := &cobra.Command{
		Use:   "create SITE",
		Short: "make a site",
		Long: `Create makes a site. Its nodes then join with tokens: meshctl site token SITE.

--wan-cap bounds what the seeder sends to the site. Write it as the link is sold,
in bits per second: 6Mbit, 512kbit. 0 means no cap. For more than a cap: meshctl
site wan SITE.`,
		Example: `  meshctl site create store-0417 --timezone America/Chicago --wan-cap 6Mbit`,
		Args:    cli.Args(1, 1, "SITE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			rate, err := wanprofile.ParseRate(limit)
			if err != nil {
				return cli.Usage(c, "--wan-cap %s", err)
			}
			if _, err := policy.LoadZone(zone); err != nil && zone != "" {
				return cli.Usage(c, "--timezone: %v", err)
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			info, err := client.CreateSite(ctx, api.SiteSpec{Name: args[0], Timezone: zone, CapBytesPerSecond: rate})
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(s.env.Stdout, info)
			}
			_, err = fmt.Fprintf(s.env.Stdout, "site %s created\n", info.Name)
			return err
		},
	}
	c.Flags().StringVar(&zone, "timezone", "", "the site's time zone, an IANA `name`; policies with \"timezone: site\" need it")
	c.Flags().StringVar(&limit, "wan-cap", "0", "bits per second to the site, e.g. `6Mbit`; 0: no cap")
	out.addFlags(c, "text", "json")
	return c
}

func newSiteTimezone(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "timezone SITE ZONE",
		Short: "say in which time zone a site is",
		Long: `Timezone says in which time zone a site is: for the windows of policies with
"timezone: site", and for its WAN profile. Its nodes hear of it in their signed roster.`,
		Example: `  meshctl site timezone store-0417 America/Chicago`,
		Args:    cli.Args(2, 2, "SITE ZONE"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := policy.LoadZone(args[1]); err != nil {
				return cli.Usage(c, "%v", err)
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			z, err := client.PutSiteZone(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.env.Stdout, "site %s is in %s\n", args[0], z.Timezone)
			return err
		},
	}
}

func newSiteToken(s *server) *cobra.Command {
	var ttl time.Duration
	var labels []string
	var wan string
	var out output
	c := &cobra.Command{
		Use:   "token SITE",
		Short: "make a token with which one node joins",
		Long: `Token prints a join token. It works once, for one node of the site, until it
expires. It pins the seeder's identity and every signing key, so that the new node
need not trust the network it joins over. Keep it secret until it is used.

--wan says whether the node may be the site's uplink: prefer, allow or never.`,
		Example: `  meshd join "$(meshctl site token store-0417 --label role=pos)"`,
		Args:    cli.Args(1, 1, "SITE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			spec := api.TokenSpec{TTLSeconds: int64(ttl / time.Second), WAN: roster.WAN(wan), Labels: map[string]string{}}
			for _, l := range labels {
				k, v, ok := strings.Cut(l, "=")
				if !ok || k == "" {
					return cli.Usage(c, "--label %q: want KEY=VALUE", l)
				}
				spec.Labels[k] = v
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			reply, err := client.CreateToken(ctx, args[0], spec)
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(s.env.Stdout, reply)
			}
			_, err = fmt.Fprintln(s.env.Stdout, reply.Token)
			return err
		},
	}
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token works, at most 24h")
	c.Flags().StringArrayVar(&labels, "label", nil, "label of the node, `KEY=VALUE`; may be given several times")
	c.Flags().StringVar(&wan, "wan", string(roster.WANAllow), "may the node be the uplink: prefer, allow, never")
	out.addFlags(c, "text", "json")
	return c
}

func newSiteRemoveNode(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "remove-node SITE NODE",
		Short: "take a node off the site's roster",
		Long: `Remove-node takes a node off the roster. Its neighbours close their connections
as soon as the new roster reaches them. Software on the node stays as it is.`,
		Args: cli.Args(2, 2, "SITE NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			if err := client.RemoveNode(ctx, args[0], args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.env.Stdout, "node %s/%s removed\n", args[0], args[1])
			return err
		},
	}
}
