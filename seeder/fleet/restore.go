package fleet

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Restore fills a new database with the lines of a dump of either engine, in one transaction: all of them or nothing. A
// line need be valid only until the next one is asked for; version is what Dump returned. A database that is not empty is refused, and so is a dump of a newer program; one of an older program is
// brought to this one's version.
func Restore(ctx context.Context, source string, version int, lines iter.Seq2[[]byte, error]) (rows int64, err error) {
	if version < 1 || version > len(migrations) {
		return 0, problem.New(problem.InvalidFile, "the backup has version %d, this program knows %d", version, len(migrations)).WithNext("use the newer program")
	}
	s, err := connect(source, true)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	err = s.write(ctx, func(tx *sql.Tx) error {
		if err := s.refuseUsed(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, createMigrations); err != nil {
			return err
		}
		if err := apply(ctx, tx, 0, version); err != nil {
			return err
		}
		r := refill{tx: tx, left: tables(version)}
		defer r.close()
		for line, err := range lines {
			if err == nil {
				err = r.line(ctx, line)
			}
			if err != nil {
				return err
			}
		}
		if len(r.left) > 0 {
			return invalidBackup(fmt.Errorf("table %s is missing", r.left[0]))
		}
		rows = r.rows
		if s.postgres {
			if err := setSequences(ctx, tx); err != nil {
				return err
			}
		}
		return apply(ctx, tx, version, len(migrations))
	})
	return rows, err
}

func invalidBackup(err error) error {
	return problem.New(problem.InvalidFile, "the backup does not have the form that it should").WithDone("nothing was restored").Because(err)
}

func (s *Store) refuseUsed(ctx context.Context, tx *sql.Tx) error {
	q := `SELECT count(*) FROM sqlite_master WHERE name = 'migrations'`
	if s.postgres {
		q = `SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'migrations'`
	}
	var n int
	if err := tx.QueryRowContext(ctx, q).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return problem.New(problem.AlreadyExists, "there is a seeder's database already").WithDone("it was left as it is").
			WithNext("restore into an empty state directory or an empty database")
	}
	return nil
}

// refill writes the rows of one table after the other.
type refill struct {
	tx      *sql.Tx
	left    []string // tables that have not begun
	columns int
	insert  *sql.Stmt
	rows    int64
}

func (r *refill) close() {
	if r.insert != nil {
		r.insert.Close()
	}
}

func (r *refill) line(ctx context.Context, line []byte) error {
	if len(line) > 0 && line[0] == '{' {
		var t tableLine
		if err := json.Unmarshal(line, &t); err != nil {
			return invalidBackup(err)
		}
		return r.begin(ctx, t)
	}
	if r.insert == nil {
		return invalidBackup(errors.New("a row before a table"))
	}
	args, err := rowValues(line, r.columns)
	if err != nil {
		return invalidBackup(err)
	}
	r.rows++
	_, err = r.insert.ExecContext(ctx, args...)
	return err
}

func (r *refill) begin(ctx context.Context, t tableLine) error {
	if len(r.left) == 0 || r.left[0] != t.Table {
		return invalidBackup(fmt.Errorf("table %q is not expected here", t.Table))
	}
	r.left = r.left[1:]
	have, err := columnsOf(ctx, r.tx, t.Table)
	if err != nil {
		return err
	}
	// Names come from the schema, never from the file.
	if !slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(t.Columns))) {
		return invalidBackup(fmt.Errorf("table %s has the columns %q, not %q", t.Table, have, t.Columns))
	}
	r.close()
	r.columns = len(t.Columns)
	r.insert, err = r.tx.PrepareContext(ctx, `INSERT INTO `+t.Table+` (`+strings.Join(t.Columns, ", ")+`) VALUES (?`+strings.Repeat(", ?", len(t.Columns)-1)+`)`)
	return err
}

func columnsOf(ctx context.Context, tx *sql.Tx, table string) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `SELECT * FROM `+table+` LIMIT 0`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return rows.Columns()
}

// setSequences lets the numbers that PostgreSQL gives go on after those that were restored.
func setSequences(ctx context.Context, tx *sql.Tx) error {
	var places [][2]string
	if err := each(ctx, tx, func(scan func(...any) error) error {
		var p [2]string
		err := scan(&p[0], &p[1])
		places = append(places, p)
		return err
	}, `SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES'`); err != nil {
		return err
	}
	for _, p := range places {
		if _, err := tx.ExecContext(ctx, `SELECT setval(pg_get_serial_sequence(?, ?), coalesce(max(`+p[1]+`), 0) + 1, false) FROM `+p[0], p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}
