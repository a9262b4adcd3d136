package fleet

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Quarantine is one entry of the quarantine list. Zero Released: it is in force.
type Quarantine struct {
	ID                                                  int64
	Scope, Site, Node, Reason, Code, By, Evidence, Ends string
	Since, Released                                     time.Time
	ReleasedBy, Why                                     string
}

// PutQuarantine records an entry, unless the same place has one in force: added is false then. With found, an entry that
// is no newer than what was released before is not made again: who released it knew.
func (s *Store) PutQuarantine(ctx context.Context, q Quarantine, found bool) (out Quarantine, added bool, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		added = false
		last, err := readQuarantine(ctx, tx, `scope = ? AND site = ? AND node = ? ORDER BY id DESC LIMIT 1`, q.Scope, q.Site, q.Node)
		if err != nil {
			return err
		}
		if len(last) > 0 {
			out = last[0]
			if out.Released.IsZero() || found && !q.Since.After(out.Released) {
				return nil
			}
		}
		added, out = true, q
		return tx.QueryRowContext(ctx, `INSERT INTO quarantine (scope, site, node, reason, code, since, put_by, evidence, ends)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`, q.Scope, q.Site, q.Node, q.Reason, q.Code, stamp(q.Since), q.By, q.Evidence, q.Ends).Scan(&out.ID)
	})
	return out, added, err
}

// ReleaseQuarantine ends an entry. One that was released before stays as it was.
func (s *Store) ReleaseQuarantine(ctx context.Context, id int64, by, why string, now time.Time) (Quarantine, error) {
	var out Quarantine
	err := s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE quarantine SET released = ?, released_by = ?, why = ? WHERE id = ? AND released IS NULL`,
			stamp(now), by, why, id); err != nil {
			return err
		}
		list, err := readQuarantine(ctx, tx, `id = ?`, id)
		if err == nil && len(list) == 0 {
			return problem.New(problem.NotFound, "there is no quarantine %d", id).WithNext("meshctl quarantine list")
		}
		if err == nil {
			out = list[0]
		}
		return err
	})
	return out, err
}

// Quarantines returns the entries in force, or the newest 1000 of all, the newest first.
func (s *Store) Quarantines(ctx context.Context, all bool) ([]Quarantine, error) {
	where := `released IS NULL ORDER BY id DESC`
	if all {
		where = `1 = 1 ORDER BY id DESC LIMIT 1000`
	}
	return readQuarantine(ctx, s.r, where)
}

// Quarantine returns one entry.
func (s *Store) Quarantine(ctx context.Context, id int64) (Quarantine, error) {
	list, err := readQuarantine(ctx, s.r, `id = ?`, id)
	if err == nil && len(list) == 0 {
		err = problem.New(problem.NotFound, "there is no quarantine %d", id).WithNext("meshctl quarantine list")
	}
	if err != nil {
		return Quarantine{}, err
	}
	return list[0], nil
}

func readQuarantine(ctx context.Context, q querier, where string, args ...any) (out []Quarantine, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var x Quarantine
		var since int64
		var released sql.NullInt64
		var by, why sql.NullString
		err := scan(&x.ID, &x.Scope, &x.Site, &x.Node, &x.Reason, &x.Code, &since, &x.By, &x.Evidence, &x.Ends, &released, &by, &why)
		x.Since, x.Released, x.ReleasedBy, x.Why = unstamp(since), known(released), by.String, why.String
		out = append(out, x)
		return err
	}, `SELECT id, scope, site, node, reason, code, since, put_by, evidence, ends, released, released_by, why FROM quarantine WHERE `+where, args...)
	return out, err
}

// Cursor is how far somebody has read; false: nothing yet.
func (s *Store) Cursor(ctx context.Context, name string) (at int64, ok bool, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT at FROM cursors WHERE name = ?`, name).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return at, err == nil, mapError(err)
}

// PutCursor records how far somebody has read.
func (s *Store) PutCursor(ctx context.Context, name string, at int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO cursors (name, at) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at`, name, at)
		return err
	})
}
