package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/window"
)

func newLint(env cli.Env) *cobra.Command {
	var files, zones []string
	var revocations string
	var out output
	c := &cobra.Command{
		Use:   "lint -f FILE|DIR",
		Short: "check policies without applying them",
		Long: `Lint reads policies as apply does and says what is wrong in them. For those that
are right it prints when their windows open next, and warns of what the changing
of clocks does to them within twelve months. It needs no network.

Two policies that could select the same node for the same bundle name with equal
priority are a conflict: the node would keep what it has. Lint prints labels of such
a node and ends with status 6.

A policy that names a revoked bundle is refused, by the list that --revocations gives:
the file that "meshctl bundle revocations -o json" has printed.

Windows in the zone of each site ("timezone: site") are shown for the zones that
--zone names.`,
		Example: `  meshctl lint -f policy.yaml
  meshctl lint -f policies/
  meshctl lint -f policy.yaml --zone America/Chicago --zone America/Denver`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if len(files) == 0 {
				return cli.Usage(c, "no policy: give -f FILE")
			}
			var sites []*time.Location
			for _, name := range zones {
				z, err := policy.LoadZone(name)
				if err != nil {
					return cli.Usage(c, "--zone: %v", err)
				}
				sites = append(sites, z)
			}
			texts, err := readPolicies(env, files)
			if err != nil {
				return err
			}
			revoked, err := readRevocations(revocations)
			if err != nil {
				return err
			}
			findings, policies := []lintFinding{}, []*policy.Policy{}
			for _, t := range texts {
				p, err := policy.Parse(t.text)
				if err != nil {
					return err
				}
				if err := refuseRevoked(revoked, p.Bundle.Checksum); err != nil {
					return err
				}
				f, err := lint(p, sites, env.Now())
				if err != nil {
					return err
				}
				findings, policies = append(findings, f), append(policies, p)
			}
			if out.json {
				if err := cli.JSON(env.Stdout, findings); err != nil {
					return err
				}
				return conflicts(policies)
			}
			for _, f := range findings {
				f.write(env.Stdout)
			}
			return conflicts(policies)
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "policy `file`, directory of them, or - for standard input; may be given several times")
	c.Flags().StringArrayVar(&zones, "zone", nil, "time zone of a site, an IANA `name`, for policies with timezone: site; may be given several times")
	c.Flags().StringVar(&revocations, "revocations", "", "`file` with the list of revoked bundles")
	out.addFlags(c, "text", "json")
	return c
}

// lintFinding is what there is to say of one valid policy.
type lintFinding struct {
	Policy   string        `json:"policy"`
	Bundle   string        `json:"bundle"`
	Version  string        `json:"version"`
	Windows  string        `json:"windows"` // empty: installs start at any time
	Timezone string        `json:"timezone"`
	Targets  string        `json:"targets"`
	Priority int           `json:"priority"`
	Suspend  bool          `json:"suspend"`
	Rollout  []string      `json:"rollout"` // in words; empty: no order among the nodes
	Openings []lintOpening `json:"openings"`
	Warnings []lintWarning `json:"warnings"`
}

// lintOpening is a time in which installs may start and run; zero times: for longer than can be seen.
type lintOpening struct {
	Timezone string    `json:"timezone"`
	Opens    time.Time `json:"opens"`
	Closes   time.Time `json:"closes"`
}

type lintWarning struct {
	Code    problem.Code `json:"code"`
	Message string       `json:"message"`
}

// openings is how many are shown.
const openings = 4

// lint looks a year ahead. sites are the zones to look in where the policy leaves that to the site.
func lint(p *policy.Policy, sites []*time.Location, now time.Time) (lintFinding, error) {
	s := p.Schedule
	f := lintFinding{Policy: p.Name, Bundle: p.Bundle.Name, Version: p.Bundle.Version, Timezone: s.Zone,
		Targets: targetsOf(p), Priority: p.Priority, Suspend: p.Suspend, Rollout: rolloutOf(p), Openings: []lintOpening{}, Warnings: []lintWarning{}}
	if s.Zone != policy.ZoneSite {
		sites = []*time.Location{nil}
	}
	if set, err := window.Parse(s.Windows); err == nil && s.Windows != "" {
		f.Windows = set.String()
	}
	for _, site := range sites {
		r, err := s.Rules(site)
		if err != nil {
			return f, err
		}
		if f.Windows == "" && len(s.Blackouts) == 0 && s.NotBefore.IsZero() {
			continue
		}
		next := r.Upcoming(now, openings)
		for _, o := range next {
			f.Openings = append(f.Openings, lintOpening{r.Zone.String(), o.Opens, o.Closes})
		}
		if len(next) == 0 {
			f.warn(problem.WindowSkipped, "no install may start within two years in %s: look at blackouts and notBefore", r.Zone)
		}
		timeout := time.Duration(p.Rollback.HealthTimeoutSeconds) * time.Second
		first := wall.DateOf(now.In(r.Zone))
		for o := range r.Windows.Occurrences(r.Zone, first, first.Add(365)) {
			switch {
			case !o.Exists():
				f.warn(problem.WindowSkipped, "%s does not exist in %s on %s (clocks go forward); that day is skipped", o.Window, r.Zone, o.Date)
			case o.Length() < s.Cutoff:
				f.warn(problem.WindowShort, "%s lasts only %s in %s on %s (clocks go forward), less than schedule.startCutoffMinutes: nothing starts", o.Window, o.Length(), r.Zone, o.Date)
			case o.Length() <= timeout:
				f.warn(problem.WindowShort, "%s lasts only %s in %s on %s (clocks go forward), no more than rollback.healthCheckTimeoutSeconds", o.Window, o.Length(), r.Zone, o.Date)
			case o.Length() < o.Window.Length():
				f.warn(problem.WindowShort, "%s lasts only %s in %s on %s (clocks go forward)", o.Window, o.Length(), r.Zone, o.Date)
			}
		}
	}
	return f, nil
}

func (f *lintFinding) warn(code problem.Code, format string, args ...any) {
	f.Warnings = append(f.Warnings, lintWarning{code, fmt.Sprintf(format, args...)})
}

func (f *lintFinding) write(w io.Writer) {
	fmt.Fprintf(w, "policy %s is valid: %s %s\n", f.Policy, f.Bundle, f.Version)
	fmt.Fprintf(w, "targets  %s\n", f.Targets)
	if f.Suspend {
		fmt.Fprintln(w, "suspend  nothing starts")
	}
	for _, line := range f.Rollout {
		fmt.Fprintf(w, "rollout  %s\n", line)
	}
	switch {
	case f.Windows != "":
		fmt.Fprintf(w, "windows  %s %s\n", f.Windows, zoneName(f.Timezone))
	case len(f.Openings) == 0 && len(f.Warnings) == 0:
		fmt.Fprintln(w, "windows  none: installs start as soon as the bundle is staged")
	}
	if f.Timezone == policy.ZoneSite && len(f.Openings) == 0 {
		fmt.Fprintln(w, "opens    at another time in each zone: name the zones of your sites with --zone")
	}
	for _, o := range f.Openings {
		zone, err := time.LoadLocation(o.Timezone)
		if err != nil {
			zone = time.UTC
		}
		fmt.Fprintf(w, "opens    %s\n", opening(o, zone))
	}
	for _, x := range f.Warnings {
		fmt.Fprintf(w, "warning[%s]: %s\n", x.Code, x.Message)
	}
}

func zoneName(zone string) string {
	if zone == policy.ZoneSite {
		return "in the time zone of each site"
	}
	return zone
}

// opening writes "Tue 2026-11-24 02:00 EST to 04:00 EST (2h0m0s, America/New_York)".
func opening(o lintOpening, zone *time.Location) string {
	from, to := o.Opens.In(zone), o.Closes.In(zone)
	switch {
	case o.Opens.IsZero() && o.Closes.IsZero():
		return "always"
	case o.Opens.IsZero():
		return "now, to " + to.Format("Mon 2006-01-02 15:04 MST")
	case o.Closes.IsZero():
		return "from " + from.Format("Mon 2006-01-02 15:04 MST") + " on"
	}
	end := to.Format("15:04 MST")
	if wall.DateOf(from) != wall.DateOf(to) {
		end = to.Format("Mon 2006-01-02 15:04 MST")
	}
	return fmt.Sprintf("%s to %s (%s, %s)", from.Format("Mon 2006-01-02 15:04 MST"), end, to.Sub(from), zone)
}
