package fleet

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// How long a connection may take, how long a seeder that ends has to let go of the database, and how long a write waits
// for a server that is away.
const (
	connectTime = 5 * time.Second
	lockTime    = "2s"
	patience    = 15 * time.Second
)

// IsPostgres reports whether a database is named as PostgreSQL's are, not as a file.
func IsPostgres(source string) bool {
	return strings.HasPrefix(source, "postgres://") || strings.HasPrefix(source, "postgresql://")
}

// openPostgres prepares the one writing connection and the reading ones. The writing one holds the seat.
func openPostgres(dsn string) (w, r *sql.DB, err error) {
	conf, err := pgx.ParseConfig(dsn)
	if err != nil { // the driver leaves the password out of the message
		return nil, nil, problem.New(problem.InvalidFile, "the name of the database cannot be used").Because(err).
			WithNext("write it as postgres://USER@HOST/DATABASE")
	}
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = connectTime
	}
	conf.RuntimeParams["application_name"] = "patchmesh seeder"
	reading := conf.Copy()
	reading.RuntimeParams["default_transaction_read_only"] = "on"
	w = sql.OpenDB(connector{Connector: stdlib.GetConnector(*conf), ready: new(seat).take})
	w.SetMaxOpenConns(1)
	r = sql.OpenDB(connector{Connector: stdlib.GetConnector(*reading), readOnly: true})
	r.SetMaxOpenConns(4)
	r.SetMaxIdleConns(4)
	return w, r, nil
}

// seat is the right to write. It is a lock of the session, so it cannot outlive the connection, and a number that grows
// whenever a seeder starts: one that lost its connection sits down again only if nobody else sat there in between, for
// what it has in memory would be old.
type seat struct {
	mu   sync.Mutex
	term int64 // 0: not yet sat
}

func (s *seat) take(ctx context.Context, c *pgx.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var schema *string
	var fsync, commit string
	if err := c.QueryRow(ctx, `SELECT current_schema(), current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&schema, &fsync, &commit); err != nil {
		return err
	}
	if schema == nil {
		return problem.New(problem.InvalidFile, "the database has no schema to work in").WithNext("create the schema that its search_path names")
	}
	if fsync != "on" {
		return problem.New(problem.InvalidFile, "the database server runs with fsync=%s", fsync).WithDone("nothing was written").
			WithNext("set fsync=on: what a seeder acknowledges must survive a loss of power")
	}
	if commit == "off" || commit == "local" {
		if _, err := c.Exec(ctx, `SET synchronous_commit = on`); err != nil {
			return err
		}
	}
	if _, err := c.Exec(ctx, `SET lock_timeout = '`+lockTime+`'; SELECT pg_advisory_lock(hashtext('patchmesh seeder'), hashtext(current_schema())); SET lock_timeout = 0`); err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "55P03" {
			return problem.New(problem.Locked, "another seeder uses this database").WithNext("stop it, or give this one a database of its own").Because(err)
		}
		return err
	}
	return s.sit(ctx, c)
}

func (s *seat) sit(ctx context.Context, c *pgx.Conn) error {
	if s.term == 0 {
		if _, err := c.Exec(ctx, `CREATE TABLE IF NOT EXISTS seat (one BIGINT PRIMARY KEY CHECK (one = 1), term BIGINT NOT NULL)`); err != nil {
			return err
		}
		return c.QueryRow(ctx, `INSERT INTO seat VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET term = seat.term + 1 RETURNING term`).Scan(&s.term)
	}
	var now int64
	if err := c.QueryRow(ctx, `SELECT term FROM seat`).Scan(&now); err != nil {
		return err
	}
	if now != s.term {
		return problem.New(problem.Locked, "another seeder has used this database while this one could not reach it").
			WithDone("nothing more is recorded").WithNext("start this seeder again, and no second one")
	}
	return nil
}

// begin starts a transaction of the writer. Where the server is away it waits for it, for a bounded time.
func (s *Store) begin(ctx context.Context) (*sql.Tx, error) {
	if !s.postgres {
		return s.w.BeginTx(ctx, nil)
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	<-wait.C
	for waited, step := time.Duration(0), 50*time.Millisecond; ; step = min(2*step, time.Second) {
		tx, err := s.w.BeginTx(ctx, nil)
		if err == nil || !lost(err) || waited >= patience || !s.opened {
			return tx, err
		}
		wait.Reset(step)
		select {
		case <-wait.C:
			waited += step
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// commit commits. If the answer is lost on its way the server is asked what became of the transaction: nothing that was
// kept is reported as failed.
func (s *Store) commit(ctx context.Context, tx *sql.Tx) error {
	if !s.postgres {
		return tx.Commit()
	}
	var xid sql.NullString
	if err := tx.QueryRowContext(ctx, `SELECT pg_current_xact_id_if_assigned()::text`).Scan(&xid); err != nil {
		return err
	}
	err := tx.Commit()
	var pg *pgconn.PgError
	if err == nil || !xid.Valid || errors.As(err, &pg) && !lost(err) || errors.Is(err, sql.ErrTxDone) {
		return err
	}
	kept, unknown := s.kept(context.WithoutCancel(ctx), xid.String)
	switch {
	case unknown != nil:
		return problem.New(problem.DatabaseUnreachable, "the database server went away while it was asked to keep something").
			WithDone("it may have been recorded; nothing was acknowledged").WithNext("start it, or mend the way to it, and ask again").Because(errors.Join(err, unknown))
	case kept:
		return nil
	}
	return err
}

// kept asks whether a transaction was committed. A server that does not know its number has lost it.
func (s *Store) kept(ctx context.Context, xid string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tx, err := s.begin(ctx) // over the seat: no other seeder sat down in between
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	var state sql.NullString
	err = tx.QueryRowContext(ctx, `SELECT pg_xact_status(CAST(CAST(? AS TEXT) AS xid8))`, xid).Scan(&state)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "22023" { // a number from the future
		return false, nil
	}
	return state.String == "committed", err
}

// lost reports whether an error means that the server or the way to it is gone.
func lost(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// 08: connection; 57P01 to 57P05: shutting down, crashed, starting, database gone, idle.
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P")
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || pgconn.SafeToRetry(err)
}

// mapPostgres gives codes to what PostgreSQL answers; see its manual, appendix A.
func mapPostgres(e *pgconn.PgError, err error) error {
	switch {
	case lost(e):
		return unreachable(err)
	case e.Code == "53100":
		return diskFull(err)
	case e.Code == "XX001" || e.Code == "XX002" || e.Code == "58P01":
		return damaged(err)
	case e.Code == "53300":
		return problem.New(problem.DatabaseUnreachable, "the database server has no connection left").WithNext("raise its max_connections: a seeder uses five").Because(err)
	case strings.HasPrefix(e.Code, "28") || e.Code == "3D000" || e.Code == "42501":
		return problem.New(problem.InvalidFile, "the database server does not let the seeder in").
			WithNext("create the database and a user that owns it; its password may stand in the file that --database-file names").Because(err)
	case e.Code == "25006":
		return problem.New(problem.InvalidFile, "the database server is a standby or read-only").WithDone("nothing was recorded").WithNext("name the primary").Because(err)
	}
	return err
}

// checkPostgres reads every row once. What the server's own checksums find comes out as an error.
func (s *Store) checkPostgres(ctx context.Context) error {
	version, err := readVersion(ctx, s.r)
	if err != nil {
		return err
	}
	for _, table := range tables(version) {
		rows, err := s.r.QueryContext(ctx, `SELECT * FROM `+table)
		if err != nil {
			return fmt.Errorf("fleet: %s: %w", table, mapError(err))
		}
		for rows.Next() {
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return fmt.Errorf("fleet: %s: %w", table, mapError(err))
		}
	}
	return nil
}
