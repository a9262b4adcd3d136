// Package wanprofile says how much of its WAN a site gives away, and when: a hard cap, rules by the day of the week and
// the time in the site, and a total for each day. It is arithmetic on values: the time is handed in and who obeys it is
// somebody else's business. A Profile is not changed after it was made; it is safe for concurrent use.
//
// A profile is a small YAML or JSON document:
//
//	cap: 6Mbit        # never more than this; 0: no cap
//	perDay: 5GB       # from midnight to midnight in the site; 0: no total
//	rules:            # the first that matches says the rate; where none does, the cap
//	  - Mon-Fri 08:00-20:00 2Mbit
//	  - Sat,Sun 09:00-18:00 blackout
//	  - Daily 01:00-05:00 unlimited
//	  - Daily 1Mbit
//
// DAYS are those of the policies: Mon..Sun, three letters or all, in any case; lists; ranges, around the end of the week
// too; Daily or * for all. Times are HH:MM, the end may be 24:00; none is the whole day. An end that is not after its
// start is on the next day, so equal ones are 24 hours. Rates are what a link is sold by, bits per second: 512kbit, 6Mbit, 1Gbit.
// "unlimited" is the cap and nothing less. What a rule says never lifts the cap.
//
// Rates and totals are bytes as they cross the link, with the overhead of protocols; see package seeder for how they are
// counted.
package wanprofile

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// Limits of a document.
const (
	MaxBytes  = 16 << 10
	MaxRules  = 32
	MinRate   = 8_000             // bytes per second, 64 kbit/s: below it a chunk takes minutes and nodes take the link for dead
	MaxRate   = 125_000_000_000   // bytes per second, 1 Tbit/s
	MinPerDay = 4 << 20           // bytes: a few chunks; with less no bundle would ever arrive
	MaxPerDay = 1_000_000_000_000 // bytes
)

// horizon is how far ahead the next change is looked for: a week of rules, and a day for clocks that are changed.
const horizon = 8

// Profile is a site's WAN profile. The zero value limits nothing.
type Profile struct {
	Cap    int64  // bytes per second, always; 0: none
	PerDay int64  // bytes of a local day; 0: no total
	Rules  []Rule // the first that matches decides
}

// Rule limits the rate at some hours of some days.
type Rule struct {
	Days wall.Days
	wall.Hours
	Rate     int64 // bytes per second; 0: no limit but the cap
	Blackout bool  // nothing is sent
}

// Allowance is what a site may be sent.
type Allowance struct {
	BytesPerSecond int64     // 0: no limit. Not valid when Paused
	Paused         bool      // nothing may be sent
	Why            string    // a few words for people: what decides
	Until          time.Time // when BytesPerSecond or Paused change, if no more is sent until then; zero: not within a week
}

// Allow says what holds at now, which is in the site's time zone (time.Time.In), when so many bytes were sent on its
// local day, which is Day(now). It keeps the time zone in Until.
func (p *Profile) Allow(now time.Time, sentToday int64) Allowance {
	spans := p.spans(now)
	a := p.at(spans, now, sentToday)
	for _, t := range borders(spans, now) {
		if t.After(now) {
			sent := sentToday
			if Day(t) != Day(now) {
				sent = 0
			}
			if b := p.at(spans, t, sent); b.Paused != a.Paused || !b.Paused && b.BytesPerSecond != a.BytesPerSecond {
				a.Until = t
				break
			}
		}
	}
	return a
}

// at is what holds at one instant that the spans cover.
func (p *Profile) at(spans []span, now time.Time, sentToday int64) Allowance {
	rule := -1
	for _, s := range spans {
		if (rule < 0 || s.rule < rule) && !now.Before(s.from) && now.Before(s.to) {
			rule = s.rule
		}
	}
	blackout, full := rule >= 0 && p.Rules[rule].Blackout, p.PerDay > 0 && sentToday >= p.PerDay
	switch {
	case blackout && full:
		return Allowance{Paused: true, Why: fmt.Sprintf("blackout, and the day's total of %s is used up", FormatSize(p.PerDay))}
	case blackout:
		return Allowance{Paused: true, Why: "blackout"}
	case full:
		return Allowance{Paused: true, Why: fmt.Sprintf("the day's total of %s is used up", FormatSize(p.PerDay))}
	case rule >= 0 && p.Rules[rule].Rate > 0 && (p.Cap == 0 || p.Rules[rule].Rate < p.Cap):
		return Allowance{BytesPerSecond: p.Rules[rule].Rate, Why: "rule " + p.Rules[rule].String()}
	case p.Cap > 0:
		return Allowance{BytesPerSecond: p.Cap, Why: "cap of " + FormatRate(p.Cap)}
	}
	return Allowance{Why: "no cap"}
}
