package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Proof says when a kept file is known to equal the machine's without a look at its content.
type Proof int

// The proofs, see the package documentation.
const (
	None     Proof = iota // the content is always compared
	Shared                // the kept tree is a snapshot of the file system: same inode numbers and ctimes
	Recorded              // the kept tree was made by Copy
)

// Options say what belongs to a tree.
type Options struct {
	Exclude []string          // absolute as seen from the top ("/var/log"); with all below them
	Skip    func(string) bool // the same for paths that a rule leaves out ("/home/x/.cache"); nil: none
	Cross   []string          // mount points that belong to the tree, as Exclude is written
	Mounts  []string          // the mount points of the machine's tree; others are noticed by their number, since Linux 5.8

	Proof  Proof     // of Compare and Restore
	Before time.Time // when the kept tree was begun, by the machine's clock: a ctime must be well before
	Plain  bool      // the kept tree has neither flags, nor extended attributes, nor hard links: those of the machine stay
}

// slack is by how much a ctime must be older than the copy: more than the coarsest granularity of a clock or time
// stamp, which is one second.
const slack = 2 * time.Second

// engine holds what every walk needs.
type engine struct {
	Options
	exclude, cross, mounts map[string]bool
	tops                   []inode
	keptLive               bool // the first tree is in use: what vanishes from it is no error
	trusted                map[uint64]bool
	buf, buf2              []byte
}

func newEngine(o Options) (*engine, error) {
	e := &engine{
		Options: o, exclude: map[string]bool{}, cross: map[string]bool{}, mounts: map[string]bool{}, trusted: map[uint64]bool{},
		buf: make([]byte, blockSize), buf2: make([]byte, blockSize),
	}
	for _, l := range []struct {
		from []string
		to   map[string]bool
	}{{o.Exclude, e.exclude}, {o.Cross, e.cross}, {o.Mounts, e.mounts}} {
		for _, p := range l.from {
			if !path.IsAbs(p) || path.Clean(p) != p {
				return nil, fmt.Errorf("path %q: not absolute and clean", p)
			}
			l.to[strings.TrimPrefix(p, "/")] = true
		}
	}
	return e, nil
}

// node is one name in two trees: a is the kept or only one, b the other.
type node struct {
	path     string // from the top; "" is the top itself, with the name "."
	name     string
	a, b     *dir // that hold it; nil: no such directory
	ia, ib   info
	inA, inB bool
	at       string // its name in b, where that is another one for now
}

// visitor is told of every name. Only directories of a, or of b where a has none, are entered.
type visitor interface {
	// enter says whether to go into it. It may make the directory in b.
	enter(n *node) (into bool, err error)
	// leave comes after all below it.
	leave(n *node) error
	// left is told of what does not belong to the tree.
	left(n *node) error
}

// run walks two trees, the top included; b may be nil.
func (e *engine) run(ctx context.Context, a, b *dir, v visitor) error {
	n := &node{name: ".", at: ".", a: a, inA: true, ia: a.info}
	e.tops = []inode{a.info.id()}
	if b != nil {
		n.b, n.inB, n.ib = b, true, b.info
		e.tops = append(e.tops, b.info.id())
	}
	if _, err := v.enter(n); err != nil {
		return err
	}
	if err := e.walk(ctx, a, b, "", v); err != nil {
		return err
	}
	return v.leave(n)
}

func (e *engine) walk(ctx context.Context, a, b *dir, at string, v visitor) error {
	names, err := union(a, b)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.visit(ctx, &node{path: path.Join(at, name), name: name, at: name, a: a, b: b}, v); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) visit(ctx context.Context, n *node, v visitor) (err error) {
	if n.ia, n.inA, err = n.a.stat(n.name); err != nil {
		return err
	}
	if n.ib, n.inB, err = n.b.stat(n.name); err != nil {
		return err
	}
	switch {
	case !n.inA && !n.inB:
		return nil
	case e.leaves(n):
		return v.left(n)
	}
	into, err := v.enter(n)
	if err != nil || !into {
		return err
	}
	var a, b *dir
	defer func() { a.drop(); b.drop() }()
	if n.inA && n.ia.isDir() {
		if a, err = n.a.open(n.name); err != nil && !(e.keptLive && errors.Is(err, unix.ENOENT)) {
			return err
		}
	}
	if n.inB && n.ib.isDir() {
		if b, err = n.b.open(n.at); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	// Something was mounted since the look at the name.
	if a != nil && (a.info.dev != n.ia.dev || a.info.mount != n.ia.mount) || b != nil && (b.info.dev != n.ib.dev || b.info.mount != n.ib.mount) {
		return &fs.PathError{Op: "open", Path: n.path, Err: errors.New("another file system than a moment ago")}
	}
	if err := e.walk(ctx, a, b, n.path, v); err != nil {
		return err
	}
	return v.leave(n)
}

// leaves says whether a name does not belong to the tree.
func (e *engine) leaves(n *node) bool {
	return e.excluded(n.path) || !e.cross[n.path] && (n.inA && e.border(n.a, n.ia) || n.inB && e.border(n.b, n.ib) || e.mounts[n.path])
}

func (e *engine) excluded(p string) bool {
	return e.exclude[p] || e.Skip != nil && e.Skip("/"+p)
}

// border says whether i lies on another file system, subvolume or mount than the directory that names it, or is the
// top of one of the two trees itself.
func (e *engine) border(d *dir, i info) bool {
	return i.isDir() && i.dev != d.info.dev || i.mount != d.info.mount || i.isDir() && slices.Contains(e.tops, i.id())
}

// holds says whether something that does not belong to the tree lies below a path.
func (e *engine) holds(p string) bool {
	for _, m := range []map[string]bool{e.exclude, e.mounts} {
		for q := range m {
			if strings.HasPrefix(q, p+"/") {
				return true
			}
		}
	}
	return false
}

// proves says whether the file systems' own notes show that a kept inode and the machine's are equal in everything.
func (e *engine) proves(ino uint64, ctime stamp, b info, d *dir) bool {
	return ino == b.ino && ctime == b.ctime && ctime.nsec != 0 && time.Unix(ctime.sec, int64(ctime.nsec)).Before(e.Before.Add(-slack)) && e.trusts(d, b.dev)
}

// trusts says whether a file system gives inodes numbers that stay and notes each change in the ctime.
func (e *engine) trusts(d *dir, dev uint64) bool {
	if dev != d.info.dev {
		return false
	}
	known, ok := e.trusted[dev]
	if !ok {
		var st unix.Statfs_t
		if unix.Fstatfs(d.fd, &st) == nil {
			switch uint32(st.Type) {
			case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
				known = true
			}
		}
		e.trusted[dev] = known
	}
	return known
}

// union lists the names of two directories, each once, sorted.
func union(a, b *dir) ([]string, error) {
	na, err := a.names()
	if err != nil {
		return nil, err
	}
	nb, err := b.names()
	if err != nil || len(nb) == 0 {
		return na, err
	}
	all := append(na, nb...)
	slices.Sort(all)
	return slices.Compact(all), nil
}
