package release

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// SpaceError says that a release would not fit.
type SpaceError struct {
	Path       string
	Need, Free int64  // bytes
	What       string // "bytes" or "inodes"
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s needs %d %s, %d are free", e.Path, e.Need, e.What, e.Free)
}

// Is makes the error one of "no space left".
func (e *SpaceError) Is(target error) bool { return target == unix.ENOSPC }

// Fits checks that the files of an index fit on the file system, each rounded up to whole blocks, with reserve bytes
// to spare. It is a courtesy that saves work: what really happens is decided by the writes.
func (d *Dir) Fits(x *manifest.Index, reserve int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.releases(), &st); err != nil {
		return fmt.Errorf("free space of %s: %w", d.releases(), err)
	}
	block := max(int64(st.Bsize), 1) //nolint:unconvert // 32 bits on some platforms
	need := reserve
	for i := range x.Files {
		need += (x.Files[i].Size + block - 1) / block * block
	}
	if free := int64(st.Bavail) * block; need > free {
		return &SpaceError{d.releases(), need, free, "bytes"}
	}
	if inodes := int64(len(x.Files)); st.Files > 0 && inodes > int64(st.Ffree) {
		return &SpaceError{d.releases(), inodes, int64(st.Ffree), "inodes"}
	}
	return nil
}
