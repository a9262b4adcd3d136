package fleet

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// mapError gives an engine's error the code that a person can look up; one that has a code keeps it.
func mapError(err error) error {
	if err == nil || problem.CodeOf(err) != problem.Internal {
		return err
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return mapSQLite(lite, err)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return mapPostgres(pg, err)
	}
	if lost(err) {
		return unreachable(err)
	}
	return err
}

func diskFull(err error) error {
	return problem.New(problem.DiskFull, "no space left for the seeder's database").
		WithDone("nothing was recorded, nothing was acknowledged").WithNext("free space").Because(err)
}

func damaged(err error) error {
	return problem.New(problem.StoreDamaged, "the seeder's database is damaged").
		WithNext("stop the seeder and restore the database from a backup: seeder restore --help").Because(err)
}

func unreachable(err error) error {
	return problem.New(problem.DatabaseUnreachable, "the database server does not answer").
		WithDone("nothing was recorded, nothing was acknowledged").WithNext("start it, or mend the way to it; the seeder goes on by itself").Because(err)
}
