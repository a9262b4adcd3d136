package fleet

import (
	"context"
	"database/sql"
	"time"
)

// Bounds of what is kept beside the records of the fleet. Nothing that a node signed is ever dropped.
type Bounds struct {
	Audit       time.Time // entries from before it go
	Refusals    time.Time // and those of refusals from before this one
	MaxRefusals int       // of refusals no more than so many, the newest
	Dead        time.Time // letters that were given up, of events from before it
	Released    time.Time // quarantines that were released before it
}

// refused is the condition on entries of the audit log that say that somebody had no right. An index has the same
// condition.
const refused = `status IN (401, 403)`

// Prune drops at most so many rows of each kind that are beyond the bounds, in one transaction, and says how many it
// dropped of the kind of which it dropped most: less than it may means that nothing is left.
func (s *Store) Prune(ctx context.Context, b Bounds, most int) (dropped int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		dropped = 0
		var over int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM audit WHERE `+refused).Scan(&over); err != nil {
			return err
		}
		over = max(0, min(over-b.MaxRefusals, most))
		for _, x := range []struct {
			query string
			args  []any
		}{
			{`DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY at LIMIT ?)`, []any{stamp(b.Audit), most}},
			{`DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE ` + refused + ` AND at < ? ORDER BY at LIMIT ?)`, []any{stamp(b.Refusals), most}},
			{`DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE ` + refused + ` ORDER BY at LIMIT ?)`, []any{over}},
			{`DELETE FROM letters WHERE id IN (SELECT id FROM letters WHERE dead = 1 AND at < ? ORDER BY id LIMIT ?)`, []any{stamp(b.Dead), most}},
			{`DELETE FROM quarantine WHERE id IN (SELECT id FROM quarantine WHERE released < ? ORDER BY id LIMIT ?)`, []any{stamp(b.Released), most}},
		} {
			r, err := tx.ExecContext(ctx, x.query, x.args...)
			if err != nil {
				return err
			}
			n, err := r.RowsAffected()
			if err != nil {
				return err
			}
			dropped = max(dropped, int(n))
		}
		return nil
	})
	return dropped, err
}
