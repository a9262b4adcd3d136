package fleet

import (
	"context"
	"database/sql"
	"time"

	"github.com/patchmesh/patchmesh/internal/trust"
)

// Rollout is where a revision of a policy stands, in the words of package seeder/rollout.
type Rollout struct {
	Policy   string
	Revision uint64
	State    []byte
	Updated  time.Time
}

// Grant is a signed grant of a site.
type Grant struct {
	Policy   string
	Site     string
	Revision uint64
	Serial   uint64
	Document trust.Signed
}

// PutRollout records where a rollout stands together with the grants that follow from it, each in the place of the one
// before of its policy and site.
func (s *Store) PutRollout(ctx context.Context, r Rollout, grants []Grant) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO rollouts VALUES (?, ?, ?, ?)
			ON CONFLICT (policy, revision) DO UPDATE SET state = excluded.state, updated = excluded.updated`,
			r.Policy, int64(r.Revision), r.State, stamp(r.Updated)); err != nil {
			return err
		}
		for _, g := range grants {
			if _, err := tx.ExecContext(ctx, `INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (policy, site) DO UPDATE SET revision = excluded.revision, serial = excluded.serial, doc = excluded.doc, sig = excluded.sig`,
				g.Policy, g.Site, int64(g.Revision), int64(g.Serial), g.Document.Doc, g.Document.Sig); err != nil {
				return err
			}
		}
		return nil
	})
}

// Rollouts returns the rollout of the newest revision of each policy.
func (s *Store) Rollouts(ctx context.Context) ([]Rollout, error) {
	return readRollouts(ctx, s.r, `SELECT policy, revision, state, updated FROM rollouts r
		WHERE revision = (SELECT max(revision) FROM rollouts WHERE policy = r.policy) ORDER BY policy`)
}

// RolloutHistory returns the rollouts of a policy, the newest first.
func (s *Store) RolloutHistory(ctx context.Context, policy string, limit int) ([]Rollout, error) {
	return readRollouts(ctx, s.r, `SELECT policy, revision, state, updated FROM rollouts WHERE policy = ? ORDER BY revision DESC LIMIT ?`, policy, limit)
}

func readRollouts(ctx context.Context, q querier, query string, args ...any) (out []Rollout, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var r Rollout
		var revision, updated int64
		err := scan(&r.Policy, &revision, &r.State, &updated)
		r.Revision, r.Updated = uint64(revision), unstamp(updated)
		out = append(out, r)
		return err
	}, query, args...)
	return out, err
}

// Grants returns the newest grant of every policy and site.
func (s *Store) Grants(ctx context.Context) (out []Grant, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var g Grant
		var revision, serial int64
		err := scan(&g.Policy, &g.Site, &revision, &serial, &g.Document.Doc, &g.Document.Sig)
		g.Revision, g.Serial = uint64(revision), uint64(serial)
		out = append(out, g)
		return err
	}, `SELECT policy, site, revision, serial, doc, sig FROM grants ORDER BY policy, site`)
	return out, err
}
