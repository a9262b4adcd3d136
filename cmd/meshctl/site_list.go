package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// siteRow is a site as "site list" and "site get" show it.
type siteRow struct {
	api.SiteInfo
	Status *status.SiteLine     `json:"status,omitempty"` // not in the short table
	WAN    *wanprofile.Document `json:"wan,omitempty"`    // of the one site that was asked for
}

func newSiteList(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "list",
		Short: "list the sites",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) ([]siteRow, error) { return sites(ctx, client, &out) }, out.siteTable)
		},
	}
	out.addFlags(c, "table", "wide", "json", "yaml")
	return c
}

func newSiteGet(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "get SITE",
		Short: "show how one site is set up",
		Long: `Get shows how a site is set up, and what its nodes come to.
What each of them is doing is in "meshctl status SITE".`,
		Example: `  meshctl site get store-0417 -o yaml`,
		Args:    cli.Args(1, 1, "SITE"),
		RunE: func(c *cobra.Command, args []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) (siteRow, error) {
				return site(ctx, client, &out, args[0])
			},
				func(r siteRow) *cli.Table { return out.siteTable([]siteRow{r}) })
		},
	}
	out.addFlags(c, "table", "wide", "json", "yaml")
	return c
}

// sites asks for all, and for what their nodes come to unless it is not shown.
func sites(ctx context.Context, client *api.Client, out *output) ([]siteRow, error) {
	infos, err := client.Sites(ctx)
	if err != nil {
		return nil, err
	}
	lines := map[string]*status.SiteLine{}
	if out.format != "table" {
		fleet, err := client.Fleet(ctx, true)
		if err != nil {
			return nil, err
		}
		for i := range fleet.SiteLines {
			lines[fleet.SiteLines[i].Site] = &fleet.SiteLines[i]
		}
	}
	rows := []siteRow{}
	for _, i := range infos {
		rows = append(rows, siteRow{SiteInfo: i, Status: lines[i.Name]})
	}
	return rows, nil
}

func site(ctx context.Context, client *api.Client, out *output, name string) (siteRow, error) {
	rows, err := sites(ctx, client, out)
	if err != nil {
		return siteRow{}, err
	}
	for _, r := range rows {
		if r.Name == name {
			wan, err := client.SiteWAN(ctx, name)
			r.WAN = &wan
			return r, err
		}
	}
	return siteRow{}, problem.New(problem.NotFound, "there is no site %s", name).WithNext("meshctl site list")
}

func (o *output) siteTable(rows []siteRow) *cli.Table {
	var t cli.Table
	head := []string{"SITE", "NODES", "TIMEZONE", "WAN-CAP", "ROSTER"}
	if o.wide() {
		head = append(head, "INSTALLED", "READY", "SILENT", "FAILED", "PAYLOAD", "UPLINK", "BUNDLE")
	}
	t.Row(head...)
	for _, r := range rows {
		limit := "-"
		if r.CapBytesPerSecond > 0 {
			limit = cli.Rate(r.CapBytesPerSecond)
		}
		row := []string{r.Name, fmt.Sprintf("%5d", r.Nodes), dash(r.Timezone), limit, fmt.Sprint(r.RosterVersion)}
		if l := r.Status; o.wide() && l != nil {
			row = append(row, fmt.Sprintf("%9d", l.Phases[status.Installed]), fmt.Sprintf("%5d", l.Ready), fmt.Sprintf("%6d", l.Silent), fmt.Sprintf("%6d", l.Failed),
				size(l.Payload), dash(l.Uplink), dash(l.Version))
		}
		t.Row(row...)
	}
	return &t
}
