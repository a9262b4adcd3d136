package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Need is room that a transaction takes below a directory.
type Need struct {
	Dir   string // absolute, as this process sees it; need not exist yet
	Bytes int64
	Files int64
}

// Space is one file system, what a transaction takes of it, and what it has.
type Space struct {
	Path             string // where it is mounted
	Need, Free       int64  // bytes; Need with what has to stay free
	NeedFiles, Files int64  // inodes; Files -1: as many as there is room for
}

// lacks says what is missing; empty: nothing.
func (s Space) lacks() string {
	switch {
	case s.Need > s.Free:
		return fmt.Sprintf("file system %s needs %s, has %s free", s.Path, mebibytes(s.Need), mebibytes(s.Free))
	case s.Files >= 0 && s.NeedFiles > s.Files:
		return fmt.Sprintf("file system %s needs %d inodes, has %d free", s.Path, s.NeedFiles, s.Files)
	}
	return ""
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// What a transaction takes beside the files of its packages.
const (
	managerBytes = 32 << 20  // lists, indices and logs of the package manager
	workBytes    = 64 << 20  // its private directory: apt's two caches of a repository, dnf's of metadata
	initrdBytes  = 128 << 20 // an initial file system that is made anew, if none is there to compare with
	fileBytes    = 8 << 10   // of a package for each of its files, where they are not counted: few are smaller on average
	blockBytes   = 4 << 10
)

// Disk says what a transaction will bring.
type Disk struct {
	Root    string             // of the machine
	Format  manifest.Format    // deb or rpm
	Repo    string             // the verified bundle: what packages.Package.File is relative to
	Bring   []packages.Package // that are unpacked. Old and new are there together for a while, so nothing is taken off
	Work    string             // the back end's private directory
	Extra   []Need             // what else is known: the snapshot
	Reserve int64              // bytes that stay free on each file system, of a small one at most a sixteenth
	Runner  tool.Runner        // asks a package what it holds
}

// Look says, for every file system that the transaction writes to, what it takes and what there is. Where all of a
// machine's programs are on one file system, which is usual, the sizes that the packages state are enough; otherwise
// each package is asked for its files, which the machine has verified.
func (d Disk) Look(ctx context.Context) ([]Space, error) {
	needs := []Need{{Dir: d.Work, Bytes: workBytes, Files: 100}}
	needs = append(needs, d.Extra...)
	needs = append(needs, d.database()...)
	one, err := d.together()
	if err != nil {
		return nil, err
	}
	if one {
		for _, p := range d.Bring {
			needs = append(needs, Need{Dir: filepath.Join(d.Root, "usr"), Bytes: p.InstalledBytes + p.InstalledBytes/16, Files: 10 + p.InstalledBytes/fileBytes})
		}
		return measure(needs, d.Reserve)
	}
	for _, p := range d.Bring {
		n, err := d.contents(ctx, p)
		if err != nil {
			return nil, err
		}
		needs = append(needs, n...)
	}
	return measure(needs, d.Reserve)
}

// together reports whether what packages write to is all one file system.
func (d Disk) together() (bool, error) {
	first := ""
	for _, dir := range []string{"usr", "lib", "etc", "var", "var/lib", "var/cache", "boot", "opt"} {
		_, fsys, err := holding(filepath.Join(d.Root, dir))
		if err != nil {
			return false, err
		}
		if first = cmp.Or(first, fsys.id); fsys.id != first {
			return false, nil
		}
	}
	return true, nil
}

// database is what the package manager writes of its own: its database, which it replaces whole, and on a machine with
// kernels the initial file systems that scripts make, which no package lists.
func (d Disk) database() []Need {
	needs := []Need{{Dir: filepath.Join(d.Root, "var/lib"), Bytes: managerBytes, Files: 1000}}
	for _, dir := range []string{"var/lib/dpkg", "var/lib/rpm", "usr/lib/sysimage/rpm", "root/.rpmdb"} {
		n := Need{Dir: filepath.Join(d.Root, dir)}
		eachFile(n.Dir, func(_ string, size int64) { n.Bytes += 2 * size })
		needs = append(needs, n)
	}
	boot := Need{Dir: filepath.Join(d.Root, "boot")}
	largest := int64(0)
	eachFile(boot.Dir, func(name string, size int64) {
		if strings.HasPrefix(name, "initr") {
			largest = max(largest, size)
		}
	})
	boot.Bytes = largest // the one of the running kernel may be made anew
	for _, p := range d.Bring {
		if strings.HasPrefix(p.Name, "linux-image-") || p.Name == "kernel" || p.Name == "kernel-core" {
			boot.Bytes += cmp.Or(largest, initrdBytes)
		}
	}
	return append(needs, boot)
}

// eachFile calls f for the regular files directly in a directory; one that cannot be read has none.
func eachFile(dir string, f func(name string, size int64)) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range es {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			f(e.Name(), fi.Size())
		}
	}
}

// contents asks a package for its files and sums them by directory.
func (d Disk) contents(ctx context.Context, p packages.Package) ([]Need, error) {
	file := filepath.Join(d.Repo, filepath.FromSlash(p.File))
	c, parse := tool.Command{Path: "dpkg-deb", Args: []string{"--contents", file}}, parseDeb
	if d.Format == manifest.FormatRPM {
		c, parse = tool.Command{Path: "rpm", Args: []string{"-qp", "--nosignature", "--qf", `[%{FILESIZES} %{FILENAMES}\n]`, file}}, parseRPM
	}
	res, err := d.Runner.Run(ctx, c)
	if err == nil && (res.Exit != 0 || len(res.Stdout) >= tool.MaxOutput) {
		err = fmt.Errorf("status %d: %s", res.Exit, clip(strings.TrimSpace(string(res.Stderr))))
	}
	if err != nil {
		return nil, fmt.Errorf("files of package %s: %w", p.ID(), err)
	}
	sums := map[string]Need{}
	for l := range strings.Lines(string(res.Stdout)) {
		name, size, ok := parse(strings.TrimSuffix(l, "\n"))
		if !ok {
			continue
		}
		dir := path.Dir(path.Join("/", name))
		n := sums[dir]
		n.Dir, n.Files = filepath.Join(d.Root, dir), n.Files+1
		n.Bytes += (size + blockBytes - 1) / blockBytes * blockBytes
		sums[dir] = n
	}
	needs := []Need{{Dir: filepath.Join(d.Root, "var/lib"), Files: 10}} // its lists and scripts
	for _, n := range sums {
		needs = append(needs, n)
	}
	return needs, nil
}

// parseDeb reads a line of dpkg-deb --contents: "-rw-r--r-- root/root 12 2026-01-01 00:00 ./usr/share/a". A device
// shows its numbers in the place of a size.
func parseDeb(l string) (name string, size int64, ok bool) {
	f := strings.Fields(l)
	if len(f) < 6 {
		return "", 0, false
	}
	if size, _ = strconv.ParseInt(f[2], 10, 64); size < 0 {
		return "", 0, false
	}
	_, name, ok = strings.Cut(l, f[4]+" ")
	switch f[0][0] {
	case 'l': // "./a -> b"; "h" would be "./a link to b"
		name, _, _ = strings.Cut(name, " -> ")
	case 'h':
		name, _, _ = strings.Cut(name, " link to ")
	}
	return name, size, ok
}

// parseRPM reads a line of the query: size and path.
func parseRPM(l string) (name string, size int64, ok bool) {
	num, name, ok := strings.Cut(l, " ")
	size, err := strconv.ParseInt(num, 10, 64)
	return name, size, ok && err == nil && size >= 0
}

// fileSystem is one, as statfs(2) tells them apart.
type fileSystem struct {
	id string
	st unix.Statfs_t
}

// holding finds the file system that a directory is on, or will be on once it is made, and where that is mounted.
func holding(dir string) (string, fileSystem, error) {
	fi, err := os.Stat(dir)
	for ; err != nil && dir != "/"; fi, err = os.Stat(dir) {
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fileSystem{}, err
		}
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return "", fileSystem{}, err
	}
	var f fileSystem
	if err := unix.Statfs(dir, &f.st); err != nil {
		return "", f, fmt.Errorf("free space of %s: %w", dir, err)
	}
	f.id = fmt.Sprint(f.st.Fsid)
	if f.st.Type == unix.BTRFS_SUPER_MAGIC { // each subvolume has an ID of its own, and all share the room
		f.id = fmt.Sprint("btrfs ", f.st.Blocks)
	}
	at := dir
	for at != "/" {
		up, err := os.Stat(filepath.Dir(at))
		if err != nil || device(up) != device(fi) {
			break
		}
		at = filepath.Dir(at)
	}
	return at, f, nil
}

func device(fi os.FileInfo) uint64 {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Dev) //nolint:unconvert // 32 bits on some platforms
}

// measure sums needs by file system and says what there is, in the order of paths.
func measure(needs []Need, reserve int64) ([]Space, error) {
	by := map[string]*Space{}
	for _, n := range needs {
		if n.Dir == "" || n.Bytes == 0 && n.Files == 0 {
			continue
		}
		at, f, err := holding(n.Dir)
		if err != nil {
			return nil, err
		}
		s := by[f.id]
		if s == nil {
			block := max(int64(f.st.Bsize), 1) //nolint:unconvert // 32 bits on some platforms
			s = &Space{Path: at, Free: int64(f.st.Bavail) * block, Files: -1, Need: min(reserve, int64(f.st.Blocks)*block/16)}
			if f.st.Files > 0 {
				s.Files = int64(f.st.Ffree)
			}
			by[f.id] = s
		}
		s.Need, s.NeedFiles = s.Need+n.Bytes, s.NeedFiles+n.Files
		if len(at) < len(s.Path) {
			s.Path = at
		}
	}
	out := make([]Space, 0, len(by))
	for _, s := range by {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Space) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}
