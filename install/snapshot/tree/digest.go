package tree

import (
	"crypto/sha256"
	"fmt"
	"hash"

	"golang.org/x/sys/unix"
)

// digester hashes one line for each name.
type digester struct {
	*engine
	sum   hash.Hash
	first map[inode]string // the first name of each inode that has several
}

func (d *digester) enter(n *node) (bool, error) {
	o, m, err := d.kept(n)
	if err != nil || o.left {
		return false, err
	}
	if err := d.complete(n, m); err != nil {
		return false, err
	}
	size := m.size
	if m.isDir() {
		size = 0 // depends on how the file system keeps its entries
	}
	fmt.Fprintf(d.sum, "%q %o %d %d %d %d %d.%09d %x %q", n.path, m.mode, m.uid, m.gid, m.rdev, size, m.mtime.sec, m.mtime.nsec, m.flags, m.xattrs)
	if m.linked() {
		first, ok := d.first[m.id()]
		if ok {
			fmt.Fprintf(d.sum, " as %q\n", first)
			return false, nil
		}
		d.first[m.id()] = n.path
	}
	switch {
	case m.isLink():
		target, err := n.a.target(n.name)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(d.sum, " to %q", target)
	case m.isFile():
		fd, err := n.a.file(n.name)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		h := sha256.New()
		if err := hashContent(h, fd, m.info, d.buf); err != nil {
			return false, n.a.err("read", n.name, err)
		}
		fmt.Fprintf(d.sum, " %x", h.Sum(nil))
	}
	d.sum.Write([]byte("\n"))
	return m.isDir(), nil
}

func (d *digester) leave(*node) error { return nil }
func (d *digester) left(*node) error  { return nil }
