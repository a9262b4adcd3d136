package chunker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/progress"
)

// indexTree cuts and hashes the files below content, which must be sorted by path.
func indexTree(ctx context.Context, content *os.Root, files []source, p *progress.Reporter) (*manifest.Index, error) {
	var total int64
	for _, f := range files {
		total += f.size
	}
	p.Stage("cut", total, progress.Bytes)
	x := &manifest.Index{Schema: manifest.SchemaIndex, Files: make([]manifest.File, 0, len(files))}
	c := newCutter()
	for _, f := range files {
		e, err := indexFile(ctx, c, content, f, p)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", f.path, err)
		}
		x.Files = append(x.Files, e)
	}
	p.Done()
	return x, nil
}

func indexFile(ctx context.Context, c *cutter, content *os.Root, s source, p *progress.Reporter) (manifest.File, error) {
	e := manifest.File{Path: s.path, Mode: s.mode}
	f, err := openFile(content, s.path)
	if err != nil {
		return e, err
	}
	defer f.Close()
	sum := sha256.New()
	e.Chunks, err = c.refs(io.TeeReader(f, sum), func(n int64) error {
		e.Size += n
		p.Add(n)
		return ctx.Err()
	})
	e.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return e, err
}

// refs cuts r and names its chunks; each is called with the size of each.
func (c *cutter) refs(r io.Reader, each func(n int64) error) ([]manifest.ChunkRef, error) {
	out := []manifest.ChunkRef{}
	err := c.cut(r, func(plain []byte) error {
		out = append(out, manifest.ChunkRef{ID: chunk.Sum(plain), Size: int64(len(plain))})
		return each(int64(len(plain)))
	})
	return out, err
}

// indexRef names the index by its bytes, which are cut like those of any file.
func indexRef(b []byte) (manifest.IndexRef, error) {
	chunks, err := newCutter().refs(bytes.NewReader(b), func(int64) error { return nil })
	return manifest.IndexRef{ID: chunk.Sum(b), Size: int64(len(b)), Chunks: chunks}, err
}
