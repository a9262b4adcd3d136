package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// DropCache tells the kernel that a file will not be read soon, see posix_fadvise(2). What is not on the disk yet stays.
// It is advice: there is nothing to do about an error.
func DropCache(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
