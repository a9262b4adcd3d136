package tree

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The flags of inodes that are kept, by their values in FS_IOC_SETFLAGS (linux/fs.h). The others say how a file is
// stored, not what it is.
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
)

// xattr is one extended attribute.
type xattr struct{ name, value string }

// Names and values are no larger than 64 KiB together each, see xattr(7).
const maxXattr = 64 << 10

// ours says which attributes count. The origin is a note of Copy; security.evm is a keyed hash over the inode's
// number, so the kernel makes it and a copy of it is worthless.
func ours(name string) bool { return name != originName && name != "security.evm" }

// xattrs reads the attributes of a name, sorted, and the origin note apart.
func (d *dir) xattrs(name string, buf []byte) (list []xattr, origin string, err error) {
	p := d.via(name)
	n, err := unix.Llistxattr(p, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", d.err("listxattr", name, err)
	}
	if n == 0 {
		return nil, "", nil
	}
	for _, attr := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !ours(attr) && attr != originName {
			continue
		}
		n, err := unix.Lgetxattr(p, attr, buf)
		if errors.Is(err, unix.ENODATA) { // gone since
			continue
		}
		if err != nil {
			return nil, "", d.err("getxattr "+attr, name, err)
		}
		if attr == originName {
			origin = string(buf[:n])
			continue
		}
		list = append(list, xattr{attr, string(buf[:n])})
	}
	slices.SortFunc(list, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return list, origin, nil
}

// sameXattrs compares what is kept with what is there. A label of SELinux that was not kept is no difference: it comes
// and goes with the policy, and cannot be removed.
func sameXattrs(kept, there []xattr) bool {
	if !slices.ContainsFunc(kept, isLabel) {
		there = slices.DeleteFunc(slices.Clone(there), isLabel)
	}
	return slices.Equal(kept, there)
}

func isLabel(x xattr) bool { return x.name == "security.selinux" }

// meta is what an inode is beside its content.
type meta struct {
	info
	xattrs []xattr
}

// setMeta gives a name the owner, attributes, permissions and time of m, in the order in which none undoes another: a change
// of owner clears set-user-ID bits and capabilities, an access list changes the permissions' group bits. The inode is
// held, so that it is one and the same for all steps. Flags are not set.
func (d *dir) setMeta(name string, m meta, buf []byte) error {
	fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return d.err("open", name, err)
	}
	defer unix.Close(fd)
	now, err := statAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return d.err("stat", name, err)
	}
	if now.kind() != m.kind() {
		return d.err("stat", name, errors.New("became another type of file"))
	}
	chown := now.uid != m.uid || now.gid != m.gid
	if chown {
		if err := unix.Fchownat(fd, "", int(m.uid), int(m.gid), unix.AT_EMPTY_PATH); err != nil {
			return d.err("chown", name, err)
		}
	}
	there, _, err := d.xattrs(name, buf)
	if err != nil {
		return err
	}
	// The link in /proc leads to the inode that is held. A symbolic link cannot be reached like that.
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	set, remove := unix.Setxattr, unix.Removexattr
	if m.isLink() {
		self, set, remove = d.via(name), unix.Lsetxattr, unix.Lremovexattr
	}
	for _, x := range there {
		if !slices.ContainsFunc(m.xattrs, func(y xattr) bool { return y.name == x.name }) && !isLabel(x) {
			if err := remove(self, x.name); err != nil && !errors.Is(err, unix.ENODATA) {
				return d.err("removexattr "+x.name, name, err)
			}
		}
	}
	if !m.isLink() && (chown || len(there) > 0 || now.perm() != m.perm()) {
		if err := unix.Chmod(self, m.perm()); err != nil {
			return d.err("chmod", name, err)
		}
	}
	for _, x := range m.xattrs {
		if !slices.Contains(there, x) || strings.HasPrefix(x.name, "system.posix_acl") {
			if err := set(self, x.name, []byte(x.value), 0); err != nil {
				return d.err("setxattr "+x.name, name, err)
			}
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(0)}
	times[1].Sec, times[1].Nsec = m.mtime.sec, int64(m.mtime.nsec)
	if m.isLink() {
		err = unix.UtimesNanoAt(d.fd, name, times, unix.AT_SYMLINK_NOFOLLOW)
	} else {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, self, times, 0)
	}
	if err != nil {
		return d.err("utimes", name, err)
	}
	return nil
}

// setFlags sets immutable and append-only as wanted and leaves the other flags alone.
func (d *dir) setFlags(name string, want uint32) error {
	fd, err := openAt(d.fd, name, readFlags, 0)
	if err != nil {
		return d.err("open", name, err)
	}
	defer unix.Close(fd)
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return d.err("flags", name, err)
	}
	set := have&^(flagImmutable|flagAppend) | want
	if set == have {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(set)); err != nil {
		return d.err("flags", name, err)
	}
	return nil
}

// taking does f, which takes the name from its inode, and where that is forbidden once more while neither the directory nor
// the inode is immutable or append-only. If the inode has other names, what it was is what they want it to be; whoever
// makes the directories' metadata good sets theirs again.
func (d *dir) taking(name string, f func() error) error {
	err := unlocked(d, f)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, oerr := openAt(d.fd, name, readFlags, 0)
	if oerr != nil { // what has flags can be opened
		return err
	}
	defer unix.Close(fd)
	have, oerr := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if oerr != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(have&^(flagImmutable|flagAppend))); err != nil {
		return d.err("flags", name, err)
	}
	err = f()
	left, serr := statAt(fd, "", unix.AT_EMPTY_PATH)
	if serr == nil && left.nlink > 0 {
		serr = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(have))
	}
	if serr != nil {
		serr = d.err("flags", name, serr)
	}
	return errors.Join(err, serr)
}
