package chunker

import (
	"testing"

	"golang.org/x/sys/unix"
)

func mkfifo(t testing.TB, name string) {
	t.Helper()
	if err := unix.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
}

func syscallUmask(mask int) (old int) { return unix.Umask(mask) }
