package plan

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/internal/window"
)

// stage says when a site holds the bundle, zero if never, and what that means for its first window.
func (c *Change) stage(w World, s Site, pol *policy.Policy, rules *window.Rules, share int64) time.Time {
	missing := w.Missing(s.Name, pol.Bundle.Checksum)
	c.SiteBytes = max(c.SiteBytes, missing)
	c.WANBytes += missing
	if rules == nil {
		return time.Time{}
	}
	v := rules.Decide(w.Now)
	first, from := v.Next, w.Now
	if b := pol.Staging.StartBefore; b > 0 && !first.IsZero() && first.Add(-b).After(from) {
		from = first.Add(-b)
	}
	done, rate, why := stagedAt(s, share, from, missing)
	switch {
	case done.IsZero():
		c.Late = append(c.Late, Late{Site: s.Name, Rate: rate, Reason: why})
	case !v.Start && !first.IsZero() && done.After(first):
		c.Late = append(c.Late, Late{Site: s.Name, Late: done.Sub(first), Rate: rate, Reason: why})
	}
	if !done.IsZero() && (c.StagedBy == nil || done.After(*c.StagedBy)) {
		at := done.UTC()
		c.StagedBy = &at
	}
	return done
}

// share is what each site gets when all load at once and the seeder's own cap is what holds them up; 0: no limit.
func share(w World, pol *policy.Policy, nodes map[string]int) int64 {
	loading := int64(0)
	for site := range nodes {
		if w.Missing(site, pol.Bundle.Checksum) > 0 {
			loading++
		}
	}
	if w.Cap == 0 || loading == 0 {
		return 0
	}
	return max(1, w.Cap/loading)
}

// stagedAt is when a site has so many bytes more, at its profile's rates and no more than share a second; zero: not
// within a year. The rate is the one it begins with.
func stagedAt(s Site, share int64, from time.Time, bytes int64) (done time.Time, rate int64, why string) {
	zone := s.Zone
	if zone == nil {
		zone = time.UTC
	}
	now, today := from.In(zone), s.Today
	end := now.AddDate(1, 0, 0)
	for first := true; bytes > 0; first = false {
		if now.After(end) {
			return time.Time{}, rate, "the profile lets nothing through: " + why
		}
		a := s.WAN.Allow(now, today)
		next := wanprofile.DayEnd(now)
		if !a.Until.IsZero() && a.Until.Before(next) {
			next = a.Until
		}
		r := a.BytesPerSecond
		if share > 0 && (r == 0 || share < r) {
			r = share
		}
		if first {
			rate, why = r, a.Why
		}
		if a.Paused {
			today = carry(now, next, today)
			now = next
			continue
		}
		room := bytes
		if s.WAN.PerDay > 0 {
			room = min(room, max(s.WAN.PerDay-today, 1))
		}
		at := now // no limit: at once
		if r > 0 {
			at = now.Add(time.Duration(float64(room) / float64(r) * float64(time.Second)))
		}
		if at.After(next) {
			room, at = int64(next.Sub(now).Seconds()*float64(r)), next
		}
		bytes -= room
		today = carry(now, at, today+room)
		now = at
	}
	return now, rate, why
}

// carry is today's count at a later time: a new day begins with none.
func carry(from, to time.Time, today int64) int64 {
	if wanprofile.Day(from) != wanprofile.Day(to) {
		return 0
	}
	return today
}
