package policy

import (
	"fmt"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/window"
)

// schedule reads spec.schedule.
func (r *reader) schedule() Schedule {
	s := Schedule{
		Cutoff:       r.minutes(pathCutoff),
		MaxDeferrals: r.number(pathDeferrals),
		Deadline:     r.duration(pathAfter, MaxDeadline),
		RunAnytime:   r.word(pathAction) == "RunAnytime",
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
		for i := range n.Content {
			s.Blackouts = append(s.Blackouts, r.blackout(fmt.Sprintf("%s[%d]", pathBlackouts, i)))
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
func (r *reader) blackout(path string) (b Blackout) {
	from, first := r.date(path + ".from")
	to, last := r.date(path + ".to")
	b.From, b.To = first, last
	if n := r.values[path+".reason"]; n != nil {
		b.Reason, _ = r.text(n, path+".reason")
	}
	n, days := r.values[path], from.Until(to)+1
	switch {
	case r.values[path+".from"] == nil || r.values[path+".to"] == nil:
		r.invalid(n, "%s needs from and to, dates of which both are included: {from: 2026-11-20, to: 2026-12-02, reason: Black Friday}", path)
	case days < 1:
		r.invalid(n, "%s ends on %s, before it begins on %s", path, b.To, b.From)
	case days > MaxBlackoutDays:
		r.invalid(n, "%s has %d days, at most %d: to stop a policy, suspend it", path, days, MaxBlackoutDays)
	}
	return b
}
