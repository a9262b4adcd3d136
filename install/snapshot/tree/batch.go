package tree

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/durable"
)

// A batch is flushed when it holds so many files or bytes: it bounds the open files, and the space that the
// temporary files take beside what they replace.
const (
	batchFiles = 200
	batchBytes = 64 << 20
)

// op puts something that lies ready under a temporary name in its place.
type op struct {
	d         *dir
	tmp, name string
	fd        int    // of the temporary file, to flush it; -1: nothing to flush
	is        *inode // the kept inode, if it has other names that are to be linked to this one
	lead      *inode // make tmp first, as one more name of what this kept inode became
	swap      bool   // what is there is of another kind: one of the two is a directory
	path      string // of name, from the top
	flags     uint32 // set them afterwards
}

type batch struct {
	top   *dir
	links *links
	ops   []op
	bytes int64
	spare func() string // makes a temporary name

	// clear removes a name with all below it, and says whether nothing is left.
	clear func(d *dir, name, path string) (gone bool, err error)
}

// flush makes what was staged durable, then puts it in place, in order. What the disk had no room for is dropped and
// counted. After an error temporary files may be left for the next run.
func (b *batch) flush() (full int, err error) {
	ops := b.ops
	b.ops, b.bytes = nil, 0
	defer func() {
		for _, o := range ops {
			if o.fd >= 0 {
				_ = unix.Close(o.fd) // flushed, or given up
			}
			o.d.drop()
		}
	}()
	// All files are sent off before the first is waited for, and all are there before the first is flushed: then one commit
	// of the file system's journal does for all of them.
	for _, flush := range []func(fd int) error{send, wait, unix.Fsync} {
		for i := range ops {
			o := &ops[i]
			if o.fd < 0 || o.tmp == "" {
				continue
			}
			err := again(func() error { return flush(o.fd) })
			if isFull(err) {
				full++
				if o.is != nil {
					delete(b.links.leader, *o.is)
				}
				if err := unix.Unlinkat(o.d.fd, o.tmp, 0); err != nil {
					return full, o.d.err("unlink", o.tmp, err)
				}
				o.tmp = ""
				continue
			}
			if err != nil {
				return full, o.d.err("fsync", o.tmp, err)
			}
		}
	}
	for i := range ops {
		if ops[i].tmp == "" {
			continue
		}
		err := b.place(&ops[i])
		if isFull(err) {
			full++
			continue
		}
		if err != nil {
			return full, err
		}
	}
	return full, nil
}

// send starts the writing of a file, wait waits for it. An error is reported once, so it must not be lost here.
func send(fd int) error { return syncRange(fd, unix.SYNC_FILE_RANGE_WRITE) }

func wait(fd int) error {
	return syncRange(fd, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func syncRange(fd, how int) error {
	err := unix.SyncFileRange(fd, 0, 0, how)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // it only saves time: the flush comes anyway
		return nil
	}
	return err
}

func (b *batch) place(o *op) error {
	if o.lead != nil {
		if err := b.link(o); err != nil {
			return err
		}
	}
	rename := func() error { return durable.RenameAt(o.d.fd, o.tmp, o.name) }
	if o.swap {
		rename = func() error { return b.exchange(o) }
	}
	if err := o.d.taking(o.name, rename); err != nil {
		return o.d.err("rename", o.name, err)
	}
	if o.flags != 0 {
		return o.d.setFlags(o.name, o.flags)
	}
	return nil
}

// link makes the temporary name one more name of the leader.
func (b *batch) link(o *op) error {
	lead, ok := b.links.leader[*o.lead]
	if !ok { // it found no room
		return unix.ENOSPC
	}
	p, name, err := b.top.parent(lead.path)
	if err != nil {
		return err
	}
	defer p.drop()
	if o.flags != 0 { // an immutable file gets no more names; place sets them again
		if err := p.setFlags(name, 0); err != nil {
			return err
		}
	}
	if err := unlocked(o.d, func() error { return unix.Linkat(p.fd, name, o.d.fd, o.tmp, 0) }); err != nil {
		return o.d.err("link", o.name, err)
	}
	return nil
}

// exchange puts tmp in the place of name, and what was there under tmp, or another temporary name, where it is removed later.
func (b *batch) exchange(o *op) error {
	err := durable.ExchangeAt(o.d.fd, o.tmp, o.name)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EXDEV) {
		err = b.exchangeSlowly(o)
	}
	if err != nil {
		return err
	}
	was, is := o.d.join(o.tmp), o.d.join(o.name)
	for ino, l := range b.links.leader {
		if rest, ok := strings.CutPrefix(l.path, was+"/"); ok {
			l.path = is + "/" + rest
			b.links.leader[ino] = l
		}
	}
	return nil
}

// unlocked does f, and where that is forbidden once more when the directory is neither immutable nor append-only. Whoever
// makes the directories' metadata good sets the flags again.
func unlocked(d *dir, f func() error) error {
	err := f()
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if lerr := d.setFlags(".", 0); lerr != nil {
		return err
	}
	return f()
}

// exchangeSlowly does it in several steps, for file systems that know no better. overlayfs does not even rename
// directories of its lower layer: what is there is removed.
func (b *batch) exchangeSlowly(o *op) error {
	err := durable.RenameAt(o.d.fd, o.name, b.spare())
	if errors.Is(err, unix.EXDEV) {
		var gone bool
		if gone, err = b.clear(o.d, o.name, o.path); err == nil && !gone {
			err = unix.ENOTEMPTY
		}
	}
	if err != nil {
		return err
	}
	return durable.RenameAt(o.d.fd, o.tmp, o.name)
}
