package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// wanChange is what the flags of "meshctl site wan" ask for.
type wanChange struct {
	file, limit, perDay string
	rules               []string
}

func newSiteWAN(s *server) *cobra.Command {
	var change wanChange
	var out output
	c := &cobra.Command{
		Use:   "wan SITE",
		Short: "show or change how much of its WAN a site gives away, and when",
		Long: `Wan shows a site's WAN profile. With -f it replaces the profile by a file, with
--cap, --per-day and --rule the parts that are named. The change is in force within
a second, also for what is being sent.

  cap: 6Mbit        never more than this; 0: no cap
  perDay: 5GB       from midnight to midnight in the site; 0: no total
  rules:            the first that matches says the rate; where none does, the cap
    - Mon-Fri 08:00-20:00 2Mbit
    - Sat,Sun 09:00-18:00 blackout
    - Daily 01:00-05:00 unlimited
    - Daily 1Mbit

Times are those of the site; an end that is not after its start is on the next day.
"unlimited" is the cap. Rates are bits per second and totals bytes as they cross the
link, the overhead of protocols included.`,
		Example: `  meshctl site wan store-0417
  meshctl site wan store-0417 -f profile.yaml
  meshctl site wan store-0417 --cap 6Mbit --per-day 5GB
  meshctl site wan store-0417 --rule "Mon-Fri 08:00-20:00 2Mbit" --rule "Sat,Sun blackout"`,
		Args: cli.Args(1, 1, "SITE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			partly := c.Flags().Changed("cap") || c.Flags().Changed("per-day") || c.Flags().Changed("rule")
			if partly && change.file != "" {
				return cli.Usage(c, "-f replaces the whole profile: give it alone")
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			var d wanprofile.Document
			switch {
			case change.file != "":
				d, err = change.replace(ctx, s.env, client, args[0])
			case partly:
				d, err = change.amend(ctx, c, client, args[0])
			default:
				d, err = client.SiteWAN(ctx, args[0])
			}
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(s.env.Stdout, d)
			}
			p, err := d.Profile()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(s.env.Stdout, p.Text())
			return err
		},
	}
	c.Flags().StringVarP(&change.file, "file", "f", "", "profile `file`, YAML or JSON, - for standard input")
	c.Flags().StringVar(&change.limit, "cap", "", "bits per second, always, e.g. `6Mbit`; 0: no cap")
	c.Flags().StringVar(&change.perDay, "per-day", "", "bytes of a local day, e.g. `5GB`; 0: no total")
	c.Flags().StringArrayVar(&change.rules, "rule", nil, "`rule`, in the place of all there are; may be given several times; \"\" for none")
	out.addFlags(c, "text", "json")
	return c
}

// replace puts the profile of a file in force.
func (w *wanChange) replace(ctx context.Context, env cli.Env, client *api.Client, site string) (wanprofile.Document, error) {
	b, err := readLimited(env, w.file, wanprofile.MaxBytes)
	if err != nil {
		return wanprofile.Document{}, problem.New(problem.InvalidFile, "profile file %s", w.file).Because(err)
	}
	p, err := wanprofile.Parse(w.file, b)
	if err != nil {
		return wanprofile.Document{}, err
	}
	return client.PutSiteWAN(ctx, site, p.Document())
}

// amend changes the parts that flags name.
func (w *wanChange) amend(ctx context.Context, c *cobra.Command, client *api.Client, site string) (wanprofile.Document, error) {
	d, err := client.SiteWAN(ctx, site)
	if err != nil {
		return d, err
	}
	if c.Flags().Changed("cap") {
		d.Cap = w.limit
	}
	if c.Flags().Changed("per-day") {
		d.PerDay = w.perDay
	}
	if c.Flags().Changed("rule") {
		d.Rules = nil
		for _, r := range w.rules {
			if r != "" {
				d.Rules = append(d.Rules, r)
			}
		}
	}
	p, err := d.Profile() // before anything is sent, and in the one spelling
	if err != nil {
		return d, err
	}
	return client.PutSiteWAN(ctx, site, p.Document())
}
