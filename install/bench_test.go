package install_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install/installtest"
)

// BenchmarkApply lays out 1,000 files of 64 KiB, each flushed, and switches to them.
func BenchmarkApply(b *testing.B) {
	bench := installtest.New(b, nil)
	bench.ChunkSize = 64 << 10
	s := installtest.Spec{Name: "pos", Version: "1", Sequence: 1, Files: map[string]string{}}
	for i := range 1000 {
		s.Files[fmt.Sprintf("d%02d/f%04d", i%50, i)] = strings.Repeat(fmt.Sprintf("%07d\n", i), 8<<10)
	}
	req := bench.Request(b, bench.Bundle(b, s), installtest.Want{})
	b.SetBytes(1000 * 64 << 10)
	for b.Loop() {
		if r := installer(bench).Apply(b.Context(), req); r.Exit != 0 {
			b.Fatalf("%+v", r)
		}
		b.StopTimer()
		for _, dir := range []string{bench.Config.Root, bench.Config.State} {
			if err := os.RemoveAll(dir); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
}
