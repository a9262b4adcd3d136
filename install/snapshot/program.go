package snapshot

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/tool"
)

// longest is how long a program may take: Timeshift copies a whole system.
const longest = 2 * time.Hour

// run runs a program of a provider for a snapshot; an exit status other than 0 is an error.
func run(ctx context.Context, id, program string, args ...string) ([]byte, error) {
	res, err := tool.Runner{ID: id, Max: longest}.Run(ctx, tool.Command{Path: program, Args: args})
	if err != nil {
		return nil, err
	}
	if res.Exit != 0 {
		return nil, fmt.Errorf("%s: exit status %d: %s", program, res.Exit, lastLine(res.Both))
	}
	return res.Stdout, nil
}

// lastLine is the end of what a program said, for an error.
func lastLine(b []byte) string {
	s := strings.TrimSpace(string(b))
	s = s[strings.LastIndexByte(s, '\n')+1:]
	return s[:min(len(s), 300)]
}

// mounted mounts a device below dir, read-only for whoever uses it there, calls do with the directory, and takes it away. One
// that a killed run left is taken away first. The mount itself is not read-only unless options say so: a device that is
// mounted elsewhere for writing cannot be mounted otherwise.
func mounted(ctx context.Context, id, device, dir, options string, do func(top string) error) (err error) {
	point := filepath.Join(dir, "mnt")
	if err := private(dir); err != nil {
		return err
	}
	if err := private(point); err != nil {
		return err
	}
	for unix.Unmount(point, unix.UMOUNT_NOFOLLOW) == nil {
	}
	if _, err := run(ctx, id, "mount", "-o", options, device, point); err != nil {
		return err
	}
	defer func() {
		if uerr := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); uerr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", point, uerr))
		}
	}()
	if err := unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s read-only: %w", point, err)
	}
	in, err := deviceOf(point)
	if err != nil {
		return err
	}
	above, err := deviceOf(dir)
	if err != nil {
		return err
	}
	if in == above { // an empty directory must never pass for a machine
		return fmt.Errorf("mount %s: nothing is mounted", point)
	}
	return do(point)
}
