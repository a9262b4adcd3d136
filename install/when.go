package install

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/grant"
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
		return s.granted(v, now)
	}
	return &deferral{reason: string(verdict.Reason), detail: verdict.Text, next: verdict.Next.UTC()}
}

// granted says whether operators and the rollout have something against a start now, in a window that is open; nil: they
// have not. The site's own cap and budget are the daemon's to keep, which knows what the neighbours do. Without a name or
// a site in the configuration it is not known whose grant it is: the daemon's word is taken for that, and no more.
func (s *session) granted(v *verified, now time.Time) error {
	switch {
	case v.wanted.Suspend:
		return &deferral{reason: grant.Paused, detail: "suspended by the policy"}
	case v.wanted.Rollout == nil:
		return nil
	case v.grantErr != nil:
		// Without its code: a grant that is not genuine says nothing about the bundle, which a bad signature would condemn.
		return &deferral{reason: grant.LeaseMissing, detail: "the grant in the request is not valid: " + v.grantErr.Error()}
	}
	g := v.grant
	if g != nil && !g.Fits(s.Config.Site, v.policy, v.revision, v.release.Checksum) {
		return &deferral{reason: grant.LeaseMissing, detail: fmt.Sprintf("the grant in the request is for policy %s, revision %d, at site %s", g.Policy, g.Revision, g.Site)}
	}
	var fresh time.Duration
	if v.wanted.Rollout.Strict {
		fresh = policy.GrantFresh
	}
	no := g.Permits(s.Config.Node, now, fresh)
	if no == nil {
		return nil
	}
	return &deferral{reason: no.Reason, detail: no.Text, next: no.Next}
}

// grantOf is the grant in a request; nil, if there is none. A bad one is an error only where one is needed.
func grantOf(set *trust.Set, at time.Time, r Request) (*grant.Grant, error) {
	if len(r.Grant) == 0 {
		return nil, nil
	}
	return grant.Open(set, trust.Signed{Doc: r.Grant, Sig: r.GrantSignature}, at)
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
