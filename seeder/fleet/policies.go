package fleet

import (
	"bytes"
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Policy is one revision of a policy's signed document.
type Policy struct {
	Name     string
	Revision uint64
	Document trust.Signed
	Recorded time.Time
}

// PutPolicy records a revision. The same document again is no error and added is false; another document with the same
// revision, or an older revision, is refused.
func (s *Store) PutPolicy(ctx context.Context, p Policy) (added bool, err error) {
	if p.Revision == 0 || p.Revision > math.MaxInt64 {
		return false, problem.New(problem.InvalidPolicy, "policy %s: revision %d is out of range", p.Name, p.Revision)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		added, err = putPolicy(ctx, tx, p)
		return err
	})
	return added, err
}

func putPolicy(ctx context.Context, tx *sql.Tx, p Policy) (added bool, err error) {
	ps, err := readPolicies(ctx, tx, p.Name)
	if err != nil {
		return false, err
	}
	if len(ps) > 0 {
		last := ps[0]
		if last.Revision == p.Revision && bytes.Equal(last.Document.Doc, p.Document.Doc) {
			return false, nil
		}
		if p.Revision <= last.Revision {
			return false, problem.New(problem.AlreadyExists, "policy %s is at revision %d, this document has revision %d", p.Name, last.Revision, p.Revision).
				WithDone("revision %d stays in force", last.Revision).WithNext("sign the change again with revision %d", last.Revision+1)
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO policies VALUES (?, ?, ?, ?, ?)`,
		p.Name, int64(p.Revision), p.Document.Doc, p.Document.Sig, stamp(p.Recorded))
	return true, err
}

// Policies lists the newest revision of every policy, in the order of their names.
func (s *Store) Policies(ctx context.Context) ([]Policy, error) { return readPolicies(ctx, s.r, "") }

func readPolicies(ctx context.Context, q querier, name string) (out []Policy, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		p, err := scanPolicy(scan)
		out = append(out, p)
		return err
	}, `SELECT name, revision, doc, sig, recorded FROM policies p
		WHERE revision = (SELECT max(revision) FROM policies WHERE name = p.name) AND (?1 = '' OR name = ?1) ORDER BY name`, name)
	return out, err
}

func scanPolicy(scan func(...any) error) (p Policy, err error) {
	var rev, recorded int64
	err = scan(&p.Name, &rev, &p.Document.Doc, &p.Document.Sig, &recorded)
	p.Revision, p.Recorded = uint64(rev), unstamp(recorded)
	return p, err
}
