package snapshot

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of btrfs that snapshots need, as linux/btrfs.h has them. The numbers are _IOW and _IOR of magic 0x94 on
// platforms whose ioctl directions are the common ones.
const (
	btrfsSnapDestroy  = 0x5000940f // struct btrfs_ioctl_vol_args
	btrfsSnapCreateV2 = 0x50009417 // struct btrfs_ioctl_vol_args_v2
	btrfsGetFlags     = 0x80089419 // u64
	btrfsFSInfo       = 0x8400941f // struct btrfs_ioctl_fs_info_args

	btrfsReadOnly  = 1 << 1 // BTRFS_SUBVOL_RDONLY
	btrfsFirstFree = 256    // inode of the top of every subvolume
)

type btrfsVolArgs struct {
	fd   int64
	name [4088]byte
}

type btrfsVolArgsV2 struct {
	fd      int64
	transID uint64
	flags   uint64
	_       [4]uint64
	name    [4040]byte
}

type btrfsInfoArgs struct {
	maxID, devices uint64
	fsid           [16]byte
	_              [992]byte
}

func btrfsIoctl(dir string, call uintptr, arg unsafe.Pointer) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), call, uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return &os.PathError{Op: "btrfs ioctl", Path: dir, Err: errno}
		}
		return nil
	}
}

// btrfsSnapshot makes a read-only snapshot of a subvolume in a directory. It is durable when the call returns: the
// kernel commits the transaction.
func btrfsSnapshot(subvolume, dir, name string) error {
	src, err := os.Open(subvolume)
	if err != nil {
		return err
	}
	defer src.Close()
	args := btrfsVolArgsV2{fd: int64(src.Fd()), flags: btrfsReadOnly}
	if copy(args.name[:len(args.name)-1], name) < len(name) {
		return unix.ENAMETOOLONG
	}
	err = btrfsIoctl(dir, btrfsSnapCreateV2, unsafe.Pointer(&args)) //nolint:gosec // the kernel's interface
	runtime.KeepAlive(src)
	return err
}

// btrfsDestroy removes a snapshot by its name in a directory.
func btrfsDestroy(dir, name string) error {
	var args btrfsVolArgs
	if copy(args.name[:len(args.name)-1], name) < len(name) {
		return unix.ENAMETOOLONG
	}
	return btrfsIoctl(dir, btrfsSnapDestroy, unsafe.Pointer(&args)) //nolint:gosec // the kernel's interface
}

// btrfsIsReadOnly says whether a subvolume is one that nobody writes to.
func btrfsIsReadOnly(subvolume string) (bool, error) {
	var flags uint64
	err := btrfsIoctl(subvolume, btrfsGetFlags, unsafe.Pointer(&flags)) //nolint:gosec // the kernel's interface
	return flags&btrfsReadOnly != 0, err
}

// btrfsID is the file system's own number, the same in all its subvolumes.
func btrfsID(dir string) (id [16]byte, err error) {
	var args btrfsInfoArgs
	err = btrfsIoctl(dir, btrfsFSInfo, unsafe.Pointer(&args)) //nolint:gosec // the kernel's interface
	return args.fsid, err
}

// isSubvolume says whether a directory is the top of a subvolume of btrfs.
func isSubvolume(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return uint32(fs.Type) == unix.BTRFS_SUPER_MAGIC && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == btrfsFirstFree, nil
}
