// Package fleet is the seeder's memory: sites and their rosters, join tokens, nodes and what they last said, bundles,
// policies, orders, reports and WAN accounts, in one SQLite file or in PostgreSQL. It stores and enforces what must hold across a crash (a token
// works once, a version never changes, a report is kept once); it verifies no signature and speaks to no network.
//
// What a method has returned survives a loss of power: SQLite's journal is WAL with synchronous=FULL, and a PostgreSQL
// without fsync is refused. There is one writing connection; readers do not wait for it, and what has a number is visible
// in the order of its numbers. All methods are safe for concurrent use. Errors that a person should read are
// *problem.Error.
package fleet

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// SignRoster signs a roster's canonical bytes. It is called inside a transaction: it must be quick and local.
type SignRoster func(*roster.Roster) (trust.Signed, error)

// Store is the open database.
type Store struct {
	w, r     *sql.DB
	sign     SignRoster
	postgres bool
	opened   bool // what is asked for was there once: it is waited for
}

// Open opens a database and brings it to the version of this program. source is postgres://USER@HOST/DATABASE, in the form
// of libpq's URIs, or the name of a file, which is created if need be, readable for its owner only: it holds the gossip
// keys. One seeder at a time writes to a PostgreSQL database, in one schema; another one is refused with problem.Locked.
func Open(ctx context.Context, source string, sign SignRoster) (*Store, error) {
	s, err := connect(source, true)
	if err != nil {
		return nil, err
	}
	s.sign = sign
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("fleet: %w", err), s.Close())
	}
	s.opened = true
	return s, nil
}

// connect prepares the connections, and makes a file if that is asked for. Nothing is written yet.
func connect(source string, create bool) (s *Store, err error) {
	s = &Store{postgres: IsPostgres(source)}
	if s.postgres {
		s.w, s.r, err = openPostgres(source)
	} else {
		s.w, s.r, err = openSQLite(source, create)
	}
	return s, err
}

// Close closes the database.
func (s *Store) Close() error { return errors.Join(s.r.Close(), s.w.Close()) }

// Check looks for damage in the database.
func (s *Store) Check(ctx context.Context) error {
	if s.postgres {
		return s.checkPostgres(ctx)
	}
	return s.checkSQLite(ctx)
}

// migrations are applied in order, each once, each in a transaction. Never change one that was released: add another.
var migrations = []string{
	`CREATE TABLE sites (
		name TEXT PRIMARY KEY, timezone TEXT NOT NULL, cap INTEGER NOT NULL, gossip_key BLOB NOT NULL,
		roster INTEGER NOT NULL, created INTEGER NOT NULL) STRICT;
	 CREATE TABLE rosters (
		site TEXT NOT NULL REFERENCES sites, version INTEGER NOT NULL, doc BLOB NOT NULL, sig BLOB NOT NULL,
		PRIMARY KEY (site, version)) STRICT;
	 CREATE TABLE tokens (
		hash BLOB PRIMARY KEY, site TEXT NOT NULL REFERENCES sites, labels TEXT NOT NULL, wan TEXT NOT NULL,
		expires INTEGER NOT NULL, used_by_peer TEXT, used_by_name TEXT) STRICT;
	 CREATE TABLE nodes (
		peer TEXT PRIMARY KEY, site TEXT NOT NULL REFERENCES sites, name TEXT NOT NULL, labels TEXT NOT NULL,
		wan TEXT NOT NULL, addrs TEXT NOT NULL, enrolled INTEGER NOT NULL, removed INTEGER) STRICT;
	 CREATE UNIQUE INDEX node_names ON nodes (site, name) WHERE removed IS NULL;
	 CREATE TABLE statements (
		peer TEXT PRIMARY KEY REFERENCES nodes, seq INTEGER NOT NULL, seen INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
	 CREATE TABLE bundles (
		digest BLOB PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, sequence INTEGER NOT NULL,
		committed INTEGER, begun INTEGER NOT NULL,
		manifest BLOB NOT NULL, sig BLOB NOT NULL, sums BLOB NOT NULL, sums_sig BLOB NOT NULL,
		UNIQUE (name, version)) STRICT;
	 CREATE TABLE chunks (num INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE) STRICT;
	 CREATE TABLE policies (
		name TEXT NOT NULL, revision INTEGER NOT NULL, doc BLOB NOT NULL, sig BLOB NOT NULL, recorded INTEGER NOT NULL,
		PRIMARY KEY (name, revision)) STRICT;
	 CREATE TABLE reports (
		id INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, site TEXT NOT NULL, node TEXT NOT NULL,
		seq INTEGER NOT NULL, recorded INTEGER NOT NULL, body BLOB NOT NULL, sig BLOB NOT NULL,
		UNIQUE (peer, seq)) STRICT;
	 CREATE INDEX report_places ON reports (site, node, id);
	 CREATE TABLE wan (
		site TEXT PRIMARY KEY REFERENCES sites, payload INTEGER NOT NULL, plain INTEGER NOT NULL,
		needed INTEGER NOT NULL, duplicate INTEGER NOT NULL, splits INTEGER NOT NULL) STRICT;
	 CREATE TABLE sent (
		site TEXT NOT NULL REFERENCES sites, page INTEGER NOT NULL, bits BLOB NOT NULL,
		PRIMARY KEY (site, page)) STRICT;`,
	// WAN profiles: rules one a line, the day's total and what is used of it; sending promised before it is done.
	`ALTER TABLE sites ADD COLUMN per_day INTEGER NOT NULL DEFAULT 0;
	 ALTER TABLE sites ADD COLUMN rules TEXT NOT NULL DEFAULT '';
	 ALTER TABLE wan ADD COLUMN day TEXT NOT NULL DEFAULT '';
	 ALTER TABLE wan ADD COLUMN today INTEGER NOT NULL DEFAULT 0;
	 ALTER TABLE wan ADD COLUMN promised INTEGER NOT NULL DEFAULT 0;
	 ALTER TABLE wan ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0;`,
	`CREATE TABLE orders (sequence INTEGER PRIMARY KEY, doc BLOB NOT NULL, sig BLOB NOT NULL, recorded INTEGER NOT NULL) STRICT;`,
	// Who may use the API and what was changed with it; answers kept for who asks again; webhooks and what is to be sent to
	// them; who is under quarantine; how far followers of the reports have read.
	`CREATE TABLE access (
		name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, role TEXT NOT NULL, created INTEGER NOT NULL, created_by TEXT NOT NULL,
		expires INTEGER, revoked INTEGER, last_used INTEGER) STRICT;
	 CREATE TABLE audit (
		id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL, origin TEXT NOT NULL,
		action TEXT NOT NULL, subject TEXT NOT NULL, status INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
	 CREATE TABLE answers (
		who TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, at INTEGER NOT NULL, status INTEGER NOT NULL,
		kind TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (who, key)) STRICT;
	 CREATE INDEX answer_times ON answers (at);
	 CREATE TABLE webhooks (
		name TEXT PRIMARY KEY, url TEXT NOT NULL, events TEXT NOT NULL, format TEXT NOT NULL, secret TEXT NOT NULL,
		created INTEGER NOT NULL, delivered INTEGER NOT NULL, last_error TEXT NOT NULL, last_try INTEGER) STRICT;
	 CREATE TABLE letters (
		id INTEGER PRIMARY KEY AUTOINCREMENT, webhook TEXT NOT NULL REFERENCES webhooks ON DELETE CASCADE, event TEXT NOT NULL,
		at INTEGER NOT NULL, tries INTEGER NOT NULL, due INTEGER NOT NULL, error TEXT NOT NULL, dead INTEGER NOT NULL) STRICT;
	 CREATE INDEX letter_queue ON letters (webhook, dead, id);
	 CREATE TABLE quarantine (
		id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, site TEXT NOT NULL, node TEXT NOT NULL, reason TEXT NOT NULL,
		code TEXT NOT NULL, since INTEGER NOT NULL, put_by TEXT NOT NULL, evidence TEXT NOT NULL, ends TEXT NOT NULL,
		released INTEGER, released_by TEXT, why TEXT) STRICT;
	 CREATE UNIQUE INDEX quarantine_now ON quarantine (scope, site, node) WHERE released IS NULL;
	 CREATE TABLE cursors (name TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;`,
	// Receipts, once more beside their reports, in columns; when each node was heard; what scripts without a key say.
	`CREATE TABLE receipts (
		id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL, peer TEXT NOT NULL, seq INTEGER NOT NULL, site TEXT NOT NULL,
		node TEXT NOT NULL, number INTEGER NOT NULL, previous BLOB, bundle TEXT NOT NULL, version TEXT NOT NULL, checksum BLOB,
		policy TEXT NOT NULL, revision INTEGER NOT NULL, git TEXT NOT NULL, snapshot TEXT NOT NULL, outcome TEXT NOT NULL,
		reason TEXT NOT NULL, occurred INTEGER NOT NULL, recorded INTEGER NOT NULL, UNIQUE (peer, seq)) STRICT;
	 CREATE INDEX receipt_chains ON receipts (peer, number);
	 CREATE INDEX receipt_places ON receipts (site, node, id);
	 CREATE TABLE spells (peer TEXT NOT NULL, began INTEGER NOT NULL, heard INTEGER NOT NULL, PRIMARY KEY (peer, began)) STRICT;
	 CREATE TABLE unsigned (
		id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, bundle TEXT NOT NULL, outcome TEXT NOT NULL,
		recorded INTEGER NOT NULL) STRICT;
	 CREATE INDEX unsigned_hosts ON unsigned (host, bundle, id);`,
	// Where each rollout stands, and the newest grant of each site.
	`CREATE TABLE rollouts (
		policy TEXT NOT NULL, revision INTEGER NOT NULL, state BLOB NOT NULL, updated INTEGER NOT NULL,
		PRIMARY KEY (policy, revision)) STRICT;
	 CREATE TABLE grants (
		policy TEXT NOT NULL, site TEXT NOT NULL, revision INTEGER NOT NULL, serial INTEGER NOT NULL, doc BLOB NOT NULL, sig BLOB NOT NULL,
		PRIMARY KEY (policy, site)) STRICT;`,
	// How the Git repository is followed.
	`CREATE TABLE sync (name TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;`,
	// The keys that a name has had are looked up for each report, those of removed nodes too.
	`CREATE INDEX node_places ON nodes (site, name);`,
	// The lists of revoked bundles, each a whole one.
	`CREATE TABLE revocations (sequence INTEGER PRIMARY KEY, doc BLOB NOT NULL, sig BLOB NOT NULL, recorded INTEGER NOT NULL) STRICT;`,
	// What is too old is dropped from the audit log; see refused in prune.go.
	`CREATE INDEX audit_times ON audit (at);
	 CREATE INDEX audit_refusals ON audit (at) WHERE status IN (401, 403);`,
}

const createMigrations = `CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT`

func (s *Store) migrate(ctx context.Context) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, createMigrations); err != nil {
			return err
		}
		have, err := readVersion(ctx, tx)
		if err != nil {
			return err
		}
		return apply(ctx, tx, have, len(migrations))
	})
}

// readVersion returns how many migrations a database has seen. One that has seen more than there are is refused.
func readVersion(ctx context.Context, q querier) (have int, err error) {
	if err := q.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM migrations`).Scan(&have); err != nil {
		return 0, mapError(err)
	}
	if have > len(migrations) {
		return 0, problem.New(problem.InvalidFile, "the seeder's database has version %d, this program knows %d", have, len(migrations)).
			WithNext("use the newer program")
	}
	return have, nil
}

// apply applies the migrations that lead from one version to another.
func apply(ctx context.Context, tx *sql.Tx, from, to int) error {
	for i := from; i < to; i++ {
		if _, err := tx.ExecContext(ctx, migrations[i]); err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO migrations VALUES (?, ?)`, i+1, time.Now().Unix()); err != nil {
			return err
		}
	}
	return nil
}

// write runs fn in a transaction of the one writer.
func (s *Store) write(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.begin(ctx)
	if err != nil {
		return mapError(err)
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := fn(tx); err != nil {
		return mapError(err)
	}
	return mapError(s.commit(ctx, tx))
}

// each calls scan for every row of a query.
func each(ctx context.Context, q querier, scan func(func(...any) error) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return mapError(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return mapError(rows.Err())
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Times are stored as Unix microseconds.
func stamp(t time.Time) int64   { return t.UnixMicro() }
func unstamp(n int64) time.Time { return time.UnixMicro(n).UTC() }
