package store

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// resident counts the pages of a file that the kernel has in memory.
func resident(t *testing.T, name string) (pages int) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, chunk.DefaultSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	in := make([]byte, chunk.DefaultSize/os.Getpagesize())
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&in[0]))); e != 0 {
		t.Fatal(e)
	}
	for _, p := range in {
		pages += int(p & 1)
	}
	return pages
}

// What is on the disk leaves the kernel's cache, after it was written and after it was read. The control: without
// DropCache it stays.
func TestDropCache(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a file system on a disk: set TMPDIR to a directory on one")
	}
	for _, drop := range []bool{false, true} {
		s := open(t, t.TempDir(), Options{DropCache: drop})
		id := put(t, s, plain(1, chunk.DefaultSize))
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		written := resident(t, s.path(id))
		if _, err := s.Get(id, nil); err != nil {
			t.Fatal(err)
		}
		read := resident(t, s.path(id))
		t.Logf("DropCache %v: %d pages after writing, %d after reading", drop, written, read)
		if all := chunk.DefaultSize / os.Getpagesize(); drop && (written > all/8 || read > all/8) || !drop && (written < all || read < all) {
			t.Errorf("DropCache %v: %d pages after writing, %d after reading", drop, written, read)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
