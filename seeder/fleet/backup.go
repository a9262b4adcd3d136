package fleet

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// A backup of the database is lines of JSON, the same for both engines: for each table one line with its name and its
// columns, then one line for each row, an array: a number, text and null as themselves, bytes as {"b": base64}. What
// is around them, checksum and all, is the caller's.

// tableLine begins a table.
type tableLine struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
}

type bytesValue struct {
	B []byte `json:"b"`
}

// View opens a database only to read it, while a seeder may be running on it. Nothing is created or migrated.
func View(ctx context.Context, source string) (*Store, error) {
	s, err := connect(source, false)
	if err != nil {
		return nil, err
	}
	if _, err := readVersion(ctx, s.r); err != nil {
		return nil, errors.Join(fmt.Errorf("fleet: %w", err), s.Close())
	}
	return s, nil
}

// Version returns how many migrations the database has seen.
func (s *Store) Version(ctx context.Context) (int, error) { return readVersion(ctx, s.r) }

// Dump writes every row as it was at one instant, and returns the version of the database and the number of rows. Writers
// are not held up.
func (s *Store) Dump(ctx context.Context, w io.Writer) (version int, rows int64, err error) {
	var opts *sql.TxOptions // a reading transaction of SQLite is a snapshot
	if s.postgres {
		opts = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	tx, err := s.r.BeginTx(ctx, opts)
	if err != nil {
		return 0, 0, mapError(err)
	}
	defer tx.Rollback()
	if version, err = readVersion(ctx, tx); err != nil {
		return 0, 0, err
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for _, table := range tables(version) {
		n, err := dumpTable(ctx, tx, out, table)
		if err != nil {
			return 0, 0, fmt.Errorf("table %s: %w", table, mapError(err))
		}
		rows += n
	}
	return version, rows, nil
}

func dumpTable(ctx context.Context, tx *sql.Tx, out *json.Encoder, table string) (n int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT * FROM `+table+` ORDER BY 1`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	if err := out.Encode(tableLine{table, columns}); err != nil {
		return 0, err
	}
	values, places := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		places[i] = &values[i]
	}
	for ; rows.Next(); n++ {
		if err := rows.Scan(places...); err != nil {
			return 0, err
		}
		for i, v := range values {
			switch v := v.(type) {
			case []byte:
				values[i] = bytesValue{append([]byte{}, v...)} // empty is not nil
			case string:
				if !utf8.ValidString(v) {
					return 0, fmt.Errorf("column %s: text that is not UTF-8", columns[i])
				}
			case int64, nil:
			default:
				return 0, fmt.Errorf("column %s: a value of the type %T", columns[i], v)
			}
		}
		if err := out.Encode(values); err != nil {
			return 0, err
		}
	}
	return n, rows.Err()
}

// rowValues turns a line back into arguments.
func rowValues(line []byte, want int) ([]any, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return nil, err
	}
	if len(raw) != want {
		return nil, fmt.Errorf("a row of %d values, the table has %d columns", len(raw), want)
	}
	out := make([]any, len(raw))
	for i, r := range raw {
		var err error
		switch r[0] {
		case 'n':
		case '"':
			var s string
			err = json.Unmarshal(r, &s)
			out[i] = s
		case '{':
			var b bytesValue
			d := json.NewDecoder(strings.NewReader(string(r)))
			d.DisallowUnknownFields()
			err = d.Decode(&b)
			out[i] = append([]byte{}, b.B...)
		default:
			var n int64
			err = json.Unmarshal(r, &n)
			out[i] = n
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
