package fleet

import (
	"context"
	"database/sql"
	"errors"
	"math"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Sync is the record of how the Git repository is followed, nil if there is none yet.
func (s *Store) Sync(ctx context.Context) (record []byte, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT record FROM sync WHERE name = ?`, syncName).Scan(&record)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return record, mapError(err)
}

// syncName leaves room for more repositories than one.
const syncName = "git"

// PutSync writes the record, and with it the policies of a commit: all of them, or nothing.
func (s *Store) PutSync(ctx context.Context, record []byte, ps ...Policy) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		for _, p := range ps {
			if p.Revision == 0 || p.Revision > math.MaxInt64 {
				return problem.New(problem.InvalidPolicy, "policy %s: revision %d is out of range", p.Name, p.Revision)
			}
			if _, err := putPolicy(ctx, tx, p); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO sync (name, record) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET record = ?2`, syncName, record)
		return err
	})
}

// PolicyHistory lists all revisions of a policy, the newest first.
func (s *Store) PolicyHistory(ctx context.Context, name string) (out []Policy, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		p, err := scanPolicy(scan)
		out = append(out, p)
		return err
	}, `SELECT name, revision, doc, sig, recorded FROM policies WHERE name = ? ORDER BY revision DESC`, name)
	return out, err
}
