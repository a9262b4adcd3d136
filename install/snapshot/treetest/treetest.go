// Package treetest makes trees with everything in them that a package manager and its scripts leave, changes them in
// every way such a program can, and describes them by other programs than ours, for the tests of snapshots. It is for
// tests only, needs root, and touches nothing outside of the directory that it is given.
package treetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/durable"
)

// Need skips a test that cannot make owners and devices here, or lacks a program.
func Need(t testing.TB, programs map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs the right to make owners, devices and mounts: run as root")
	}
	for name, pkg := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name + ": apt-get install " + pkg)
		}
	}
}

// Maker makes and changes trees, the same for the same seed.
type Maker struct {
	*rand.Rand
	Top   string
	Flags bool // immutable and append-only files too: not every file system has them
	T     testing.TB
	n     int
}

// New makes a Maker for a directory.
func New(t testing.TB, top string, seed uint64) *Maker {
	return &Maker{Rand: rand.New(rand.NewPCG(seed, 1)), Top: top, T: t}
}

func (m *Maker) do(err error) {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
}

// Fill makes n names below the top.
func (m *Maker) Fill(n int) {
	m.T.Helper()
	for range n {
		m.make(m.dir())
	}
	m.settle()
	for range n / 10 {
		m.lock(m.pick(func(fi fs.FileInfo) bool { return fi.IsDir() || isFile(fi) }))
	}
}

// lock makes a file or directory immutable or append-only.
func (m *Maker) lock(p string) {
	if m.Flags && p != "" {
		m.flag(p, []int{0x10, 0x20}[m.IntN(2)])
	}
}

// settle gives every directory a time of its own, since making things in it took the clock's.
func (m *Maker) settle() {
	for _, p := range m.all() {
		if fi, err := os.Lstat(p); err == nil && fi.IsDir() {
			m.time(p)
		}
	}
}

func (m *Maker) time(p string) {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1.5e9 + m.Int64N(1e8), Nsec: m.Int64N(1e9)}}
	m.do(unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
}

// all lists every path below the top, and the top.
func (m *Maker) all() (out []string) {
	m.do(filepath.WalkDir(m.Top, func(p string, _ fs.DirEntry, err error) error {
		out = append(out, p)
		return err
	}))
	return out
}

func (m *Maker) pick(want func(fs.FileInfo) bool) string {
	var fit []string
	for _, p := range m.all() {
		if fi, err := os.Lstat(p); err == nil && want(fi) {
			fit = append(fit, p)
		}
	}
	if len(fit) == 0 {
		return ""
	}
	return fit[m.IntN(len(fit))]
}

func isDir(fi fs.FileInfo) bool  { return fi.IsDir() }
func isFile(fi fs.FileInfo) bool { return fi.Mode().IsRegular() }
func notDir(fi fs.FileInfo) bool { return !fi.IsDir() }

func (m *Maker) dir() string { return m.pick(isDir) }

// name is a new one, of the kinds that break programs.
func (m *Maker) name(dir string) string {
	m.n++
	form := []string{"f%d", "lib%d.so", "with blank %d", "nl\n%d", "\xff\xfe%d", "-n%d", ".dot%d", "ä%d", "%%25%d", "~%d.dpkg-new", "*%d", strings.Repeat("n", 240) + "%d"}
	return filepath.Join(dir, fmt.Sprintf(form[m.IntN(len(form))], m.n))
}

func (m *Maker) content() []byte {
	b := make([]byte, []int{0, 1, 100, 4096, 5000, 70000}[m.IntN(6)])
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}

// make makes one thing of any kind in a directory.
func (m *Maker) make(dir string) {
	p := m.name(dir)
	switch m.IntN(12) {
	case 0, 1:
		m.do(os.Mkdir(p, 0o755))
	case 2:
		to := []string{"/etc/passwd", "../up", "nowhere", filepath.Base(m.dir()), strings.Repeat("x/", 100)}
		m.do(os.Symlink(to[m.IntN(len(to))], p))
	case 3:
		if old := m.pick(notDir); old != "" {
			m.do(ignore(os.Link(old, p), unix.EPERM, unix.EMLINK)) // an immutable file gets no names
		}
		return
	case 4:
		kinds := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}
		m.do(unix.Mknod(p, kinds[m.IntN(4)]|0o640, int(unix.Mkdev(7, m.Uint32N(200)))))
	case 5:
		f, err := os.Create(p)
		m.do(err)
		_, err = f.WriteAt([]byte("end"), int64(m.IntN(8))<<20+5000)
		m.do(errors.Join(err, f.Truncate(9<<20), f.Close()))
	default:
		m.do(os.WriteFile(p, m.content(), 0o644))
	}
	for range m.IntN(3) {
		m.meta(p)
	}
	m.time(p)
}

func ignore(err error, those ...error) error {
	if slices.ContainsFunc(those, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	return err
}

// meta changes something about a path that is not its content.
func (m *Maker) meta(p string) {
	fi, err := os.Lstat(p)
	m.do(err)
	link := fi.Mode().Type() == fs.ModeSymlink
	switch m.IntN(5) {
	case 0:
		m.do(os.Lchown(p, m.IntN(70000), m.IntN(70000)))
	case 1:
		if !link {
			m.do(unix.Chmod(p, []uint32{0o4755, 0o2755, 0o1777, 0o600, 0, 0o644}[m.IntN(6)]))
		}
	case 2:
		m.do(ignore(unix.Lsetxattr(p, "trusted.t"+fmt.Sprint(m.IntN(3)), make([]byte, m.IntN(300)), 0), unix.ENOSPC, unix.ENOTSUP))
	case 3:
		if isFile(fi) {
			m.do(ignore(unix.Lsetxattr(p, "security.capability", capability(m.Uint32()), 0), unix.ENOTSUP))
		}
	case 4:
		if !link {
			m.do(ignore(unix.Lsetxattr(p, "system.posix_acl_access", acl(m.Uint32N(70000)), 0), unix.ENOTSUP))
		}
		if fi.IsDir() {
			m.do(ignore(unix.Lsetxattr(p, "system.posix_acl_default", acl(m.Uint32N(70000)), 0), unix.ENOTSUP))
		}
	}
}

// capability is an attribute of version 2, see linux/capability.h.
func capability(bits uint32) []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], bits)
	return b
}

// acl gives one more user the right to read, see acl(5) and linux/posix_acl_xattr.h.
func acl(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, uid}, {4, 4, ^uint32(0)}, {16, 6, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func (m *Maker) flag(p string, flags int) {
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	m.do(ignore(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags), unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL))
}

// Unflag makes everything below the top mutable, so that it can be deleted.
func (m *Maker) Unflag() {
	for _, p := range m.all() {
		if fi, err := os.Lstat(p); err == nil && (fi.IsDir() || isFile(fi)) {
			m.flag(p, 0)
		}
	}
}

// Damage changes the tree n times.
func (m *Maker) Damage(n int) {
	m.T.Helper()
	for range n {
		m.damage()
	}
}

// free makes a path and its directory changeable, as a script with chattr does.
func (m *Maker) free(p string) string {
	if m.Flags && p != "" {
		m.flag(filepath.Dir(p), 0)
		if fi, err := os.Lstat(p); err == nil && (fi.IsDir() || isFile(fi)) {
			m.flag(p, 0)
		}
	}
	return p
}

func (m *Maker) damage() {
	switch m.IntN(14) {
	case 13:
		m.lock(m.pick(func(fi fs.FileInfo) bool { return fi.IsDir() || isFile(fi) }))
	case 0, 1:
		m.make(m.free(m.dir()))
	case 2: // deleted, with all below it
		if p := m.pick(func(fs.FileInfo) bool { return true }); p != m.Top {
			(&Maker{Rand: m.Rand, Top: p, T: m.T}).Unflag()
			m.do(os.RemoveAll(m.free(p)))
		}
	case 3: // replaced by rename, as dpkg and rpm do
		if p := m.free(m.pick(isFile)); p != "" {
			m.do(errors.Join(os.WriteFile(p+"+", m.content(), 0o755), durable.RenameAt(unix.AT_FDCWD, p+"+", p)))
		}
	case 4: // other content, same size and time
		if p := m.free(m.pick(func(fi fs.FileInfo) bool { return isFile(fi) && fi.Size() > 0 })); p != "" {
			Forge(m.T, p)
		}
	case 5: // written in place
		if p := m.free(m.pick(isFile)); p != "" {
			m.do(os.WriteFile(p, m.content(), 0o644))
		}
	case 6, 7:
		m.meta(m.free(m.pick(func(fs.FileInfo) bool { return true })))
	case 8: // a directory moved, and a link to it in its place
		if p := m.pick(isDir); p != m.Top {
			to := m.name(m.free(m.Top))
			m.free(p)
			m.do(ignore(durable.RenameAt(unix.AT_FDCWD, p, to), unix.EINVAL, unix.EXDEV)) // into itself; a directory of overlayfs's lower layer
			if _, err := os.Lstat(p); err != nil {
				m.do(os.Symlink(to, p))
			}
		}
	case 9: // a file becomes a directory
		if p := m.free(m.pick(notDir)); p != "" {
			m.do(errors.Join(os.Remove(p), os.Mkdir(p, 0o700)))
			m.make(p)
		}
	case 10: // another link of a group
		if p, q := m.pick(notDir), m.free(m.pick(notDir)); p != "" && p != q {
			m.free(p)
			m.do(os.Remove(q))
			m.do(os.Link(p, q))
		}
	case 11: // a link broken: same content on an inode of its own
		if p := m.free(m.pick(isFile)); p != "" {
			if out, err := exec.Command("cp", "-a", "--", p, p+"+").CombinedOutput(); err != nil {
				m.T.Fatalf("%v %s", err, out)
			}
			m.do(durable.RenameAt(unix.AT_FDCWD, p+"+", p))
		}
	case 12:
		m.time(m.free(m.pick(func(fs.FileInfo) bool { return true })))
	}
}

// Forge changes the first byte of a file and gives it its time back.
func Forge(t testing.TB, p string) {
	t.Helper()
	fi, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(p, time.Time{}, fi.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// Manifest describes a tree by find, stat, sha256sum, getfattr and lsattr: every path with all that counts. prune are
// paths below the top that are left out with what is in them.
func Manifest(t testing.TB, top string, prune ...string) string {
	t.Helper()
	run := func(name string, args ...string) []byte {
		var errs bytes.Buffer
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Stderr = top, &errs
		cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
		out, err := cmd.Output()
		if err != nil && name != "lsattr" { // which has nothing to say of links and devices
			t.Fatalf("%s %q: %v %s", name, args, err, errs.String())
		}
		return out
	}
	find := func(more ...string) []byte {
		args := []string{".", "-xdev"}
		for _, p := range prune {
			args = append(args, "-path", "./"+p, "-prune", "-o")
		}
		return run("find", append(args, more...)...)
	}
	var lines []string
	first := map[string]string{}
	rows := strings.Split(strings.TrimSuffix(string(find("-printf", `%P\0%y %m %U %G %T@ \0%s\0%i %n\0%l\0`)), "\x00"), "\x00")
	type row struct{ path, meta, size, inode, target string }
	var all []row
	for i := 0; i+4 < len(rows); i += 5 {
		all = append(all, row{rows[i], rows[i+1], rows[i+2], rows[i+3], rows[i+4]})
	}
	slices.SortFunc(all, func(a, b row) int { return strings.Compare(a.path, b.path) })
	for _, r := range all {
		if r.meta[0] == 'd' || strings.HasSuffix(r.inode, " 1") {
			r.inode = ""
		} else if first[r.inode] == "" {
			first[r.inode], r.inode = r.path, ""
		} else {
			r.inode = "as " + first[r.inode]
		}
		if r.meta[0] == 'd' {
			r.size = ""
		}
		lines = append(lines, fmt.Sprintf("%q %s %s %q %s", r.path, r.meta, r.size, r.target, r.inode))
	}
	for _, part := range []struct {
		more []string
	}{
		{[]string{"-type", "f", "-exec", "sha256sum", "-z", "--", "{}", "+"}},
		{[]string{"(", "-type", "b", "-o", "-type", "c", ")", "-exec", "stat", "--printf", `%n %t:%T\0`, "--", "{}", "+"}},
		{[]string{"-exec", "getfattr", "-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", "--", "{}", "+"}},
		{[]string{"(", "-type", "f", "-o", "-type", "d", ")", "-exec", "lsattr", "-d", "--", "{}", "+"}},
	} {
		sep := "\x00"
		if part.more[0] == "-exec" {
			sep = "\n\n" // getfattr: a paragraph for each file
		}
		if part.more[len(part.more)-4] == "-d" {
			sep = "\n"
		}
		var got []string
		for _, l := range strings.Split(string(find(part.more...)), sep) {
			if strings.Contains(l, "\n") && sep == "\n\n" || sep != "\n\n" {
				if sep == "\n" { // only the flags that count
					flags, name, _ := strings.Cut(l, " ")
					l = fmt.Sprint(strings.Contains(flags, "i"), strings.Contains(flags, "a"), name)
				}
				var kept []string
				for _, a := range strings.Split(l, "\n") {
					if !strings.HasPrefix(a, "trusted.mesh-install.") {
						kept = append(kept, a)
					}
				}
				if sep != "\n\n" || len(kept) > 1 {
					got = append(got, strings.Join(kept, "\n"))
				}
			}
		}
		slices.Sort(got)
		lines = append(lines, got...)
	}
	return strings.Join(lines, "\n") + "\n"
}
