package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// CorruptError says that bytes do not hash to the identity they came under. Its code is problem.ChunkCorrupt.
type CorruptError struct {
	Want, Got chunk.ID
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("chunk %s is corrupt: its bytes have the id %s", e.Want, e.Got)
}

// Unwrap gives the error its code.
func (e *CorruptError) Unwrap() error {
	return problem.New(problem.ChunkCorrupt, "chunk %s is corrupt", e.Want)
}

// mapError gives "no space left" its code.
func mapError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return problem.New(problem.DiskFull, "no space left for chunks").
			WithDone("what was already verified is kept, nothing half-written is left").
			WithNext("free space or lower the quota; the work resumes by itself").Because(err)
	}
	return err
}
