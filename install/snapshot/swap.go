package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// maxSwaps bounds what is read of the kernel's list, in bytes. It holds no more than 32 lines, see MAX_SWAPFILES.
const maxSwaps = 256 << 10

// swaps are the paths of the files to which the kernel swaps now. What is in them is memory, as large as that; the kernel
// lets nobody put another in their place (EPERM).
func swaps() ([]string, error) {
	b, err := readAtMost("/proc/swaps", maxSwaps)
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSwaps(b)
}

// parseSwaps reads proc_swaps(5): a line of headings, then "PATH TYPE SIZE USED PRIORITY".
func parseSwaps(b []byte) (out []string, err error) {
	_, b, _ = bytes.Cut(b, []byte("\n"))
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || !path.IsAbs(unescape(f[0])) {
			return nil, fmt.Errorf("swaps: line %q", line)
		}
		if f[1] == "file" && !strings.HasSuffix(f[0], `\040(deleted)`) {
			out = append(out, path.Clean(unescape(f[0])))
		}
	}
	return out, nil
}

// swapOn names a file to which the kernel swaps on a file system, or subvolume; empty: there is none.
func swapOn(dev uint64) (string, error) {
	all, err := swaps()
	if err != nil {
		return "", err
	}
	for _, p := range all {
		if d, err := deviceOf(p); err == nil && d == dev {
			return p, nil
		}
	}
	return "", nil
}
