package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/window"
)

// ErrNoSiteZone is why a schedule in the zone of the site says nothing about a site whose zone is not known. It is not
// UTC: a window at the wrong hour is worse than none (rule W7).
var ErrNoSiteZone = errors.New("the policy's windows are in the time zone of the site, and the site has none")

// Decide says whether an install may start at an instant. site is the site's zone, nil if it is not known.
func (s Schedule) Decide(now time.Time, site *time.Location) (window.Verdict, error) {
	r, err := s.Rules(site)
	if err != nil {
		return window.Verdict{}, err
	}
	return r.Decide(now), nil
}

// Rules are the schedule in its time zone; site is the zone of the site, nil if it is not known.
func (s Schedule) Rules(site *time.Location) (*window.Rules, error) {
	r := &window.Rules{Zone: time.UTC, NotBefore: s.NotBefore, Cutoff: s.Cutoff}
	var err error
	switch {
	case s.Zone == ZoneSite && site == nil:
		return nil, ErrNoSiteZone
	case s.Zone == ZoneSite:
		r.Zone = site
	case s.Zone != "":
		if r.Zone, err = LoadZone(s.Zone); err != nil {
			return nil, err
		}
	}
	if s.Windows != "" {
		if r.Windows, err = window.Parse(s.Windows); err != nil {
			return nil, err
		}
	}
	for _, b := range s.Blackouts {
		d := window.Dates{Reason: b.Reason}
		if d.First, err = wall.ParseDate(b.From); err != nil {
			return nil, err
		}
		if d.Last, err = wall.ParseDate(b.To); err != nil {
			return nil, err
		}
		r.Blackouts = append(r.Blackouts, d)
	}
	return r, nil
}

// Anytime is the schedule of a node that is overdue and may start outside its windows: blackouts and NotBefore stay.
func (s Schedule) Anytime() Schedule {
	s.Windows, s.Cutoff = "", 0
	return s
}

// LoadZone finds a time zone by its IANA name. "Local", which is another one on every machine, is none.
func LoadZone(name string) (*time.Location, error) {
	z, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" || len(name) > 64 {
		return nil, fmt.Errorf("time zone %.70q is not known: want an IANA name such as America/Chicago, or UTC", name)
	}
	return z, nil
}

const (
	pathWindow    = "spec.schedule.maintenanceWindow"
	pathWindows   = "spec.schedule.maintenanceWindows"
	pathZone      = "spec.schedule.timezone"
	pathBlackouts = "spec.schedule.blackouts"
	pathCutoff    = "spec.schedule.startCutoffMinutes"
	pathDeferrals = "spec.schedule.maxDeferrals"
	pathAfter     = "spec.schedule.deadline.after"
	pathAction    = "spec.schedule.deadline.action"
	pathTimeout   = "spec.rollback.healthCheckTimeoutSeconds"
	pathHealthy   = "spec.rollback.healthyForSeconds"
)

// schedule reads spec.schedule.
func (r *reader) schedule(root *yaml.Node) Schedule {
	s := Schedule{
		Cutoff:       time.Duration(r.number(pathCutoff, "minutes", 0, wall.WholeDay)) * time.Minute,
		MaxDeferrals: r.number(pathDeferrals, "windows", 0, 1000),
		Deadline:     r.duration(pathAfter, MaxDeadline),
		RunAnytime:   r.word(pathAction, "Alert", "RunAnytime") == "RunAnytime",
		NotBefore:    r.instant("spec.schedule.notBefore"),
	}
	var windows []string
	if n := r.values[pathWindow]; n != nil {
		windows = append(windows, r.window(n, pathWindow))
	}
	if n := r.values[pathWindows]; n != nil {
		for i, w := range n.Content {
			windows = append(windows, r.window(w, fmt.Sprintf("%s[%d]", pathWindows, i)))
		}
	}
	s.Windows = strings.Join(windows, ";")
	if n := r.values[pathBlackouts]; n != nil {
		for i, b := range n.Content {
			s.Blackouts = append(s.Blackouts, r.blackout(b, fmt.Sprintf("%s[%d]", pathBlackouts, i)))
		}
	}
	if n := r.values[pathZone]; n != nil {
		if v, ok := r.text(n, pathZone); ok {
			if s.Zone = v; v != ZoneSite {
				if _, err := LoadZone(v); err != nil {
					r.invalid(n, "%s: %v, or %s", pathZone, err, ZoneSite)
				}
			}
		}
	}
	for _, path := range []string{pathWindow, pathWindows, pathBlackouts} {
		if n := r.values[path]; n != nil && s.Zone == "" && r.values[pathZone] == nil && (s.Windows != "" || len(s.Blackouts) > 0) {
			r.invalid(n, "%s needs %s: an IANA name such as America/Chicago, UTC, or %s for each site's own", path, pathZone, ZoneSite)
			break
		}
	}
	for _, path := range []string{pathCutoff, pathDeferrals} {
		if n := r.values[path]; n != nil && s.Windows == "" {
			r.invalid(n, "%s is about windows, and there is none: give %s", path, pathWindow)
		}
	}
	if n := r.values[pathAction]; n != nil && s.Deadline == 0 && s.MaxDeferrals == 0 {
		r.invalid(n, "%s never comes to pass: give %s or %s", pathAction, pathAfter, pathDeferrals)
	}
	return s
}

// window checks one text of windows and returns it.
func (r *reader) window(n *yaml.Node, path string) string {
	v, ok := r.text(n, path)
	if !ok {
		return ""
	}
	if _, err := window.Parse(v); err != nil {
		r.note(problem.InvalidWindow, n, fmt.Sprintf("%s: %v", path, err))
	}
	return v
}

// blackout reads {from: 2026-11-20, to: 2026-12-02, reason: Black Friday}.
func (r *reader) blackout(n *yaml.Node, path string) (b Blackout) {
	if !r.mapping(n, path) {
		return b
	}
	var dates [2]wall.Date
	var seen [2]bool
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := r.key(n, i, path)
		if !ok {
			continue
		}
		value, at := n.Content[i+1], join(path, name)
		switch name {
		case "from":
			dates[0], b.From, seen[0] = r.date(value, at)
		case "to":
			dates[1], b.To, seen[1] = r.date(value, at)
		case "reason":
			b.Reason, _ = r.text(value, at)
		default:
			r.invalid(n.Content[i], "%s is not a field of %s: a blackout has from, to and reason", at, Kind)
		}
	}
	days := dates[0].Until(dates[1]) + 1
	switch {
	case !seen[0] || !seen[1]:
		r.invalid(n, "%s needs from and to, dates of which both are included: {from: 2026-11-20, to: 2026-12-02, reason: Black Friday}", path)
	case days < 1:
		r.invalid(n, "%s ends on %s, before it begins on %s", path, b.To, b.From)
	case days > MaxBlackoutDays:
		r.invalid(n, "%s has %d days, at most %d: to stop a policy, delete it", path, days, MaxBlackoutDays)
	}
	return b
}

// date reads a date, which YAML takes for a time unless it is in quotes.
func (r *reader) date(n *yaml.Node, path string) (d wall.Date, text string, seen bool) {
	if !r.plain(n, path) {
		return d, "", true
	}
	d, err := wall.ParseDate(n.Value)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && n.Tag != "!!timestamp" || err != nil {
		r.invalid(n, "%s %.40q is not a date: write it as 2026-11-20", path, n.Value)
	}
	return d, n.Value, true
}

// instant reads RFC 3339; null is the same as leaving it out.
func (r *reader) instant(path string) time.Time {
	n := r.values[path]
	if n == nil || n.Tag == "!!null" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if n.Tag != "!!str" && n.Tag != "!!timestamp" || err != nil || t.Year() < 2000 || t.Year() > 2200 {
		r.invalid(n, "%s %.40q is not a time: write it as 2026-11-20T02:00:00Z, or with an offset, 2026-11-20T02:00:00-06:00", path, n.Value)
		return time.Time{}
	}
	return t.UTC()
}

// duration reads "30d", "36h", "90m" or several together.
func (r *reader) duration(path string, most time.Duration) time.Duration {
	n := r.values[path]
	if n == nil {
		return 0
	}
	v, ok := r.text(n, path)
	if !ok {
		return 0
	}
	var d time.Duration
	rest := v
	if head, tail, ok := strings.Cut(v, "d"); ok {
		days, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			rest = "?"
		} else if d, rest = time.Duration(days)*24*time.Hour, tail; rest == "" {
			rest = "0s"
		}
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || more > most || d+more < time.Minute || d+more > most {
		r.invalid(n, "%s %.40q is not a time from 1m to %dd: write it as 30d, 36h or 90m", path, v, most/(24*time.Hour))
		return 0
	}
	return d + more
}

// agree checks what several fields say together.
func (r *reader) agree(root *yaml.Node, p *Policy) {
	at := func(paths ...string) *yaml.Node { // the first one that is written
		for _, path := range paths {
			if n := r.values[path]; n != nil {
				return n
			}
		}
		return root
	}
	timeout := time.Duration(p.Rollback.HealthTimeoutSeconds) * time.Second
	if n := r.values[pathHealthy]; n != nil && p.Rollback.HealthyForSeconds >= p.Rollback.HealthTimeoutSeconds {
		r.invalid(n, "%s is %d and must be less than %s, which is %d", pathHealthy, p.Rollback.HealthyForSeconds, pathTimeout, p.Rollback.HealthTimeoutSeconds)
	}
	if n := r.values["spec.rollback.snapshot.provider"]; n != nil && p.Rollback.Snapshot.Provider == ProviderNone && p.Rollback.Snapshot.Required {
		r.invalid(n, "spec.rollback.snapshot.provider none needs spec.rollback.snapshot.required: false, to say that installing without a way back is meant")
	}
	if p.Schedule.Windows == "" {
		return
	}
	set, err := window.Parse(p.Schedule.Windows)
	if err != nil {
		if len(r.found) == 0 { // each is right, together they are too many
			r.invalid(at(pathWindows, pathWindow), "%s and %s: %v", pathWindow, pathWindows, err)
		}
		return
	}
	shortest := set.Shortest()
	if timeout >= shortest {
		r.invalid(at(pathTimeout, pathWindow, pathWindows), "%s is %s and must be less than %s, of which the shortest is %s", pathTimeout, timeout, pathWindow, shortest)
	}
	if p.Schedule.Cutoff >= shortest {
		r.invalid(at(pathCutoff), "%s is %s and must be less than %s, of which the shortest is %s: no install could ever start", pathCutoff, p.Schedule.Cutoff, pathWindow, shortest)
	}
}
