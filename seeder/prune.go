package seeder

import (
	"context"
	"time"

	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// How long is kept what is no record of the fleet, as meshctl audit, webhook and quarantine say; how often it is looked
// after, and how many rows go at one time, so that reports do not wait for it.
const (
	auditKept    = 400 * 24 * time.Hour
	refusalsKept = 30 * 24 * time.Hour
	maxRefusals  = 100_000
	deadKept     = 30 * 24 * time.Hour
	releasedKept = 400 * 24 * time.Hour
	pruneEvery   = time.Hour
	pruneBatch   = 500
)

// pruneLoop prunes when the seeder begins and every hour.
func (s *Seeder) pruneLoop(ctx context.Context) error {
	prune := func() {
		if err := s.prune(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("old entries not dropped; trying again", "in", pruneEvery.String(), "err", err)
		}
	}
	prune()
	return every(ctx, pruneEvery, prune)
}

// prune drops what is too old or too much.
func (s *Seeder) prune(ctx context.Context) error {
	now := s.now()
	b := fleet.Bounds{Audit: now.Add(-auditKept), Refusals: now.Add(-refusalsKept), MaxRefusals: maxRefusals, Dead: now.Add(-deadKept), Released: now.Add(-releasedKept)}
	for {
		if n, err := s.db.Prune(ctx, b, pruneBatch); err != nil || n < pruneBatch {
			return err
		}
	}
}
