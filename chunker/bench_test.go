package chunker

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// realTree reads the programs of the Go toolchain that runs this test: a real tree of large files that are not
// compressed, which every machine that runs the tests has.
func realTree(b *testing.B) (files [][]byte) {
	b.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("needs go: install the Go toolchain")
	}
	root := strings.TrimSpace(string(out))
	for _, pattern := range []string{"bin/*", "pkg/tool/*/*"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				b.Fatal(err)
			}
			files = append(files, content)
		}
	}
	if len(files) == 0 {
		b.Skip("needs a Go toolchain with its tools: install one from a release")
	}
	return files
}

// readTree reads all regular files below a directory.
func readTree(b *testing.B, dir string) (files [][]byte) {
	b.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		files = append(files, content)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return files
}

// edited is the next version of a file: bytes put in, taken out or overwritten at one place per MiB.
func edited(rng *rand.Rand, file []byte) []byte {
	file = bytes.Clone(file)
	for range 1 + len(file)>>20 {
		at := rng.IntN(len(file))
		switch rng.IntN(3) {
		case 0:
			file = append(file[:at:at], append([]byte("inserted by the next version"), file[at:]...)...)
		case 1:
			file = append(file[:at:at], file[min(at+100, len(file)):]...)
		default:
			copy(file[at:], "overwritten")
		}
	}
	return file
}

// indexEntryBytes is what a chunk costs in an index.
const indexEntryBytes = 120

// BenchmarkCutSize cuts a real tree and an edited second version of it at several sizes and reports what of the
// second version is new, with what the longer list of chunks costs.
func BenchmarkCutSize(b *testing.B) {
	tree, next := realTree(b), [][]byte(nil)
	if from, to, ok := strings.Cut(os.Getenv("PATCHMESH_BENCH_TREES"), ":"); ok { // two versions of a tree of your own: OLD:NEW
		tree, next = readTree(b, from), readTree(b, to)
	} else {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, f := range tree {
			next = append(next, edited(rng, f))
		}
	}
	var total int64
	for _, f := range next {
		total += int64(len(f))
	}
	type way struct {
		name string
		cut  func(io.Reader, func([]byte) error) error
	}
	ways := []way{{"fixed/256KiB", newCutter().fixed}}
	for _, size := range []int{32, 64, 128, 256, 512} {
		c := newCutter()
		c.opts = chunkers.ChunkerOpts{MinSize: size << 8, NormalSize: size << 10, MaxSize: min(size<<12, chunk.MaxSize)}
		ways = append(ways, way{fmt.Sprintf("content/%dKiB", size), c.byContent})
	}
	for _, c := range ways {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(total)
			for b.Loop() {
				have := map[chunk.ID]bool{}
				var chunks int
				var fresh int64
				for _, f := range tree {
					if err := c.cut(bytes.NewReader(f), func(plain []byte) error { have[chunk.Sum(plain)] = true; return nil }); err != nil {
						b.Fatal(err)
					}
				}
				for _, f := range next {
					err := c.cut(bytes.NewReader(f), func(plain []byte) error {
						chunks++
						if !have[chunk.Sum(plain)] {
							fresh += int64(len(plain))
						}
						return nil
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				index := int64(chunks) * indexEntryBytes
				b.ReportMetric(float64(chunks), "chunks")
				b.ReportMetric(float64(total)/float64(chunks)/1024, "KiB/chunk")
				b.ReportMetric(100*float64(fresh)/float64(total), "new-%")
				b.ReportMetric(100*float64(fresh+index)/float64(total), "new+index-%")
			}
		})
	}
}
