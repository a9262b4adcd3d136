package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
)

// Overlay lays an empty layer over the machine's root, so that a whole transaction can be tried on the directory merged and
// thrown away: nothing below it changes. dir is a new directory for the layer; it must lie on another file system than
// the root. Only the root's own file system is seen in merged, what is mounted below it is not.
//
// discard takes the layer away with all that was tried. It fails while a process works in merged. One that a crash left
// is taken away by the next Overlay in the same directory.
func Overlay(_ context.Context, s Scope, dir string) (merged string, discard func() error, err error) {
	if strings.ContainsAny(s.Root+dir, `,:\`) {
		return "", nil, fmt.Errorf("overlay of %s in %s: a path with a comma, colon or backslash", s.Root, dir)
	}
	layer := map[string]string{}
	for _, name := range []string{"merged", "upper", "work"} {
		layer[name] = filepath.Join(dir, name)
	}
	discard = func() error {
		if err := unix.Unmount(layer["merged"], unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("overlay in %s: unmount: %w", dir, err)
		}
		// Only now: what is removed below a mount that is still there is the machine's.
		for _, p := range layer {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
		return nil
	}
	if err := private(dir); err != nil {
		return "", nil, err
	}
	root, err := deviceOf(s.Root)
	if err != nil {
		return "", nil, err
	}
	if on, err := deviceOf(dir); err != nil || on == root {
		return "", nil, errors.Join(fmt.Errorf("overlay of %s: %s lies on the same file system", s.Root, dir), err)
	}
	if err := discard(); err != nil {
		return "", nil, err
	}
	for _, p := range layer {
		if err := os.Mkdir(p, 0o755); err != nil {
			return "", nil, err
		}
	}
	if err := tree.Metadata(s.Root, layer["upper"]); err != nil { // the top of merged is the layer's
		return "", nil, errors.Join(err, discard())
	}
	options := "lowerdir=" + s.Root + ",upperdir=" + layer["upper"] + ",workdir=" + layer["work"]
	if err := unix.Mount("mesh-install", layer["merged"], "overlay", 0, options); err != nil {
		return "", nil, errors.Join(fmt.Errorf("overlay of %s: %w", s.Root, err), discard())
	}
	return layer["merged"], discard, nil
}
