package seeder

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// words says in a few words what decides: "blackout until 20:00 America/Chicago", "rule Daily 1Mbit".
func (t terms) words(now time.Time) string {
	if t.Paused && !t.Until.IsZero() {
		return t.Why + " until " + clock(now, t.Until)
	}
	return t.Why
}

// longPause is said where no end of a pause is known; it is said again with each renewal.
const longPause = 24 * time.Hour

// pause is how many milliseconds nothing may be sent.
func (t terms) pause(now time.Time) int64 {
	switch {
	case !t.Paused:
		return 0
	case t.Until.IsZero():
		return longPause.Milliseconds()
	}
	return max(t.Until.Sub(now).Milliseconds(), 1)
}

// clock writes an instant as it is read in the site: with the day unless it is today's, with the date beyond a week.
func clock(now, t time.Time) string {
	switch zone := t.Location(); {
	case wanprofile.Day(now.In(zone)) == wanprofile.Day(t):
		return t.Format("15:04 ") + zone.String()
	case t.Sub(now) < 6*24*time.Hour:
		return t.Format("Mon 15:04 ") + zone.String()
	default:
		return t.Format("2006-01-02 15:04 ") + zone.String()
	}
}

// wan is a site's account, what it may use of its WAN now and what it does use.
func (s *Seeder) wan(site fleet.Site) status.WAN {
	now, a, t := s.now(), s.ledger.site(site.Name), s.pace.terms(site.Name)
	out := status.WAN{CapBytesPerSecond: site.WAN.Cap, Payload: a.Payload, Plain: a.Plain, Needed: a.Needed, Duplicate: a.Duplicate, LeaseSplit: int(a.Splits),
		Unsure: a.Unsure, Allowed: t.BytesPerSecond, Paused: t.Paused, Rate: s.pace.rate(site.Name), Today: s.ledger.today(site.Name, t.day), DayLimit: site.WAN.PerDay}
	if !t.Until.IsZero() {
		until := t.Until.UTC()
		out.Until = &until
	}
	y := s.yield.state(site.Name)
	out.BaseRTT, out.Queue, out.Yielding = float64(y.BaseRTT)/1e6, float64(y.Queue)/1e6, y.Yielding
	out.Why = s.why(site.Name, now, t, out)
	return out
}

// why says what makes the rate what it is.
func (s *Seeder) why(site string, now time.Time, t terms, w status.WAN) string {
	wanted, connected := s.leases.active(site), len(s.sessions.of(site)) > 0
	switch {
	case t.Paused:
		return t.words(now)
	case w.Rate == 0 && !connected:
		return "idle: no node of the site is connected"
	case w.Rate == 0 && !wanted:
		return "idle: nothing to send"
	case w.Yielding:
		return fmt.Sprintf("yielding, the link's queue is %.0f ms over %.0f ms", w.Queue, w.BaseRTT)
	case t.BytesPerSecond > 0 && 10*w.Rate >= 9*t.BytesPerSecond:
		return "at the " + t.Why
	case s.pace.crowded():
		return "all sites together are at their cap of " + wanprofile.FormatRate(s.cfg.WANCapTotal)
	}
	return "as much as the link carries and the uplink asks for"
}
