package fleet

import (
	"errors"

	"modernc.org/sqlite"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// SQLite's primary result codes that get a code of ours.
const (
	sqliteCorrupt = 11
	sqliteFull    = 13
	sqliteNotADB  = 26
)

func mapError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqliteFull:
		return problem.New(problem.DiskFull, "no space left for the seeder's database").
			WithDone("nothing was recorded, nothing was acknowledged").WithNext("free space").Because(err)
	case sqliteCorrupt, sqliteNotADB:
		return problem.New(problem.StoreDamaged, "the seeder's database is damaged").
			WithNext("stop the seeder and restore the file from a backup").Because(err)
	}
	return err
}
