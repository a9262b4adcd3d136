package snapshot

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
)

// Mount is one line of /proc/self/mountinfo, see proc(5).
type Mount struct {
	Device  string // MAJOR:MINOR
	Root    string // what of the file system is mounted: "/" is all
	Point   string
	Type    string
	Source  string
	Options []string // of the mount and of the file system
}

// maxMounts bounds what ParseMounts takes: container hosts have thousands.
const maxMounts = 100_000

// ParseMounts reads the file. Where several are mounted at one point, the last is the one that is seen.
func ParseMounts(r io.Reader) ([]Mount, error) {
	var out []Mount
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if len(out) == maxMounts {
			return nil, fmt.Errorf("mountinfo: more than %d lines", maxMounts)
		}
		f := strings.Fields(s.Text())
		sep := slices.Index(f, "-")
		if sep < 6 || len(f) < sep+3 {
			return nil, fmt.Errorf("mountinfo: line %q", s.Text())
		}
		m := Mount{Device: f[2], Root: unescape(f[3]), Point: unescape(f[4]), Type: f[sep+1], Source: unescape(f[sep+2]), Options: strings.Split(f[5], ",")}
		if len(f) > sep+3 {
			m.Options = append(m.Options, strings.Split(f[sep+3], ",")...)
		}
		if !path.IsAbs(m.Point) {
			return nil, fmt.Errorf("mountinfo: line %q", s.Text())
		}
		out = append(out, m)
	}
	return out, s.Err()
}

// unescape turns \040 and the like into bytes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func mounts() ([]Mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return ParseMounts(bytes.NewReader(b))
}

// option returns the value of an option, "" if it is not set.
func (m Mount) option(name string) string {
	for _, o := range m.Options {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return v
		}
	}
	return ""
}

// at returns the mount in which a path lies.
func at(ms []Mount, p string) (Mount, bool) {
	var found Mount
	for _, m := range ms { // the last one wins
		if len(m.Point) >= len(found.Point) && (m.Point == p || m.Point == "/" || strings.HasPrefix(p, m.Point+"/")) {
			found = m
		}
	}
	return found, found.Point != ""
}

// below lists the mount points under a root as the machine sees them.
func below(ms []Mount, root string) (out []string) {
	for _, m := range ms {
		if p, ok := relative(root, m.Point); ok && p != "/" {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// relative is a path as the machine with this root sees it.
func relative(root, p string) (string, bool) {
	rel, err := filepath.Rel(root, p)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	return path.Join("/", rel), true
}

// system says whether packages write to a path, or may write to all that is below it.
func system(p string) bool {
	for _, top := range []string{"/bin", "/boot", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/sbin", "/usr"} {
		if p == top || strings.HasPrefix(p, top+"/") {
			return true
		}
	}
	return slices.Contains([]string{"/var", "/var/lib", "/var/lib/apt", "/var/lib/dnf", "/var/lib/dpkg", "/var/lib/rpm", "/var/cache", "/var/opt"}, p)
}

// onDisk says whether a file system is one of the machine's own: those of the kernel, of memory and of other machines are
// never put back.
func onDisk(kind string) bool {
	return slices.Contains([]string{"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "vfat", "xfs", "zfs"}, kind)
}

// parts lists the mount points below the root, as the machine sees them, that belong to its system: what packages write
// to, on disks of its own, writable, not left out.
func parts(ms []Mount, s Scope) (out []string) {
	for _, p := range below(ms, s.Root) {
		m, _ := at(ms, path.Join(s.Root, p))
		if !system(p) || !onDisk(m.Type) || slices.Contains(m.Options, "ro") || s.excludes(p) {
			continue
		}
		if fi, err := os.Stat(path.Join(s.Root, p)); err != nil || !fi.IsDir() { // a file that is mounted cannot be replaced
			continue
		}
		out = append(out, p)
	}
	return out
}

func (s Scope) excludes(p string) bool {
	return slices.ContainsFunc(s.Exclude, func(e string) bool { return p == e || strings.HasPrefix(p, e+"/") })
}

// elsewhere names the places of the system that do not lie on the file system, or subvolume, of the root: a snapshot of
// that alone would not keep them.
func elsewhere(ms []Mount, s Scope) ([]string, error) {
	top, err := deviceOf(s.Root)
	if err != nil {
		return nil, err
	}
	out := parts(ms, s)
	for _, p := range []string{"/boot", "/etc", "/opt", "/usr", "/usr/local", "/var", "/var/lib", "/var/lib/apt", "/var/lib/dnf", "/var/lib/dpkg", "/var/lib/rpm", "/var/cache", "/var/opt"} {
		dev, err := deviceOf(path.Join(s.Root, p))
		if err == nil && dev != top && !s.excludes(p) && !readOnly(ms, path.Join(s.Root, p)) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func readOnly(ms []Mount, p string) bool {
	m, ok := at(ms, p)
	return ok && m.Point == p && slices.Contains(m.Options, "ro")
}

// deviceOf is the file system that a path itself lies on; a link is not followed.
func deviceOf(p string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: p, Err: err}
	}
	return st.Dev, nil
}

// led are the places to which links lead that stand where something is left out: a database that was moved to a larger
// disk. What would leave out the system itself is not followed.
func (s Scope) led() (out []string) {
	for _, p := range s.Exclude {
		real, err := filepath.EvalSymlinks(path.Join(s.Root, p))
		if err != nil { // not there, or not to be seen: nothing to leave out
			continue
		}
		rel, ok := relative(s.Root, real)
		if ok && rel != p && rel != "/" && !(system(rel) && (strings.Count(rel, "/") == 1 || strings.HasPrefix(rel, "/var/"))) {
			out = append(out, rel)
		}
	}
	return out
}

// options are those of the tree for a scope now: without what is the provider's own, nor what the kernel swaps to.
func (s Scope) options(ms []Mount, own ...string) (tree.Options, error) {
	o := tree.Options{Exclude: append(slices.Clone(s.Exclude), s.led()...), Mounts: below(ms, s.Root)}
	swap, err := swaps()
	if err != nil {
		return o, err
	}
	for _, p := range append(own, swap...) {
		if rel, ok := relative(s.Root, p); ok && rel != "/" {
			o.Exclude = append(o.Exclude, rel)
		}
	}
	return o, nil
}
