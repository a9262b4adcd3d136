package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/bed/postgres"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

func linesOf(dump []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for line := range bytes.Lines(dump) {
			if !yield(line, nil) {
				return
			}
		}
	}
}

// dump returns the lines of a database without the times at which its migrations ran.
func dump(t *testing.T, source string) (version int, all []byte) {
	t.Helper()
	s, err := View(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b bytes.Buffer
	version, _, err = s.Dump(t.Context(), &b)
	if v, err2 := s.Version(t.Context()); err != nil || err2 != nil || v != version {
		t.Fatal(err, err2, v, version)
	}
	return version, b.Bytes()
}

// sample fills every table of a version with rows that differ in each column, numbers at both ends among them.
func sample(t *testing.T, s *Store, version int) (rows int) {
	t.Helper()
	for _, table := range tables(version) {
		cols, err := s.r.QueryContext(t.Context(), `SELECT * FROM `+table+` LIMIT 0`)
		if err != nil {
			t.Fatal(err)
		}
		kinds, err := cols.ColumnTypes()
		if err != nil {
			t.Fatal(err)
		}
		cols.Close()
		for row := range 3 {
			args, marks := make([]any, len(kinds)), ""
			for i, k := range kinds {
				switch k.DatabaseTypeName() {
				case "INTEGER", "INT8":
					args[i] = []int64{1, 2, math.MaxInt64 - 1}[row]
				case "TEXT":
					args[i] = []string{"a ' ü\n", "b?", ""}[row]
				default:
					args[i] = [][]byte{{0, 1, 255}, {2}, {}}[row]
				}
				marks += ", ?"
			}
			if _, err := s.w.ExecContext(t.Context(), `INSERT INTO `+table+` VALUES (`+marks[2:]+`)`, args...); err != nil {
				t.Fatalf("%s row %d: %v", table, row, err)
			}
			rows++
		}
	}
	return rows
}

// Every row of every table goes from SQLite to PostgreSQL and back, and from each version to this one.
func TestRoundTrip(t *testing.T) {
	server := postgres.Start(t)
	lite, pg := sqliteEngine(), engine{server: server, fresh: func(*testing.T) string { return server.Fresh() }}
	for version := 1; version <= len(migrations); version++ {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			first := lite.fresh(t)
			old := openVersion(t, first, version)
			rows := sample(t, old, version)
			old.Close()
			v, want := dump(t, first)
			if v != version || bytes.Count(want, []byte("\n")) != rows+len(tables(version)) {
				t.Fatalf("version %d with %d lines, want %d with %d rows", v, bytes.Count(want, []byte("\n")), version, rows)
			}
			for _, to := range []engine{lite, pg} {
				if to.server != nil && version > 1 && version < len(migrations) && os.Getenv("PATCHMESH_LONG") == "" {
					continue // the first and the last are enough for every day
				}
				second := to.fresh(t)
				if n, err := Restore(t.Context(), second, v, linesOf(want)); err != nil || n != int64(rows) {
					t.Fatal(n, err)
				}
				_, err := Restore(t.Context(), second, v, linesOf(want))
				wantCode(t, err, problem.AlreadyExists)
				if version < len(migrations) { // the program goes on with it
					open(t, second).Close()
					continue
				}
				v2, got := dump(t, second)
				if d := cmp.Diff(string(want), string(got)); d != "" || v2 != v {
					t.Errorf("version %d\n%s", v2, d)
				}
				third := lite.fresh(t)
				if _, err := Restore(t.Context(), third, v2, linesOf(got)); err != nil {
					t.Fatal(err)
				}
				if _, back := dump(t, third); !bytes.Equal(back, want) {
					t.Error("what came back differs")
				}
			}
		})
	}
	t.Run("numbers go on", func(t *testing.T) {
		first := lite.fresh(t)
		s := open(t, first)
		add := func(s *Store, seq uint64) int64 {
			if _, err := s.AddReports(t.Context(), []Report{{Peer: "p", Recorded: t0, Report: status.Report{Site: "s", Node: "n", Seq: seq, Body: []byte("b"), Sig: []byte("s")}}}); err != nil {
				t.Fatal(err)
			}
			rs, err := s.Reports(t.Context(), Query{Limit: 1, Newest: true})
			if err != nil || rs[0].Seq != seq {
				t.Fatal(rs, err)
			}
			return rs[0].ID
		}
		last := add(s, 1)
		v, all := dump(t, first)
		second := pg.fresh(t)
		if _, err := Restore(t.Context(), second, v, linesOf(all)); err != nil {
			t.Fatal(err)
		}
		if next := add(open(t, second), 2); next <= last {
			t.Errorf("report %d follows %d", next, last)
		}
	})
}

// openVersion opens a database as a program of an earlier version did.
func openVersion(t *testing.T, source string, version int) *Store {
	t.Helper()
	all := migrations
	defer func() { migrations = all }()
	migrations = all[:version]
	return open(t, source)
}

// What is not a dump is refused, and nothing of it stays.
func testBadDumps(t *testing.T, db engine) {
	source := db.fresh(t)
	s := withSites(t, source)
	s.Close()
	v, good := dump(t, source)
	wantOf := map[string][]byte{
		"no line at all":   nil,
		"a table less":     good[:bytes.Index(good, []byte(`{"table":"wan"`))],
		"no JSON":          bytes.Replace(good, []byte(`["s1"`), []byte(`["s1`), 1),
		"a value more":     bytes.Replace(good, []byte(`["s1"`), []byte(`["s1",1`), 1),
		"a fraction":       bytes.Replace(good, []byte(`"UTC",0`), []byte(`"UTC",0.5`), 1),
		"an unknown table": bytes.Replace(good, []byte(`{"table":"tokens"`), []byte(`{"table":"tokens; DROP TABLE sites"`), 1),
		"another column":   bytes.Replace(good, []byte(`"timezone"`), []byte(`"timezome"`), 1),
		"a row first":      append([]byte("[1]\n"), good...),
	}
	for what, bad := range wantOf {
		to := db.fresh(t)
		if _, err := Restore(t.Context(), to, v, linesOf(bad)); problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := Restore(t.Context(), to, v, linesOf(good)); err != nil {
			t.Errorf("%s, then a good one: %v", what, err)
		}
	}
	to := db.fresh(t)
	cut := errors.New("cut")
	_, err := Restore(t.Context(), to, v, func(yield func([]byte, error) bool) {
		for line := range bytes.Lines(good) {
			if !yield(line, nil) {
				return
			}
			break
		}
		yield(nil, cut)
	})
	if !errors.Is(err, cut) {
		t.Error(err)
	}
	_, err = Restore(t.Context(), to, len(migrations)+1, linesOf(good))
	wantCode(t, err, problem.InvalidFile)
	if _, err := Restore(t.Context(), to, v, linesOf(good)); err != nil {
		t.Error(err)
	}
}

// A database of a newer program is left alone.
func testNewer(t *testing.T, db engine) {
	source := db.fresh(t)
	s := open(t, source)
	if _, err := s.w.ExecContext(t.Context(), `INSERT INTO migrations VALUES (?, ?)`, len(migrations)+1, 0); err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, err := Open(t.Context(), source, unsigned)
	wantCode(t, err, problem.InvalidFile)
	_, err = View(t.Context(), source)
	wantCode(t, err, problem.InvalidFile)
}

func FuzzRowValues(f *testing.F) {
	f.Add([]byte(`[1,"x",null,{"b":"AA=="}]`))
	f.Add([]byte(`[9223372036854775808,true,[],{"c":1}]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		args, err := rowValues(line, 4)
		if err != nil {
			return
		}
		for _, a := range args {
			switch a.(type) {
			case int64, string, []byte, nil:
			default:
				t.Fatalf("%T", a)
			}
		}
	})
}
