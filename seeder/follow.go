package seeder

import (
	"context"
	"time"

	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Of following the reports.
const (
	followEvery  = time.Second
	followBatch  = 500
	followCursor = "reports"
)

// beginFollowing marks where the reports begin that are followed. Of a database that an older program has filled that is
// its end: what happened before is no news, and no reason to put anybody under quarantine now.
func (s *Seeder) beginFollowing(ctx context.Context) error {
	if _, ok, err := s.db.Cursor(ctx, followCursor); ok || err != nil {
		return err
	}
	newest, err := s.db.Reports(ctx, fleet.Query{Limit: 1, Newest: true})
	if err != nil {
		return err
	}
	end := int64(0)
	for _, r := range newest {
		end = r.ID
	}
	return s.db.PutCursor(ctx, followCursor, end)
}

// follow reads what was recorded, each report once and in order, and lets quarantine and metrics hear of it. How far it
// has read is on disk: after a kill it goes on there, at worst with a few that it has seen.
func (s *Seeder) follow(ctx context.Context) error {
	return every(ctx, followEvery, func() {
		if err := s.followOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("reports not looked at; trying again", "in", followEvery.String(), "err", err)
		}
	})
}

// followOnce reads to the end.
func (s *Seeder) followOnce(ctx context.Context) error {
	after, _, err := s.db.Cursor(ctx, followCursor)
	if err != nil {
		return err
	}
	for {
		list, err := s.db.Reports(ctx, fleet.Query{After: after, Limit: followBatch})
		if err != nil || len(list) == 0 {
			return err
		}
		for _, r := range list {
			body, err := reportBody(r.Report)
			after = r.ID
			if err != nil { // it was checked when it came: one that cannot be read now holds up no other
				s.log.Error("report cannot be read", "report", r.ID, "err", err)
				continue
			}
			if err := s.judge(ctx, r, body); err != nil {
				return err
			}
			s.metrics.heard(r, body)
		}
		if err := s.db.PutCursor(ctx, followCursor, after); err != nil {
			return err
		}
	}
}
