package install

import (
	"time"

	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// mayStart says whether the policy's schedule lets an install start now; nil: it does. The daemon asks at the right time;
// that it is the right time is for the executor to say. What is started finishes, and a rollback by a person starts at
// any time. A zone that is not known is a no, never always.
//
// The site's zone is that of the configuration, or else of the roster that came with the request.
//
// Only the daemon has counted the windows that were missed. Where the policy lets what is overdue start outside of them,
// its word is taken for that, but not before the policy is as old as its deadline.
func (s *session) mayStart(v *verified) error {
	sc, now := v.wanted.Schedule, s.Now()
	site := v.site
	if s.Config.Timezone != "" {
		zone, err := policy.LoadZone(s.Config.Timezone)
		if err != nil {
			return &deferral{reason: string(preflight.ClockUnsure), detail: err.Error()}
		}
		site = zone
	}
	if sc.RunAnytime && !now.Before(v.created.Add(sc.Deadline)) {
		sc = sc.Anytime()
	}
	verdict, err := sc.Decide(now, site)
	if err != nil {
		return &deferral{reason: string(preflight.ClockUnsure), detail: err.Error()}
	}
	if verdict.Start {
		return nil
	}
	return &deferral{reason: string(verdict.Reason), detail: verdict.Text, next: verdict.Next.UTC()}
}

// siteZone is the time zone in the roster of a request; nil if there is none to be believed.
func siteZone(c Config, set *trust.Set, at time.Time, r Request) *time.Location {
	if len(r.Roster) == 0 {
		return nil
	}
	ros, err := roster.Open(set, trust.Signed{Doc: r.Roster, Sig: r.RosterSignature}, at)
	if err != nil || c.Site != "" && ros.Site != c.Site {
		return nil
	}
	zone, err := policy.LoadZone(ros.Timezone)
	if err != nil {
		return nil
	}
	return zone
}
