// Package tree makes one directory tree equal to another, to the byte, and says in what two trees differ. Type, mode,
// owner, size, time of change in nanoseconds, target, device numbers, extended attributes (so capabilities, access
// lists and labels too), the flags immutable and append-only, hard links and content count; times of access do not.
//
// [Copy] keeps a tree, [Restore] puts it back in place, [Compare] and [Digest] are for those who want proof. No
// operation follows a symbolic link, enters another file system or nested subvolume (unless [Options.Cross] names
// it), or touches what [Options.Exclude] names; every step is relative to an open directory. Memory is bounded by the
// largest directory, the number of hard links, and a batch of files.
//
// # What a crash leaves
//
// Restore replaces each file by a temporary file in the same directory, flushed, and a rename; a directory that took
// the place of a file, or a file that took the place of a directory, is exchanged for it in one step. Everything that
// was there before is put back first and what was not there before is removed afterwards, so that at each instant
// every name holds what was there before Restore or what was kept, whole, and a library that is linked to is never
// missing. Only if the disk is full the order is turned: what was not there goes, then the rest is put back. To
// run Restore again carries on whatever was cut.
//
// # What counts as proof that content is equal
//
// The content of two files is compared byte by byte, unless the inode number and the time of status change (ctime)
// prove that the machine's file was not touched. No program can set a ctime: it is what the kernel's clock said when
// anything of the inode was last changed, writes to mapped pages after a flush included. A snapshot of the file system
// has the inode numbers and ctimes of the original ([Shared]); a copy notes them in an attribute ([Recorded]). A ctime is
// no proof when it is not clearly older than the copy (a second change in the same tick of the clock would not show), when
// it has no nanoseconds, or on a file system other than ext4, XFS and btrfs: overlayfs has other inode numbers after
// a copy-up, and tmpfs does not note writes to mapped pages. To be fooled, a clock would have to be set back to the very
// tick of an earlier change of the very same inode.
//
// Functions may run at the same time on different trees. They belong to the goroutine that calls them.
package tree
