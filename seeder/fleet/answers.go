package fleet

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"time"
)

// Answer is how a change was answered that was asked for with a key.
type Answer struct {
	Who, Key string
	Request  [sha256.Size]byte // of method, path and body
	At       time.Time
	Status   int
	Kind     string // media type
	Body     []byte
}

// PutAnswer keeps an answer and drops those from before a time.
func (s *Store) PutAnswer(ctx context.Context, a Answer, before time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM answers WHERE at < ?`, stamp(before)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO answers (who, key, request, at, status, kind, body) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			a.Who, a.Key, a.Request[:], stamp(a.At), a.Status, a.Kind, append([]byte{}, a.Body...))
		return err
	})
}

// Answer finds an answer that was given after a time; false if there is none.
func (s *Store) Answer(ctx context.Context, who, key string, after time.Time) (Answer, bool, error) {
	a := Answer{Who: who, Key: key}
	var request []byte
	var at int64
	err := s.r.QueryRowContext(ctx, `SELECT request, at, status, kind, body FROM answers WHERE who = ? AND key = ? AND at >= ?`, who, key, stamp(after)).
		Scan(&request, &at, &a.Status, &a.Kind, &a.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	}
	copy(a.Request[:], request)
	a.At = unstamp(at)
	return a, err == nil, mapError(err)
}
