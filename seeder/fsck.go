package seeder

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// FsckResult is what Fsck found.
type FsckResult struct {
	Store   store.Result `json:"store"`
	Lacking int          `json:"lacking"` // chunks of published bundles that are not held
}

// Clean reports whether nothing is wrong.
func (r FsckResult) Clean() bool { return r.Store.Clean() && r.Lacking == 0 }

// Fsck checks the state directory of a seeder that does not run: every chunk, the database (empty: the file in the
// directory), and that published bundles are whole. With repair it removes damaged chunks. report, if not nil, is told each finding.
func Fsck(ctx context.Context, dir, database string, repair bool, report func(store.Finding)) (res FsckResult, err error) {
	if database == "" {
		database = filepath.Join(dir, databaseFile)
	}
	there := database
	if fleet.IsPostgres(database) {
		there = filepath.Join(dir, "store")
	}
	if _, err := os.Stat(there); err != nil { // make nothing where there is nothing
		return res, problem.New(problem.NotFound, "there is no seeder in %s", dir).Because(err).WithNext("name its directory with --state")
	}
	chunks, err := store.Open(filepath.Join(dir, "store"), store.Options{})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, chunks.Close()) }()
	db, err := fleet.Open(ctx, database, func(*roster.Roster) (trust.Signed, error) {
		return trust.Signed{}, errors.New("fsck signs nothing")
	})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(ctx); err != nil {
		return res, err
	}
	if res.Store, err = chunks.Fsck(ctx, repair, report); err != nil {
		return res, err
	}
	// The library says what is missing from the bundles as they stand in the database, whatever the pins say.
	l, err := openLibrary(ctx, db, chunks, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return res, err
	}
	for _, k := range l.list() {
		if k.Committed.IsZero() {
			continue
		}
		res.Lacking += len(l.missing(k))
		if !k.catalog.Complete && len(l.missing(k)) == 0 {
			res.Lacking++ // the index is held, and is not the one that the manifest names
		}
	}
	return res, nil
}
