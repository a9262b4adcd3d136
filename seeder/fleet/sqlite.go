package fleet

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"modernc.org/sqlite"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// openSQLite opens the file for writing, by one connection, and for reading. Without make it must be there.
func openSQLite(name string, create bool) (w, r *sql.DB, err error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, problem.New(problem.NotFound, "there is no database %s", name).Because(err).WithNext("name the seeder's directory with --state")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("fleet: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, nil, fmt.Errorf("fleet: %w", err)
	}
	dsn := "file:" + (&url.URL{Path: name}).EscapedPath() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	if w, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return nil, nil, fmt.Errorf("fleet %s: %w", name, err)
	}
	w.SetMaxOpenConns(1)
	if r, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("fleet %s: %w", name, err), w.Close())
	}
	r.SetMaxOpenConns(4)
	return w, r, nil
}

// checkSQLite lets SQLite look for damage in the file.
func (s *Store) checkSQLite(ctx context.Context) error {
	var verdict string
	if err := s.r.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return fmt.Errorf("fleet: %w", mapError(err))
	}
	if verdict != "ok" {
		return problem.New(problem.StoreDamaged, "the seeder's database is damaged: %s", verdict).
			WithNext("stop the seeder and restore the database from a backup: seeder restore --help")
	}
	return nil
}

// SQLite's primary result codes that get a code of ours.
const (
	sqliteCorrupt = 11
	sqliteFull    = 13
	sqliteNotADB  = 26
)

func mapSQLite(e *sqlite.Error, err error) error {
	switch e.Code() & 0xff {
	case sqliteFull:
		return diskFull(e)
	case sqliteCorrupt, sqliteNotADB:
		return damaged(e)
	}
	return err
}
