package tree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// Change is a set of ways in which a name differs.
type Change uint16

// The ways.
const (
	Missing Change = 1 << iota // kept, not there
	Extra                      // there, not kept
	Type
	Mode
	Owner
	Size
	Time
	Target
	Device
	Attributes // extended ones, access lists and capabilities too
	Flags      // immutable, append-only
	Links      // shares its inode with other names than it did
	Content
)

// String names the ways.
func (c Change) String() string {
	names := []string{"missing", "extra", "type", "mode", "owner", "size", "time", "target", "device", "attributes", "flags", "links", "content"}
	var out []string
	for i, name := range names {
		if c&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

// replaces are the changes that need another inode; the others are made good on the one that is there.
const replaces = Missing | Type | Size | Target | Device | Links | Content

// Diff is one name that differs.
type Diff struct {
	Path string // absolute from the tops of the trees
	Change
}

// String is for logs.
func (d Diff) String() string { return fmt.Sprintf("%q: %s", d.Path, d.Change) }

// Compare calls yield for each name in which the machine's tree differs from the kept one, in the order of the names.
// Neither is changed. An error of yield ends it.
func Compare(ctx context.Context, kept, machine string, o Options, yield func(Diff) error) error {
	e, err := newEngine(o)
	if err != nil {
		return err
	}
	a, err := openTop(kept)
	if err != nil {
		return err
	}
	defer a.drop()
	b, err := openTop(machine)
	if err != nil {
		return err
	}
	defer b.drop()
	return e.run(ctx, a, b, &comparer{engine: e, links: newLinks(), yield: yield})
}

type comparer struct {
	*engine
	links *links
	yield func(Diff) error
}

func (c *comparer) enter(n *node) (bool, error) {
	change := Extra
	if n.inA {
		o, m, err := c.kept(n)
		if err != nil || o.left {
			return false, err
		}
		if change, err = c.differs(n, o, m); err != nil {
			return false, err
		}
		if c.broken(c.links, n) {
			change |= Links
		} else if change&replaces == 0 {
			c.links.found(n)
		}
	}
	if change != 0 {
		if err := c.yield(Diff{"/" + n.path, change}); err != nil {
			return false, err
		}
	}
	return n.inA && n.ia.isDir() || !n.inA && n.ib.isDir(), nil
}

func (c *comparer) leave(*node) error { return nil }
func (c *comparer) left(*node) error  { return nil }

// kept returns what is known of a kept name: the note of its origin, and lazily everything else.
func (e *engine) kept(n *node) (o origin, m *meta, err error) {
	m = &meta{info: n.ia}
	if e.Plain && n.inB {
		m.flags = n.ib.flags
	}
	if e.Proof != Recorded {
		return origin{ino: n.ia.ino, ctime: n.ia.ctime, flags: n.ia.flags}, m, nil
	}
	list, note, err := n.a.xattrs(n.name, e.buf[:maxXattr])
	if err != nil {
		return origin{}, nil, err
	}
	if o, err = decodeOrigin(note); err != nil {
		return origin{}, nil, n.a.err("kept tree", n.name, err)
	}
	m.xattrs, m.flags = list, o.flags
	return o, m, nil
}

// complete adds the attributes to what is known, where they are not known yet.
func (e *engine) complete(n *node, m *meta) (err error) {
	switch {
	case e.Plain && n.inB && n.ib.kind() == m.kind():
		m.xattrs, _, err = n.b.xattrs(n.at, e.buf[:maxXattr])
	case e.Plain:
	case e.Proof != Recorded:
		m.xattrs, _, err = n.a.xattrs(n.name, e.buf[:maxXattr])
	}
	return err
}

// differs says in what the machine's inode differs from the kept one, links apart. Of a directory, only itself. Unless
// it returns an error, m is full when anything differs.
func (e *engine) differs(n *node, o origin, m *meta) (c Change, err error) {
	if !n.inB {
		return Missing, e.complete(n, m)
	}
	if n.ia.kind() != n.ib.kind() {
		return Type, e.complete(n, m)
	}
	if e.Proof != None && n.ia.size*b2i(!n.ia.isDir()) == n.ib.size*b2i(!n.ib.isDir()) && e.proves(o.ino, o.ctime, n.ib, n.b) {
		return 0, nil
	}
	if err := e.complete(n, m); err != nil {
		return 0, err
	}
	there, _, err := n.b.xattrs(n.at, e.buf[:maxXattr])
	if err != nil {
		return 0, err
	}
	for _, t := range []struct {
		differs bool
		Change
	}{
		{m.perm() != n.ib.perm() && !m.isLink(), Mode},
		{m.uid != n.ib.uid || m.gid != n.ib.gid, Owner},
		{m.isFile() && m.size != n.ib.size, Size},
		{m.mtime != n.ib.mtime, Time},
		{m.device() && m.rdev != n.ib.rdev, Device},
		{!sameXattrs(m.xattrs, there), Attributes},
		{m.flags != n.ib.flags, Flags},
	} {
		if t.differs {
			c |= t.Change
		}
	}
	switch {
	case m.isLink():
		same, err := e.sameTarget(n)
		if err != nil {
			return 0, err
		}
		if !same {
			c |= Target
		}
	case m.isFile() && c&Size == 0 && m.size > 0:
		same, err := e.sameFile(n)
		if err != nil {
			return 0, err
		}
		if !same {
			c |= Content
		}
	}
	return c, nil
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (e *engine) sameTarget(n *node) (bool, error) {
	ta, err := n.a.target(n.name)
	if err != nil {
		return false, err
	}
	tb, err := n.b.target(n.at)
	return ta == tb, err
}

func (e *engine) sameFile(n *node) (bool, error) {
	fa, err := n.a.file(n.name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fa)
	fb, err := n.b.file(n.at)
	if err != nil {
		return false, err
	}
	defer unix.Close(fb)
	same, err := sameContent(fa, fb, n.ia, n.ib, e.buf, e.buf2)
	if err != nil {
		return false, &fs.PathError{Op: "compare", Path: n.path, Err: err}
	}
	return same, nil
}

// links knows which names share an inode, in both trees.
type links struct {
	leader  map[inode]leader // by kept inode: the name in b that has it
	claimed map[inode]inode  // by inode of b: whose it is
}

type leader struct {
	path string // in b, as it is now
	ino  inode
}

func newLinks() *links { return &links{map[inode]leader{}, map[inode]inode{}} }

// broken says whether b has this name on another inode than the names that share it in a, or on one that belongs to
// names that do not share it in a.
func (e *engine) broken(l *links, n *node) bool {
	if e.Plain || !n.inB || n.ia.isDir() || n.ib.isDir() {
		return false
	}
	if n.ia.linked() {
		if lead, ok := l.leader[n.ia.id()]; ok {
			return lead.ino != n.ib.id()
		}
	}
	owner, ok := l.claimed[n.ib.id()]
	return ok && n.ib.linked() && owner != n.ia.id()
}

// found notes that b's name is as it should be.
func (l *links) found(n *node) {
	if n.ia.isDir() {
		return
	}
	if n.ia.linked() {
		if _, ok := l.leader[n.ia.id()]; !ok {
			l.leader[n.ia.id()] = leader{n.b.join(n.at), n.ib.id()}
		}
	}
	if n.ib.linked() {
		l.claimed[n.ib.id()] = n.ia.id()
	}
}

// Digest is one number for everything that counts in a tree: two trees that Compare finds equal have the same.
// With [Recorded] the tree is one that Copy made and the digest is that of the original.
func Digest(ctx context.Context, top string, o Options) (string, error) {
	e, err := newEngine(o)
	if err != nil {
		return "", err
	}
	a, err := openTop(top)
	if err != nil {
		return "", err
	}
	defer a.drop()
	e.keptLive = true
	d := &digester{engine: e, first: map[inode]string{}}
	d.sum = sha256.New()
	if err := e.run(ctx, a, nil, d); err != nil {
		return "", err
	}
	return hex.EncodeToString(d.sum.Sum(nil)), nil
}
