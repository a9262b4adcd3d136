package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is an open directory of a tree. Names in it are never resolved further than itself, so what others do to the
// path above it changes nothing.
type dir struct {
	fd   int
	path string // from the top; "" is the top
	info info
	refs int
}

const readFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// openAt opens without following a link, and without a trace in the time of access where that is allowed.
func openAt(fd int, name string, flags int, mode uint32) (int, error) {
	for {
		f, err := unix.Openat(fd, name, flags|unix.O_NOATIME, mode)
		if errors.Is(err, unix.EPERM) {
			f, err = unix.Openat(fd, name, flags, mode)
		}
		if !errors.Is(err, unix.EINTR) {
			return f, err
		}
	}
}

func openTop(name string) (*dir, error) {
	fd, err := openAt(unix.AT_FDCWD, name, readFlags&^unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return newDir(fd, "")
}

// open opens a directory in this one.
func (d *dir) open(name string) (*dir, error) {
	fd, err := openAt(d.fd, name, readFlags|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, d.err("open", name, err)
	}
	return newDir(fd, d.join(name))
}

func newDir(fd int, name string) (*dir, error) {
	d := &dir{fd: fd, path: name, refs: 1}
	var err error
	if d.info, err = statAt(fd, "", unix.AT_EMPTY_PATH); err != nil {
		d.drop()
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return d, nil
}

func (d *dir) keep() *dir { d.refs++; return d }

func (d *dir) drop() {
	if d == nil {
		return
	}
	if d.refs--; d.refs == 0 {
		_ = unix.Close(d.fd) // only read from
	}
}

func (d *dir) join(name string) string { return path.Join(d.path, name) }

func (d *dir) err(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: d.join(name), Err: err}
}

// via is a path for the calls that take no directory. It must not be followed further: the last part may be a link.
func (d *dir) via(name string) string { return "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + name }

// file opens a regular file to read it, or to change its flags.
func (d *dir) file(name string) (int, error) {
	fd, err := openAt(d.fd, name, readFlags, 0)
	if err != nil {
		return -1, d.err("open", name, err)
	}
	return fd, nil
}

// names lists the directory, sorted by bytes.
func (d *dir) names() ([]string, error) {
	if d == nil {
		return nil, nil
	}
	if _, err := unix.Seek(d.fd, 0, 0); err != nil {
		return nil, d.err("read", "", err)
	}
	var out []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(d.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, d.err("read", "", err)
		}
		if n == 0 {
			break
		}
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
	}
	slices.Sort(out)
	return out, nil
}

// stat looks at a name; ok is false if there is none.
func (d *dir) stat(name string) (i info, ok bool, err error) {
	if d == nil {
		return info{}, false, nil
	}
	i, err = statAt(d.fd, name, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return info{}, false, nil
	case err != nil:
		return info{}, false, d.err("stat", name, err)
	}
	return i, true, nil
}

// target reads a symbolic link.
func (d *dir) target(name string) (string, error) {
	buf := make([]byte, 4096) // PATH_MAX: no link is longer
	n, err := unix.Readlinkat(d.fd, name, buf)
	if err != nil {
		return "", d.err("readlink", name, err)
	}
	return string(buf[:n]), nil
}

// parent opens the directory of a path below d, component by component.
func (d *dir) parent(p string) (*dir, string, error) {
	at := d.keep()
	parts := strings.Split(p, "/")
	for _, name := range parts[:len(parts)-1] {
		next, err := at.open(name)
		at.drop()
		if err != nil {
			return nil, "", err
		}
		at = next
	}
	return at, parts[len(parts)-1], nil
}

// stamp is a time as the kernel gives it.
type stamp struct {
	sec  int64
	nsec uint32
}

// info is what the kernel says of an inode.
type info struct {
	mode            uint32 // type and permissions as in st_mode
	uid, gid, nlink uint32
	ino, dev, rdev  uint64
	mount           uint64 // 0: this kernel does not say
	size, blocks    int64  // bytes, units of 512 bytes
	mtime, ctime    stamp
	flags           uint32 // flagImmutable, flagAppend
}

func statAt(fd int, name string, flags int) (info, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(fd, name, flags|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return info{}, err
		}
		break
	}
	i := info{
		mode: uint32(st.Mode), uid: st.Uid, gid: st.Gid, nlink: st.Nlink, ino: st.Ino,
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		size: int64(st.Size), blocks: int64(st.Blocks),
		mtime: stamp{st.Mtime.Sec, st.Mtime.Nsec}, ctime: stamp{st.Ctime.Sec, st.Ctime.Nsec},
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		i.mount = st.Mnt_id
	}
	if st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		i.flags |= flagImmutable
	}
	if st.Attributes&unix.STATX_ATTR_APPEND != 0 {
		i.flags |= flagAppend
	}
	return i, nil
}

func (i info) kind() uint32 { return i.mode & unix.S_IFMT }
func (i info) isDir() bool  { return i.kind() == unix.S_IFDIR }
func (i info) isFile() bool { return i.kind() == unix.S_IFREG }
func (i info) isLink() bool { return i.kind() == unix.S_IFLNK }
func (i info) perm() uint32 { return i.mode &^ unix.S_IFMT }
func (i info) sparse() bool { return i.blocks*512 < i.size }
func (i info) id() inode    { return inode{i.dev, i.ino} }
func (i info) linked() bool { return !i.isDir() && i.nlink > 1 }
func (i info) device() bool {
	return i.kind() == unix.S_IFBLK || i.kind() == unix.S_IFCHR
}

// inode names a file whatever its names are.
type inode struct{ dev, ino uint64 }

func (i inode) String() string { return fmt.Sprintf("%d:%d", i.dev, i.ino) }
