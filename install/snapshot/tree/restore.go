package tree

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of what Restore has not put in place yet.
const tempPrefix = ".mesh-install-"

// ErrEmpty says that a kept tree has nothing in it: to make a machine equal to it would delete the machine.
var ErrEmpty = errors.New("the kept tree is empty")

// Stats says what was done.
type Stats struct {
	Files    int   // looked at, of every type
	Replaced int   // made or replaced
	Mended   int   // only their metadata
	Removed  int   // with all below them
	Bytes    int64 // written; blocks that are shared cost none
}

// Restore makes the machine's tree what the kept one is, durably. It may be called again after any crash and then
// carries on. See the package documentation for what a crash leaves.
func Restore(ctx context.Context, kept, machine string, o Options) (Stats, error) {
	e, err := newEngine(o)
	if err != nil {
		return Stats{}, err
	}
	a, err := openTop(kept)
	if err != nil {
		return Stats{}, err
	}
	defer a.drop()
	b, err := openTop(machine)
	if err != nil {
		return Stats{}, err
	}
	defer b.drop()
	if names, err := a.names(); err != nil || len(names) == 0 {
		return Stats{}, errors.Join(err, fmt.Errorf("%s: %w", kept, ErrEmpty))
	}
	if a.info.id() == b.info.id() {
		return Stats{}, fmt.Errorf("%s and %s are one directory", kept, machine)
	}
	r := &putter{engine: e, top: b, run: rand.Uint64()}
	// Twice more for a disk that was full: when what was not there is gone, and when nothing else helps by giving up
	// what is there before its successor is written.
	for try := range 3 {
		if err := r.pass(ctx, a, try == 2); err != nil {
			return r.stats, err
		}
		if r.noRoom == 0 {
			return r.stats, e.sync(b)
		}
	}
	return r.stats, fmt.Errorf("%s: %d files found no room: %w", machine, r.noRoom, unix.ENOSPC)
}

// pass puts back, then removes and makes the directories' metadata good.
func (r *putter) pass(ctx context.Context, a *dir, last bool) (err error) {
	r.noRoom, r.last, r.links = 0, last, newLinks()
	r.batch = batch{top: r.top, links: r.links, spare: r.temp, clear: r.removeAll}
	err = r.engine.run(ctx, a, r.top, r)
	noRoom, ferr := r.flush(err)
	r.noRoom += noRoom
	if err := errors.Join(err, ferr); err != nil {
		return err
	}
	return r.engine.run(ctx, a, r.top, &trimmer{engine: r.engine, stats: &r.stats})
}

// flush flushes the batch, or gives it up after an error.
func (r *putter) flush(after error) (int, error) {
	if after == nil {
		return r.batch.flush()
	}
	for _, o := range r.batch.ops {
		if o.fd >= 0 {
			_ = unix.Close(o.fd) // given up: the next run removes it
		}
		o.d.drop()
	}
	r.batch.ops = nil
	return 0, nil
}

// sync flushes every file system of the tree.
func (e *engine) sync(top *dir) error {
	if err := again(func() error { return unix.Syncfs(top.fd) }); err != nil {
		return top.err("sync", "", err)
	}
	for p := range e.cross {
		d, name, err := top.parent(p)
		if err != nil {
			return err
		}
		m, err := d.open(name)
		d.drop()
		if err != nil {
			return err
		}
		err = again(func() error { return unix.Syncfs(m.fd) })
		m.drop()
		if err != nil {
			return top.err("sync", p, err)
		}
	}
	return nil
}

// putter puts back what is missing or differs.
type putter struct {
	*engine
	top    *dir
	links  *links
	batch  batch
	stats  Stats
	run    uint64 // tells the temporary names of this run from those of an earlier one
	temps  int
	noRoom int
	last   bool // no other way to get room: give up what is there first
}

func (r *putter) temp() string {
	r.temps++
	return fmt.Sprintf("%s%016x-%d", tempPrefix, r.run, r.temps)
}

func (r *putter) enter(n *node) (bool, error) {
	if n.path == "" {
		return true, nil
	}
	if !n.inA {
		if strings.HasPrefix(n.name, tempPrefix) { // of a run that was cut: it takes room
			return false, r.remove(n.b, n.name, n.path, &r.stats)
		}
		return false, nil
	}
	r.stats.Files++
	o, m, err := r.kept(n)
	if err != nil || o.left {
		return false, err
	}
	if m.isDir() {
		if n.inB && n.ib.isDir() {
			return true, nil
		}
		err = r.mkdir(n, m)
	} else {
		err = r.file(n, o, m)
	}
	if isFull(err) {
		r.noRoom++
		return false, nil
	}
	return m.isDir(), err
}

func (r *putter) left(*node) error { return nil }

// leave puts a directory that took the place of a file there.
func (r *putter) leave(n *node) error {
	if n.at == n.name {
		return nil
	}
	return r.stage(op{d: n.b, tmp: n.at, name: n.name, path: n.path, fd: -1, swap: true}, 0)
}

// mkdir makes a directory, under another name if there is something of another kind.
func (r *putter) mkdir(n *node, m *meta) error {
	if n.inB {
		n.at = r.temp()
	}
	if err := r.complete(n, m); err != nil {
		return err
	}
	if err := unlocked(n.b, func() error { return unix.Mkdirat(n.b.fd, n.at, 0o700) }); err != nil {
		return n.b.err("mkdir", n.at, err)
	}
	if err := n.b.setMeta(n.at, *m, r.buf[:maxXattr]); err != nil {
		return err
	}
	r.stats.Replaced++
	var err error
	n.ib, n.inB, err = n.b.stat(n.at)
	return err
}

// file makes anything but a directory what it was.
func (r *putter) file(n *node, o origin, m *meta) error {
	c, err := r.differs(n, o, m)
	if err != nil {
		return err
	}
	if r.broken(r.links, n) {
		c |= Links
		if err := r.complete(n, m); err != nil {
			return err
		}
	}
	switch {
	case c == 0:
		r.links.found(n)
		return nil
	case c&replaces == 0 && !m.isLink():
		if err := r.mend(n, m); err != nil {
			return err
		}
		r.links.found(n)
		return nil
	}
	return r.replace(n, m)
}

// mend makes the metadata good of an inode whose content is as it was.
func (r *putter) mend(n *node, m *meta) error {
	if n.ib.flags != 0 {
		if err := n.b.setFlags(n.at, 0); err != nil {
			return err
		}
	}
	if err := n.b.setMeta(n.at, *m, r.buf[:maxXattr]); err != nil {
		return err
	}
	r.stats.Mended++
	if m.flags != 0 {
		return n.b.setFlags(n.at, m.flags)
	}
	return nil
}

// replace stages what was kept, to take the place of what is there.
func (r *putter) replace(n *node, m *meta) error {
	p := op{d: n.b, tmp: r.temp(), name: n.at, path: n.path, fd: -1, flags: m.flags}
	if n.inB {
		p.swap = n.ib.isDir()
		if p.swap && r.holds(n.path) {
			return n.b.err("replace", n.name, errors.New("a directory with something in it that does not belong to the snapshot took the place of a file"))
		}
	}
	if m.linked() {
		if _, ok := r.links.leader[m.id()]; ok {
			id := m.id()
			p.lead = &id
			return r.stage(p, 0)
		}
	}
	i, written, err := r.create(n, m, &p)
	if isFull(err) && r.last && n.inB && !n.ib.isDir() {
		if err := n.b.taking(n.at, func() error { return unix.Unlinkat(n.b.fd, n.at, 0) }); err != nil {
			return n.b.err("unlink", n.at, err)
		}
		i, written, err = r.create(n, m, &p)
	}
	if err != nil {
		return err
	}
	if m.linked() {
		id := m.id()
		p.is = &id
		r.links.leader[id] = leader{n.b.join(n.at), i.id()}
	}
	return r.stage(p, written)
}

func (r *putter) stage(p op, bytes int64) error {
	p.d.keep()
	r.batch.ops = append(r.batch.ops, p)
	r.batch.bytes += bytes
	r.stats.Replaced++
	r.stats.Bytes += bytes
	if len(r.batch.ops) < batchFiles && r.batch.bytes < batchBytes {
		return nil
	}
	noRoom, err := r.batch.flush()
	r.noRoom += noRoom
	return err
}

// create writes what was kept under the temporary name. Nothing is left of it after an error.
func (r *putter) create(n *node, m *meta, p *op) (i info, written int64, err error) {
	p.fd, written, err = r.make(n, n.b, p.tmp, m)
	if err == nil {
		i, _, err = n.b.stat(p.tmp)
	}
	if err != nil {
		if p.fd >= 0 {
			_ = unix.Close(p.fd)
		}
		p.fd = -1
		if uerr := unix.Unlinkat(n.b.fd, p.tmp, 0); uerr != nil && !errors.Is(uerr, unix.ENOENT) {
			err = errors.Join(err, n.b.err("unlink", p.tmp, uerr))
		}
	}
	return i, written, err
}

// make writes a kept name, no directory, to a new name with all its metadata but the flags. The file, if it is one, stays
// open to be flushed.
func (e *engine) make(n *node, to *dir, name string, m *meta) (fd int, written int64, err error) {
	fd = -1
	switch {
	case m.isFile():
		from, err := n.a.file(n.name)
		if err != nil {
			return -1, 0, err
		}
		defer unix.Close(from)
		err = unlocked(to, func() (err error) {
			fd, err = openAt(to.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
			return err
		})
		if err != nil {
			return -1, 0, to.err("create", name, err)
		}
		if written, err = copyContent(from, fd, m.info, e.buf); err != nil {
			return fd, 0, to.err("write", name, err)
		}
	case m.isLink():
		target, err := n.a.target(n.name)
		if err != nil {
			return -1, 0, err
		}
		if err := unlocked(to, func() error { return unix.Symlinkat(target, to.fd, name) }); err != nil {
			return -1, 0, to.err("symlink", name, err)
		}
	default:
		if err := unlocked(to, func() error { return unix.Mknodat(to.fd, name, m.kind()|0o600, int(m.rdev)) }); err != nil {
			return -1, 0, to.err("mknod", name, err)
		}
	}
	return fd, written, to.setMeta(name, *m, e.buf[:maxXattr])
}
