package seeder

import (
	"context"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// How often windows are looked at that do not exist, how far back at the most, and what remembers until when.
const (
	windowsEvery  = time.Minute
	windowsBehind = 7 * 24 * time.Hour
	windowsCursor = "windows"
)

// watchWindows tells of each window that the changing of clocks leaves nothing of (rule W4), when it would have opened.
func (s *Seeder) watchWindows(ctx context.Context) error {
	return every(ctx, windowsEvery, func() {
		if err := s.lookAtWindows(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("skipped windows not looked at; trying again", "in", windowsEvery.String(), "err", err)
		}
	})
}

// lookAtWindows tells of those since it last looked, each once: until when is on disk.
func (s *Seeder) lookAtWindows(ctx context.Context) error {
	now := s.now().UTC()
	at, ok, err := s.db.Cursor(ctx, windowsCursor)
	if err != nil {
		return err
	}
	from := time.Unix(at, 0)
	if oldest := now.Add(-windowsBehind); !ok || from.Before(oldest) {
		from = oldest
	}
	if !from.Before(now) {
		return nil
	}
	sites, err := s.db.Sites(ctx)
	if err != nil {
		return err
	}
	for _, w := range s.desired.all() {
		if w.policy == nil || w.policy.Schedule.Windows == "" {
			continue
		}
		told := map[string]bool{}
		for _, x := range sites {
			zone, err := policy.LoadZone(x.Timezone)
			if err != nil {
				zone = nil
			}
			rules, err := w.policy.Schedule.Rules(zone)
			if err != nil || told[rules.Zone.String()] {
				continue
			}
			told[rules.Zone.String()] = true
			for _, o := range rules.Skipped(from, now) {
				s.events.publish(api.Event{Kind: "policy", Name: "window skipped", Severity: "warning", Subject: w.Name, Policy: w.Name, Code: string(problem.WindowSkipped),
					Text: fmt.Sprintf("policy %s: %s does not exist in %s on %s, clocks go forward: the next window is used", w.Name, o.Window, rules.Zone, o.Date)})
			}
		}
	}
	return s.db.PutCursor(ctx, windowsCursor, now.Unix())
}
