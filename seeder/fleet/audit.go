package fleet

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Audit is one change of the fleet by the API, or one that was refused. Status 0: it was begun, and the seeder ended
// before it was answered.
type Audit struct {
	ID                                         int64
	At                                         time.Time
	Who, Role, Origin, Action, Subject, Detail string
	Status                                     int
}

// AddAudit records an entry and returns its number.
func (s *Store) AddAudit(ctx context.Context, a Audit) (id int64, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `INSERT INTO audit (at, who, role, origin, action, subject, status, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			stamp(a.At), a.Who, a.Role, a.Origin, a.Action, a.Subject, a.Status, a.Detail).Scan(&id)
	})
	return id, err
}

// EndAudit records what came of an entry that was begun.
func (s *Store) EndAudit(ctx context.Context, id int64, status int, subject, detail string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE audit SET status = ?, subject = ?, detail = ? WHERE id = ? AND status = 0`, status, subject, detail, id)
		return err
	})
}

// AuditLog returns at most limit entries after a number, in their order; with newest the last so many.
func (s *Store) AuditLog(ctx context.Context, after int64, limit int, newest bool) (out []Audit, err error) {
	if limit < 1 {
		return nil, errors.New("audit: limit must be at least 1")
	}
	order := "id"
	if newest {
		order = "id DESC"
	}
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var a Audit
		var at int64
		err := scan(&a.ID, &at, &a.Who, &a.Role, &a.Origin, &a.Action, &a.Subject, &a.Status, &a.Detail)
		a.At = unstamp(at)
		out = append(out, a)
		return err
	}, `SELECT id, at, who, role, origin, action, subject, status, detail FROM audit WHERE id > ? ORDER BY `+order+` LIMIT ?`, after, limit)
	if newest {
		for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
			out[i], out[j] = out[j], out[i]
		}
	}
	return out, err
}
