package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"golang.org/x/sys/unix"
)

// blockSize is how much is read at a time, in bytes.
const blockSize = 256 << 10

// nextData returns where data goes on in a sparse file, or its size when only a hole follows.
func nextData(fd int, at, size int64) (int64, error) {
	next, err := unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, nil
	case errors.Is(err, unix.EINVAL): // a file system without holes
		return at, nil
	}
	return next, err
}

// again repeats a call that a signal cut short.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// isFull says whether there was no room.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func readAt(fd int, buf []byte, at int64) (n int, err error) {
	for n < len(buf) {
		k, err := unix.Pread(fd, buf[n:], at+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if k == 0 {
			return n, nil
		}
		n += k
	}
	return n, nil
}

func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// copyContent writes the content of one open file into another, empty one, with its holes; where the file system can share
// blocks it shares them. It returns the bytes written.
func copyContent(from, to int, i info, buf []byte) (written int64, err error) {
	if i.size == 0 {
		return 0, nil
	}
	switch err := again(func() error { return unix.IoctlFileClone(to, from) }); {
	case err == nil:
		return 0, nil
	case errors.Is(err, unix.EIO) || isFull(err):
		return 0, err
	}
	at := int64(0)
	for {
		if i.sparse() {
			if at, err = nextData(from, at, i.size); err != nil {
				return written, err
			}
		}
		n, err := readAt(from, buf[:blockSize], at)
		if err != nil {
			return written, err
		}
		if n == 0 {
			break
		}
		if err := writeAt(to, buf[:n], at); err != nil {
			return written, err
		}
		at, written = at+int64(n), written+int64(n)
	}
	return written, unix.Ftruncate(to, max(at, i.size))
}

// sameContent compares two open files of one size. Where both have holes nothing is read.
func sameContent(a, b int, ia, ib info, bufA, bufB []byte) (bool, error) {
	holes := ia.sparse() && ib.sparse()
	for at := int64(0); at < ia.size; {
		if holes {
			da, err := nextData(a, at, ia.size)
			if err != nil {
				return false, err
			}
			db, err := nextData(b, at, ia.size)
			if err != nil {
				return false, err
			}
			if at = min(da, db); at >= ia.size {
				break
			}
		}
		na, err := readAt(a, bufA[:blockSize], at)
		if err != nil {
			return false, err
		}
		nb, err := readAt(b, bufB[:blockSize], at)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(bufA[:na], bufB[:nb]) {
			return false, nil
		}
		if na == 0 {
			return false, nil // shorter than it was a moment ago
		}
		at += int64(na)
	}
	return true, nil
}

// hashBlock is the unit of hashContent: blocks of zeros are left out, so that holes need not be read and a file hashes
// alike however it is stored.
const hashBlock = 64 << 10

func hashContent(h hash.Hash, fd int, i info, buf []byte) error {
	zero := make([]byte, hashBlock)
	var head [8]byte
	for at := int64(0); ; at += hashBlock {
		if i.sparse() {
			next, err := nextData(fd, at, i.size)
			if err != nil {
				return err
			}
			at = next / hashBlock * hashBlock
		}
		n, err := readAt(fd, buf[:hashBlock], at)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if bytes.Equal(buf[:n], zero[:n]) {
			continue
		}
		sum := sha256.Sum256(buf[:n])
		binary.LittleEndian.PutUint64(head[:], uint64(at))
		h.Write(head[:])
		h.Write(sum[:])
	}
}
