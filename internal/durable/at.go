package durable

import "golang.org/x/sys/unix"

// RenameAt renames a name to another in one open directory, replacing what is there. Nothing is flushed: the content must
// be durable before, and the caller flushes the directory when the last of its renames is done.
func RenameAt(dir int, from, to string) error { return unix.Renameat(dir, from, dir, to) }

// ExchangeAt exchanges two names of one open directory in one step, whatever they are. File systems that cannot do that
// return EINVAL. Nothing is flushed, see RenameAt.
func ExchangeAt(dir int, a, b string) error {
	return unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE)
}
