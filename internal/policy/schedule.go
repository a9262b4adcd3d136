package policy

import (
	"errors"
	"fmt"
	"time"

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
