package tree

import (
	"errors"

	"golang.org/x/sys/unix"
)

// trimmer removes what was not kept and makes the metadata of directories good, the deepest first, since every change in
// a directory changes its time.
type trimmer struct {
	*engine
	stats *Stats
}

func (t *trimmer) enter(n *node) (bool, error) {
	if !n.inA {
		return false, t.remove(n.b, n.name, n.path, t.stats)
	}
	if !n.ia.isDir() || !n.inB || !n.ib.isDir() {
		return false, nil
	}
	o, _, err := t.kept(n)
	return !o.left, err
}

func (t *trimmer) left(*node) error { return nil }

func (t *trimmer) leave(n *node) (err error) {
	if n.ib, n.inB, err = n.b.stat(n.name); err != nil || !n.inB {
		return err
	}
	o, m, err := t.kept(n)
	if err != nil {
		return err
	}
	c, err := t.differs(n, o, m)
	if err != nil || c == 0 {
		return err
	}
	if n.ib.flags != 0 {
		if err := n.b.setFlags(n.name, 0); err != nil {
			return err
		}
	}
	if err := n.b.setMeta(n.name, *m, t.buf[:maxXattr]); err != nil {
		return err
	}
	t.stats.Mended++
	if m.flags != 0 {
		return n.b.setFlags(n.name, m.flags)
	}
	return nil
}

// remove takes a name away with all below it, but not what does not belong to the tree, nor the directories on the way
// to that.
func (e *engine) remove(d *dir, name, p string, stats *Stats) error {
	_, err := e.removeAll(d, name, p)
	stats.Removed++
	return err
}

func (e *engine) removeAll(d *dir, name, p string) (gone bool, err error) {
	i, ok, err := d.stat(name)
	if err != nil || !ok {
		return err == nil, err
	}
	if e.leaves(&node{path: p, name: name, b: d, ib: i, inB: true}) {
		return false, nil
	}
	flags := 0
	if i.isDir() {
		if gone, err = e.empty(d, name, p); err != nil || !gone {
			return false, err
		}
		flags = unix.AT_REMOVEDIR
	}
	err = d.taking(name, func() error { return unix.Unlinkat(d.fd, name, flags) })
	switch {
	case errors.Is(err, unix.ENOENT):
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EBUSY): // somebody works in it, or mounted something
		return false, nil
	case err != nil:
		return false, d.err("unlink", name, err)
	}
	return true, nil
}

func (e *engine) empty(d *dir, name, p string) (empty bool, err error) {
	sub, err := d.open(name)
	if err != nil {
		return false, err
	}
	defer sub.drop()
	names, err := sub.names()
	if err != nil {
		return false, err
	}
	empty = true
	for _, s := range names {
		gone, err := e.removeAll(sub, s, p+"/"+s)
		if err != nil {
			return false, err
		}
		empty = empty && gone
	}
	return empty, nil
}
