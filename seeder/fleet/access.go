package fleet

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Access is a token of the API as it is kept: the secret itself is not. Zero times are "never".
type Access struct {
	Name, Role, By             string
	Hash                       [sha256.Size]byte // of the secret
	Created                    time.Time
	Expires, Revoked, LastUsed time.Time
}

// MaxAccess bounds how many tokens are kept, the revoked ones among them.
const MaxAccess = 1000

// PutAccess records a token. A name is used once, so that the audit log means one token by it.
func (s *Store) PutAccess(ctx context.Context, a Access) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var same, all int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM access`).Scan(&all); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM access WHERE name = ?`, a.Name).Scan(&same); err != nil {
			return err
		}
		switch {
		case same > 0:
			return problem.New(problem.NameTaken, "there is, or was, a token %s", a.Name).WithDone("nothing was changed").WithNext("choose another name")
		case all >= MaxAccess:
			return problem.New(problem.QuotaExceeded, "there are %d tokens, as many as are kept", all)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO access (name, hash, role, created, created_by, expires) VALUES (?, ?, ?, ?, ?, ?)`,
			a.Name, a.Hash[:], a.Role, stamp(a.Created), a.By, maybe(a.Expires))
		return err
	})
}

// RevokeAccess ends a token. To revoke it again changes nothing.
func (s *Store) RevokeAccess(ctx context.Context, name string, now time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE access SET revoked = coalesce(revoked, ?) WHERE name = ?`, stamp(now), name)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return problem.New(problem.NotFound, "there is no token %.80q", name).WithNext("meshctl access list")
	})
}

// UsedAccess records when tokens were last used.
func (s *Store) UsedAccess(ctx context.Context, used map[string]time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		for name, at := range used {
			if _, err := tx.ExecContext(ctx, `UPDATE access SET last_used = ? WHERE name = ?`, stamp(at), name); err != nil {
				return err
			}
		}
		return nil
	})
}

// AccessList returns all tokens by name.
func (s *Store) AccessList(ctx context.Context) (out []Access, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var a Access
		var hash []byte
		var created int64
		var expires, revoked, used sql.NullInt64
		err := scan(&a.Name, &hash, &a.Role, &created, &a.By, &expires, &revoked, &used)
		copy(a.Hash[:], hash)
		a.Created, a.Expires, a.Revoked, a.LastUsed = unstamp(created), known(expires), known(revoked), known(used)
		out = append(out, a)
		return err
	}, `SELECT name, hash, role, created, created_by, expires, revoked, last_used FROM access ORDER BY name`)
	return out, err
}

// maybe is a time that may be missing, for the database; known is it back.
func maybe(t time.Time) sql.NullInt64 { return sql.NullInt64{Int64: stamp(t), Valid: !t.IsZero()} }

func known(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return unstamp(n.Int64)
}
