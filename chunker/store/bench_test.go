package store

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// BenchmarkPut writes 64 MiB in chunks of the usual size, made durable at once, in groups, and only at the end.
func BenchmarkPut(b *testing.B) {
	for _, c := range []struct {
		name string
		sync int64
	}{{"every chunk", 1}, {"1 MiB", 1 << 20}, {"4 MiB", 4 << 20}, {"16 MiB", 16 << 20}, {"at the end", 1 << 40}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(64 << 20)
			for b.Loop() {
				b.StopTimer()
				s, err := Open(b.TempDir(), Options{SyncBytes: c.sync})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				buf := make([]byte, chunk.DefaultSize)
				for n := range 256 {
					copy(buf, plain(n, 16))
					if _, err := s.Put(chunk.Sum(buf), buf); err != nil {
						b.Fatal(err)
					}
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	plain := make([]byte, chunk.DefaultSize)
	id := chunk.Sum(plain)
	if _, err := s.Put(id, plain); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, chunk.MaxSize)
	b.SetBytes(chunk.DefaultSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(id, buf); err != nil {
			b.Fatal(err)
		}
	}
}
