package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/durable"
)

// Copy keeps a tree as a new directory, whose parent exists: whole and durable, or not at all. Blocks are shared where the
// file system can. What is left out is there as a mark, so that [Restore] leaves it alone whatever its options say then.
// A copy that was cut is taken away by the next one to the same place.
func Copy(ctx context.Context, machine, copied string, o Options) (stats Stats, err error) {
	e, err := newEngine(o)
	if err != nil {
		return Stats{}, err
	}
	if _, err := os.Lstat(copied); !errors.Is(err, os.ErrNotExist) {
		return Stats{}, errors.Join(err, fmt.Errorf("%s: %w", copied, os.ErrExist))
	}
	a, err := openTop(machine)
	if err != nil {
		return Stats{}, err
	}
	defer a.drop()
	tmp := Unfinished(copied)
	if err := os.RemoveAll(tmp); err != nil {
		return Stats{}, err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return Stats{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	b, err := openTop(tmp)
	if err != nil {
		return Stats{}, err
	}
	defer b.drop()
	// What was written through memory maps gets its ctime now, not after the copy.
	if err := e.sync(a); err != nil {
		return Stats{}, err
	}
	e.keptLive, e.Proof = true, None
	c := &copier{engine: e, top: b, links: newLinks()}
	if err := e.run(ctx, a, b, c); err != nil {
		return c.stats, err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return c.stats, err
	}
	return c.stats, durable.Rename(tmp, copied)
}

// Unfinished is the name of a copy until it is whole.
func Unfinished(copied string) string {
	return filepath.Join(filepath.Dir(copied), durable.TempPrefix+filepath.Base(copied))
}

// copier writes a tree into an empty directory.
type copier struct {
	*engine
	top   *dir
	links *links
	stats Stats
}

func (c *copier) enter(n *node) (bool, error) {
	c.stats.Files++
	if n.path == "" {
		return true, nil
	}
	if n.inB {
		return false, n.b.err("create", n.name, os.ErrExist)
	}
	if n.ia.isDir() {
		return true, c.mkdir(n)
	}
	if n.ia.linked() {
		if lead, ok := c.links.leader[n.ia.id()]; ok {
			return false, c.link(n, lead)
		}
	}
	m := &meta{info: n.ia}
	err := c.complete(n, m)
	var written int64
	if err == nil {
		var fd int
		fd, written, err = c.make(n, n.b, n.name, m)
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	if err == nil {
		err = c.note(n.b, n.name, origin{ino: m.ino, ctime: m.ctime, flags: m.flags})
	}
	if errors.Is(err, unix.ENOENT) { // gone since it was listed
		if uerr := unix.Unlinkat(n.b.fd, n.name, 0); uerr == nil || errors.Is(uerr, unix.ENOENT) {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	c.stats.Replaced++
	c.stats.Bytes += written
	if n.ia.linked() {
		c.links.leader[n.ia.id()] = leader{path: n.b.join(n.name)}
	}
	return false, nil
}

func (c *copier) mkdir(n *node) (err error) {
	if err := unix.Mkdirat(n.b.fd, n.name, 0o700); err != nil {
		return n.b.err("mkdir", n.name, err)
	}
	c.stats.Replaced++
	n.ib, n.inB, err = n.b.stat(n.name)
	return err
}

func (c *copier) link(n *node, lead leader) error {
	p, name, err := c.top.parent(lead.path)
	if err != nil {
		return err
	}
	defer p.drop()
	if err := unix.Linkat(p.fd, name, n.b.fd, n.name, 0); err != nil {
		return n.b.err("link", n.name, err)
	}
	c.stats.Replaced++
	return nil
}

// note says of what a name of the copy is one.
func (c *copier) note(d *dir, name string, o origin) error {
	if err := unix.Lsetxattr(d.via(name), originName, o.encode(), 0); err != nil {
		return d.err("setxattr "+originName, name, err)
	}
	return nil
}

// left marks what does not belong to the tree.
func (c *copier) left(n *node) error {
	var err error
	if n.ia.isDir() {
		err = unix.Mkdirat(n.b.fd, n.name, 0o700)
	} else {
		err = unix.Mknodat(n.b.fd, n.name, unix.S_IFREG|0o600, 0)
	}
	if err != nil {
		return n.b.err("create", n.name, err)
	}
	return c.note(n.b, n.name, origin{left: true})
}

// leave gives a directory its metadata when nothing in it changes any more.
func (c *copier) leave(n *node) error {
	m := &meta{info: n.ia}
	if err := c.complete(n, m); err != nil {
		if errors.Is(err, unix.ENOENT) { // gone since it was listed; what was found in it stays
			return c.note(n.b, n.name, origin{ino: m.ino})
		}
		return err
	}
	if err := n.b.setMeta(n.name, *m, c.buf[:maxXattr]); err != nil {
		return err
	}
	return c.note(n.b, n.name, origin{ino: m.ino, ctime: m.ctime, flags: m.flags})
}
