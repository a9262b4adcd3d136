package chunker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Verify checks everything there is: both signatures against the keys of role release, the manifest, the index and
// SHA256SUMS against each other, and every chunk and every byte of the content against the index. A file that the
// index does not list is an error too, and a packages.json that is not what the repository's metadata says. at is the trusted time (see package trust).
func (b *Bundle) Verify(ctx context.Context, set *trust.Set, at time.Time, p *progress.Reporter) error {
	if !b.IsSigned() {
		return problem.New(problem.SignatureInvalid, "bundle %s is not signed", b.Dir).WithNext("sign it with: meshctl bundle sign")
	}
	if _, _, err := set.OpenManifest(b.Signed, at); err != nil {
		return err
	}
	sums, err := b.checkSums()
	if err != nil {
		return err
	}
	v, err := set.Verify(trust.RoleRelease, sums, at)
	if err != nil {
		return err
	}
	if err := v.CheckCreated(b.Manifest.Created); err != nil {
		return err
	}
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return fmt.Errorf("bundle %s: %w", b.Dir, err)
	}
	defer root.Close()
	defer p.Stop()
	p.Stage("verify", b.Manifest.TotalBytes, progress.Bytes)
	buf := make([]byte, chunk.MaxSize)
	if err := eachChunk(bytes.NewReader(b.indexBytes), b.Manifest.Index.Chunks, buf, nil); err != nil {
		return problem.New(problem.IndexInvalid, "bundle %s: the chunks of the index are not those of the manifest", b.Dir).Because(err)
	}
	listed := make(map[string]bool, len(b.Index.Files))
	for i := range b.Index.Files {
		f := &b.Index.Files[i]
		listed[f.Path] = true
		if err := b.readFile(ctx, root, f, buf, p, nil); err != nil {
			return err
		}
	}
	if err := b.nothingElse(ctx, listed); err != nil {
		return err
	}
	if err := b.checkPackages(); err != nil {
		return err
	}
	p.Done()
	return nil
}

// readFile verifies one file of the content and hands its chunks to each, if that is not nil. buf holds one chunk.
func (b *Bundle) readFile(ctx context.Context, root *os.Root, e *manifest.File, buf []byte, p *progress.Reporter, each func(plain []byte) error) error {
	name := filepath.Join(b.Dir, contentPath(e))
	f, err := openFile(root, contentPath(e))
	if err != nil {
		return problem.New(problem.ChunkCorrupt, "%s is missing or no regular file", name).Because(err).
			WithDone("nothing was changed").WithNext("copy the bundle again, or build it again from its sources")
	}
	defer f.Close()
	sum := sha256.New()
	var at int64
	err = eachChunk(f, e.Chunks, buf, func(plain []byte) error {
		sum.Write(plain)
		at += int64(len(plain))
		p.Add(int64(len(plain)))
		if err := ctx.Err(); err != nil || each == nil {
			return err
		}
		return each(plain)
	})
	var bad *badChunkError
	if errors.As(err, &bad) {
		return corrupt(name, at, bad.want)
	}
	if errors.Is(err, errLonger) {
		return problem.New(problem.ChunkCorrupt, "%s is longer than the index says", name).
			WithDone("nothing was changed").WithNext("copy the bundle again, or build it again from its sources")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != e.SHA256 {
		return problem.New(problem.IndexInvalid, "%s: the chunks are as the index says and the sha256 is not", name)
	}
	return nil
}

// nothingElse refuses files in the content that the index does not list: a package manager would use them.
func (b *Bundle) nothingElse(ctx context.Context, listed map[string]bool) error {
	top := filepath.Join(b.Dir, ContentName)
	return filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("bundle %s: %w", b.Dir, err)
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		if !e.IsDir() && !listed[filepath.ToSlash(rel)] {
			return problem.New(problem.IndexInvalid, "%s is not in the index", name).
				WithDone("nothing was changed").WithNext("remove the file")
		}
		return ctx.Err()
	})
}

// badChunkError says that the bytes read are not the chunk that was expected.
type badChunkError struct {
	want  chunk.ID
	short bool // there are not enough of them
}

func (e *badChunkError) Error() string { return fmt.Sprintf("the bytes are not chunk %s", e.want) }

var errLonger = errors.New("there are more bytes than the index says")

// eachChunk reads exactly the chunks refs from r, which must end with the last one, verifies each and hands it to
// each, if that is not nil. buf holds one chunk and has chunk.MaxSize bytes.
func eachChunk(r io.Reader, refs []manifest.ChunkRef, buf []byte, each func(plain []byte) error) error {
	for _, ref := range refs {
		plain := buf[:ref.Size]
		if _, err := io.ReadFull(r, plain); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &badChunkError{want: ref.ID, short: true}
		} else if err != nil {
			return err
		}
		if chunk.Sum(plain) != ref.ID {
			return &badChunkError{want: ref.ID}
		}
		if each != nil {
			if err := each(plain); err != nil {
				return err
			}
		}
	}
	var one [1]byte
	if n, err := r.Read(one[:]); n > 0 {
		return errLonger
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func digest(write func(io.Writer) error) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if err := write(h); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
