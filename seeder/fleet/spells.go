package fleet

import (
	"context"
	"database/sql"
	"time"
)

// A spell is a time during which a node was heard of again and again. It tells, for ever after, whether a node was silent
// at an instant: a statement only tells when it was heard last. A spell is not written anew with each sign of life.
const (
	spellGap  = 2 * time.Minute // a longer silence ends a spell
	spellStep = time.Minute     // how far behind the last sign of life it may be on disk
)

// spell notes that a node was heard.
func spell(ctx context.Context, tx *sql.Tx, peer string, seen time.Time) error {
	if seen.IsZero() {
		return nil
	}
	at := stamp(seen)
	res, err := tx.ExecContext(ctx, `UPDATE spells SET heard = ?1 WHERE peer = ?2 AND heard >= ?3 AND heard <= ?4`,
		at, peer, at-spellGap.Microseconds(), at-spellStep.Microseconds())
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO spells (peer, began, heard) SELECT ?1, ?2, ?2
		WHERE NOT EXISTS (SELECT 1 FROM spells WHERE peer = ?1 AND began <= ?2 AND heard >= ?3) ON CONFLICT (peer, began) DO NOTHING`,
		peer, at, at-spellGap.Microseconds())
	return err
}

// Heard says which of some nodes were heard of within so long before an instant. The answer about an instant that has passed
// does not change.
func (s *Store) Heard(ctx context.Context, peers []string, at time.Time, within time.Duration) (map[string]bool, error) {
	out := map[string]bool{}
	if len(peers) == 0 {
		return out, nil
	}
	marks, args := oneOf(peers)
	err := each(ctx, s.r, func(scan func(...any) error) error {
		var peer string
		err := scan(&peer)
		out[peer] = true
		return err
	}, `SELECT DISTINCT peer FROM spells WHERE peer IN (`+marks+`) AND began <= ? AND heard >= ?`,
		append(args, stamp(at), stamp(at.Add(-max(within, spellGap)-spellStep)))...)
	return out, err
}
