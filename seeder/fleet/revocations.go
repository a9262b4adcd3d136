package fleet

import (
	"bytes"
	"context"
	"database/sql"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Revocations is a signed list of revoked bundles.
type Revocations struct {
	Sequence uint64
	Document trust.Signed
	Recorded time.Time
}

// PutRevocations records a list. The same document again is no error and added is false; a sequence that is not above the
// last one is refused.
func (s *Store) PutRevocations(ctx context.Context, l Revocations) (added bool, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		all, err := readRevocations(ctx, tx)
		if err != nil {
			return err
		}
		if n := len(all); n > 0 && all[n-1].Sequence >= l.Sequence {
			if last := all[n-1]; last.Sequence == l.Sequence && bytes.Equal(last.Document.Doc, l.Document.Doc) {
				return nil
			}
			return problem.New(problem.ChangedMeanwhile, "the revocation list in force has the sequence %d, this one has %d", all[n-1].Sequence, l.Sequence).
				WithDone("the list in force stays").WithNext("revoke again: that is done to the newest list")
		}
		added = true
		_, err = tx.ExecContext(ctx, `INSERT INTO revocations VALUES (?, ?, ?, ?)`, int64(l.Sequence), l.Document.Doc, l.Document.Sig, stamp(l.Recorded))
		return err
	})
	return added, err
}

// Revocations returns every list there was, the newest last: they say since when a bundle was known to be revoked.
func (s *Store) Revocations(ctx context.Context) ([]Revocations, error) {
	return readRevocations(ctx, s.r)
}

func readRevocations(ctx context.Context, q querier) (out []Revocations, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var l Revocations
		var seq, recorded int64
		err := scan(&seq, &l.Document.Doc, &l.Document.Sig, &recorded)
		l.Sequence, l.Recorded = uint64(seq), unstamp(recorded)
		out = append(out, l)
		return err
	}, `SELECT sequence, doc, sig, recorded FROM revocations ORDER BY sequence`)
	return out, err
}
