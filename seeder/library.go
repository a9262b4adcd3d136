package seeder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/chunker/store/encoded"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// library is the bundles and their chunks.
type library struct {
	db      *fleet.Store
	chunks  *store.Store
	encoded *encoded.Cache
	set     *trust.Set
	log     *slog.Logger

	uploading sync.Mutex // one begin or commit at a time

	mu      sync.RWMutex // guards the fields below; a *book is not changed once it is in the map
	books   map[manifest.Digest]*book
	numbers map[chunk.ID]uint32
	known   map[chunk.ID]known
}

// book is a bundle in memory.
type book struct {
	fleet.Bundle
	manifest *manifest.Manifest
	catalog  *manifest.Catalog // not Complete when the index was damaged: push the bundle again to mend it
}

// known is a chunk that some bundle names.
type known struct {
	number    uint32
	size      int64
	published bool // a committed bundle names it
}

func openLibrary(ctx context.Context, db *fleet.Store, chunks *store.Store, enc *encoded.Cache, set *trust.Set, log *slog.Logger) (*library, error) {
	l := &library{db: db, chunks: chunks, encoded: enc, set: set, log: log, books: map[manifest.Digest]*book{}, known: map[chunk.ID]known{}}
	var err error
	if l.numbers, err = db.ChunkNumbers(ctx); err != nil {
		return nil, err
	}
	bundles, err := db.Bundles(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range bundles {
		m, err := manifest.Parse(b.Manifest.Doc)
		if err != nil {
			return nil, problem.New(problem.StoreDamaged, "bundle %s %s in the seeder's database", b.Name, b.Version).Because(err)
		}
		k := &book{Bundle: b, manifest: m}
		x, err := l.readIndex(m)
		if err != nil {
			log.Error("index of a bundle is damaged; push the bundle again", "bundle", b.Name, "version", b.Version, "err", err)
		}
		k.catalog = manifest.NewCatalog(m, x)
		l.add(k)
	}
	return l, nil
}

func (l *library) readIndex(m *manifest.Manifest) (*manifest.Index, error) {
	var b bytes.Buffer
	for _, r := range m.Index.Chunks {
		c, err := l.chunks.Get(r.ID, nil)
		if err != nil {
			return nil, err
		}
		b.Write(c)
	}
	return manifest.ParseIndex(m, b.Bytes())
}

// add puts a book into the map, in place of one of the same digest.
func (l *library) add(k *book) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.books[k.Digest] = k
	for _, r := range k.catalog.Chunks {
		c := l.known[r.ID]
		c.number, c.size = l.numbers[r.ID], r.Size
		c.published = c.published || !k.Committed.IsZero()
		l.known[r.ID] = c
	}
}

func (l *library) book(d manifest.Digest) (*book, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	k, ok := l.books[d]
	return k, ok
}

// list returns all books by name, the newest of a name first.
func (l *library) list() []*book {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*book, 0, len(l.books))
	for _, k := range l.books {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b *book) int {
		switch {
		case a.Name != b.Name:
			return strings.Compare(a.Name, b.Name)
		case a.Sequence > b.Sequence:
			return -1
		case a.Sequence < b.Sequence:
			return 1
		}
		return strings.Compare(a.Version, b.Version)
	})
	return out
}

func (l *library) chunk(id chunk.ID) (known, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c, ok := l.known[id]
	return c, ok
}

// begin verifies a bundle's documents and records the upload.
func (l *library) begin(ctx context.Context, u api.BundleUpload, now time.Time) (api.BundleMissing, error) {
	m, _, err := l.set.OpenManifest(u.Manifest, now)
	if err != nil {
		return api.BundleMissing{}, err
	}
	d := manifest.DigestOf(u.Manifest.Doc)
	if _, err := l.set.Verify(trust.RoleRelease, u.Sums, now); err != nil {
		return api.BundleMissing{}, problem.New(problem.SignatureInvalid, "SHA256SUMS of bundle %s %s", m.Name, m.Version).Because(err)
	}
	if line := strings.TrimPrefix(d.String(), "sha256:") + "  manifest.json\n"; !bytes.Contains(append([]byte("\n"), u.Sums.Doc...), []byte("\n"+line)) {
		return api.BundleMissing{}, problem.New(problem.ManifestInvalid, "SHA256SUMS of bundle %s %s does not list this manifest", m.Name, m.Version)
	}
	x, err := manifest.ParseIndex(m, u.Index)
	if err != nil {
		return api.BundleMissing{}, problem.New(problem.IndexInvalid, "index of bundle %s %s", m.Name, m.Version).Because(err)
	}
	parts, err := cutIndex(m, u.Index)
	if err != nil {
		return api.BundleMissing{}, problem.New(problem.IndexInvalid, "index of bundle %s %s", m.Name, m.Version).Because(err)
	}
	k := &book{manifest: m, catalog: manifest.NewCatalog(m, x), Bundle: fleet.Bundle{
		Digest: d, Name: m.Name, Version: m.Version, Sequence: m.Sequence, Begun: now, Manifest: u.Manifest, Sums: u.Sums}}
	ids := make([]chunk.ID, len(k.catalog.Chunks))
	for i, r := range k.catalog.Chunks {
		ids[i] = r.ID
	}

	l.uploading.Lock()
	defer l.uploading.Unlock()
	if _, err := l.db.BeginBundle(ctx, k.Bundle, ids); err != nil {
		return api.BundleMissing{}, err
	}
	if err := l.chunks.Pin(d.String(), ids); err != nil {
		return api.BundleMissing{}, err
	}
	for i, r := range m.Index.Chunks {
		if err := l.put(r.ID, parts[i]); err != nil {
			return api.BundleMissing{}, err
		}
	}
	if err := l.follow(ctx, k); err != nil {
		return api.BundleMissing{}, err
	}
	out := api.BundleMissing{Digest: d, State: stateOf(k), Missing: l.missing(k)}
	l.log.Info("bundle upload", "bundle", m.Name, "version", m.Version, "checksum", d.String(), "state", out.State, "missing", len(out.Missing))
	return out, nil
}

// follow brings memory up to what the database now says of a bundle and of an upload that it replaced.
func (l *library) follow(ctx context.Context, k *book) error {
	numbers, err := l.db.ChunkNumbers(ctx)
	if err != nil {
		return err
	}
	if k.Bundle, err = l.db.Bundle(ctx, k.Digest); err != nil {
		return err
	}
	l.mu.Lock()
	l.numbers = numbers
	var replaced []manifest.Digest
	for d, o := range l.books {
		if d != k.Digest && o.Name == k.Name && o.Version == k.Version {
			delete(l.books, d)
			replaced = append(replaced, d)
		}
	}
	l.mu.Unlock()
	l.add(k)
	for _, d := range replaced {
		if err := l.chunks.Unpin(d.String()); err != nil {
			return err
		}
	}
	return nil
}

// cutIndex splits the index into the chunks that the manifest names.
func cutIndex(m *manifest.Manifest, index []byte) ([][]byte, error) {
	var parts [][]byte
	for _, r := range m.Index.Chunks { // their sizes add up: ParseIndex and Validate have seen to it
		part := index[:r.Size]
		if got := chunk.Sum(part); got != r.ID {
			return nil, fmt.Errorf("its chunk %d is %s, the manifest says %s", len(parts), got, r.ID)
		}
		parts, index = append(parts, part), index[r.Size:]
	}
	return parts, nil
}

// put stores a chunk and, where it pays, its encoded copy.
func (l *library) put(id chunk.ID, plain []byte) error {
	if _, err := l.chunks.Put(id, plain); err != nil {
		return err
	}
	if _, err := l.encoded.Put(id, plain); err != nil {
		l.log.Warn("chunk has no encoded copy and will travel plain", "chunk", id.String(), "err", err)
	}
	return nil
}

// putChunk takes one chunk of an upload.
func (l *library) putChunk(id chunk.ID, plain []byte) error {
	c, ok := l.chunk(id)
	if !ok {
		return problem.New(problem.NotFound, "no upload names chunk %s", id).WithNext("push the bundle again from its beginning")
	}
	if int64(len(plain)) != c.size {
		return problem.New(problem.ChunkCorrupt, "chunk %s has %d bytes, the index says %d", id, len(plain), c.size).WithDone("the bytes were dropped")
	}
	return l.put(id, plain)
}

func (l *library) missing(k *book) []chunk.ID {
	out := []chunk.ID{}
	for _, r := range k.catalog.Chunks {
		if !l.chunks.Has(r.ID) {
			out = append(out, r.ID)
		}
	}
	return out
}

// commit publishes a complete upload.
func (l *library) commit(ctx context.Context, d manifest.Digest, now time.Time) (*book, error) {
	l.uploading.Lock()
	defer l.uploading.Unlock()
	k, ok := l.book(d)
	if !ok {
		return nil, problem.New(problem.NotFound, "there is no upload of bundle %s", d).WithNext("push the bundle again from its beginning")
	}
	// Durable before it is counted as complete: a chunk that the disk refuses is missing.
	if err := l.chunks.Sync(); err != nil {
		return nil, err
	}
	if n := len(l.missing(k)); n > 0 || !k.catalog.Complete {
		return nil, problem.New(problem.NotFound, "%d of %d chunks of bundle %s %s are not here", n, len(k.catalog.Chunks), k.Name, k.Version).
			WithDone("the bundle is not published").WithNext("push it again: only what is missing is sent")
	}
	if err := l.db.CommitBundle(ctx, d, now); err != nil {
		return nil, err
	}
	b, err := l.db.Bundle(ctx, d)
	if err != nil {
		return nil, err
	}
	k = &book{Bundle: b, manifest: k.manifest, catalog: k.catalog}
	l.add(k)
	l.log.Info("bundle published", "bundle", k.Name, "version", k.Version, "checksum", d.String(), "bytes", k.catalog.Bytes())
	return k, nil
}

// read returns a chunk in the form in which it should travel.
func (l *library) read(id chunk.ID) (encoding.Kind, []byte, error) {
	if kind, b, err := l.encoded.Get(id); err == nil {
		return kind, b, nil
	}
	b, err := l.chunks.Get(id, nil)
	return encoding.Plain, b, err
}

// plain returns the verified plain bytes of a published chunk, for the gateway.
func (l *library) plain(id chunk.ID) ([]byte, error) {
	if c, ok := l.chunk(id); !ok || !c.published {
		return nil, problem.New(problem.NotFound, "chunk %s is not here", id)
	}
	b, err := l.chunks.Get(id, nil)
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem.New(problem.NotFound, "chunk %s is not here", id)
	}
	return b, err
}

func stateOf(k *book) api.BundleState {
	if k.Committed.IsZero() {
		return api.BundleUploading
	}
	return api.BundleCommitted
}

func infoOf(k *book) api.BundleInfo {
	m := k.manifest
	return api.BundleInfo{Digest: k.Digest, Name: m.Name, Version: m.Version, Cycle: m.Cycle, Sequence: m.Sequence, Target: m.Target,
		State: stateOf(k), Files: m.Files, Bytes: m.TotalBytes, Chunks: len(k.catalog.Chunks), Distinct: k.catalog.Bytes(), Created: m.Created}
}
