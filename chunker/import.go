package chunker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Sink takes what Import has verified, in this order: the manifest, the revocation list, policies, grants, the index's
// chunks, the files' chunks. An error from it ends the import.
type Sink interface {
	// Manifest is called once, first. The signature was verified; whether the bundle is wanted is not known.
	Manifest(m *manifest.Manifest, signed trust.Signed) error
	// Revocations is called once if there is a list, before any policy; its signature is good and it was parsed.
	Revocations(signed trust.Signed) error
	// Policy is called for each policy whose signature is good; its text was not parsed.
	Policy(signed trust.Signed) error
	// Grant is called for each grant whose signature is good, whatever site it is for.
	Grant(g *grant.Grant, signed trust.Signed) error
	// Chunk is called for each chunk of the index and of every file, as often as it stands there. plain is only
	// valid during the call.
	Chunk(ref manifest.ChunkRef, plain []byte) error
}

// Import reads a stick file and hands what it holds to sink, each part only after it was verified: the signature
// before anything else is looked at. It keeps one chunk and the index in memory and allocates nothing that an
// unverified header asks for. at is the trusted time (see package trust). What the sink took before an error is good.
func Import(ctx context.Context, r io.Reader, set *trust.Set, at time.Time, sink Sink) (*manifest.Manifest, error) {
	im := &importer{ctx: ctx, in: r, tar: tar.NewReader(r), set: set, at: at, sink: sink, buf: make([]byte, chunk.MaxSize)}
	for _, step := range []func() error{im.readManifest, im.readSums, im.readRevocations, im.readPolicies, im.readGrants, im.readIndex, im.readContent, im.readEnd} {
		if err := step(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return im.m, nil
}

type importer struct {
	ctx  context.Context
	in   io.Reader
	tar  *tar.Reader
	set  *trust.Set
	at   time.Time
	sink Sink

	next *tar.Header // read and not used yet
	m    *manifest.Manifest
	doc  []byte // exact bytes of the manifest
	x    *manifest.Index
	sums [sha256.Size]byte // of SHA256SUMS
	buf  []byte            // one chunk
}

// notAStick says that the file does not have the form of a stick file.
func notAStick(format string, args ...any) *problem.Error {
	return problem.New(problem.InvalidFile, "stick file: "+format, args...).
		WithDone("what was verified before is kept, nothing else was used").WithNext("copy the file to the stick again and compare its checksum")
}

// readError wraps an error of the tar reader or of the file below it.
func readError(name string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return notAStick("it ends inside of %s", name)
	}
	return notAStick("%s cannot be read", name).Because(err)
}

// peek returns the header of the next entry; nil at the end.
func (im *importer) peek() (*tar.Header, error) {
	if im.next != nil {
		return im.next, nil
	}
	h, err := im.tar.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, readError("an entry's header", err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil, notAStick("entry %.200q is no regular file", h.Name)
	}
	im.next = h
	return h, nil
}

// enter moves to the next entry, which must have this name and at most limit bytes.
func (im *importer) enter(name string, limit int64) (size int64, err error) {
	h, err := im.peek()
	switch {
	case err != nil:
		return 0, err
	case h == nil:
		return 0, notAStick("it ends where %s should stand", name)
	case h.Name != name:
		return 0, notAStick("entry %.200q stands where %s should", h.Name, name)
	case h.Size < 0 || h.Size > limit:
		return 0, notAStick("%s has %d bytes, at most %d are expected", name, h.Size, limit)
	}
	im.next = nil
	return h.Size, nil
}

// small reads a whole entry of at most limit bytes.
func (im *importer) small(name string, limit int64) ([]byte, error) {
	if _, err := im.enter(name, limit); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(im.tar, limit+1)) // grows with what is there, not with what the header says
	if err != nil {
		return nil, readError(name, err)
	}
	return b, nil
}

func (im *importer) signed(name string, limit int64) (s trust.Signed, err error) {
	if s.Doc, err = im.small(name, limit); err != nil {
		return s, err
	}
	s.Sig, err = im.small(name+SignatureSuffix, trust.MaxSignatureBytes)
	return s, err
}

func (im *importer) readManifest() error {
	s, err := im.signed(ManifestName, manifest.MaxManifestBytes)
	if err != nil {
		return err
	}
	if im.m, _, err = im.set.OpenManifest(s, im.at); err != nil {
		return err
	}
	im.doc = s.Doc
	return im.sink.Manifest(im.m, s)
}

// readSums keeps the hash of SHA256SUMS until the index is known. Its own signature is for people with gpgv: what it
// says must follow from the manifest, whose signature was verified.
func (im *importer) readSums() error {
	if _, err := im.enter(SumsName, maxSumsBytes); err != nil {
		return err
	}
	var err error
	im.sums, err = digest(func(w io.Writer) error {
		_, err := io.Copy(w, im.tar)
		return err
	})
	if err != nil {
		return readError(SumsName, err)
	}
	_, err = im.small(SumsName+SignatureSuffix, trust.MaxSignatureBytes)
	return err
}

func (im *importer) readRevocations() error {
	if h, err := im.peek(); err != nil || h == nil || h.Name != revocationsName {
		return err
	}
	s, err := im.signed(revocationsName, revocation.MaxBytes)
	if err != nil {
		return err
	}
	if _, err := revocation.Open(im.set, s, im.at); err != nil {
		return err
	}
	return im.sink.Revocations(s)
}

func (im *importer) readPolicies() error {
	for n := 0; ; n++ {
		h, err := im.peek()
		if err != nil {
			return err
		}
		if h == nil || !strings.HasPrefix(h.Name, policiesName) {
			return nil
		}
		if n == maxPolicies {
			return notAStick("more than %d policies", maxPolicies)
		}
		name := h.Name
		s, err := im.signed(name, policy.MaxGitBytes)
		if err != nil {
			return err
		}
		if name != policyPath(s.Doc) {
			return notAStick("policy %.200q does not have the name that follows from its content, %s", name, policyPath(s.Doc))
		}
		if _, err := policy.Verify(im.set, s, im.at); err != nil {
			return err
		}
		if err := im.sink.Policy(s); err != nil {
			return err
		}
	}
}

func (im *importer) readGrants() error {
	for n := 0; ; n++ {
		h, err := im.peek()
		if err != nil {
			return err
		}
		if h == nil || !strings.HasPrefix(h.Name, grantsName) {
			return nil
		}
		if n == maxGrants {
			return notAStick("more than %d grants", maxGrants)
		}
		name := h.Name
		s, err := im.signed(name, grant.MaxBytes)
		if err != nil {
			return err
		}
		if name != grantPath(s.Doc) {
			return notAStick("grant %.200q does not have the name that follows from its content, %s", name, grantPath(s.Doc))
		}
		g, err := grant.Open(im.set, s, im.at)
		if err != nil {
			return err
		}
		if err := im.sink.Grant(g, s); err != nil {
			return err
		}
	}
}

func (im *importer) readIndex() error {
	b, err := im.small(IndexName, im.m.Index.Size)
	if err != nil {
		return err
	}
	if im.x, err = manifest.ParseIndex(im.m, b); err != nil {
		return problem.New(problem.IndexInvalid, "stick file: %s", IndexName).Because(err).WithDone("no content was used")
	}
	if err := im.compareSums(b); err != nil {
		return err
	}
	return im.chunks(IndexName, bytes.NewReader(b), im.m.Index.Chunks, nil)
}

// compareSums checks what SHA256SUMS said.
func (im *importer) compareSums(index []byte) error {
	want, err := digest(func(w io.Writer) error { return writeSums(w, im.doc, index, im.x) })
	if err == nil && want != im.sums {
		err = problem.New(problem.ChecksumMismatch, "stick file: %s does not say what the manifest and the index say", SumsName).
			WithDone("no content was used")
	}
	return err
}

func (im *importer) readContent() error {
	sum := sha256.New()
	for i := range im.x.Files {
		f := &im.x.Files[i]
		name := contentPath(f)
		size, err := im.enter(name, f.Size)
		if err != nil {
			return err
		}
		if size != f.Size {
			return notAStick("%s has %d bytes, the index says %d", name, size, f.Size)
		}
		sum.Reset()
		if err := im.chunks(name, im.tar, f.Chunks, sum); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
			return problem.New(problem.IndexInvalid, "stick file: %s: the chunks are as the index says and the sha256 is not", name)
		}
	}
	return nil
}

// chunks verifies the chunks of one file and hands them to the sink.
func (im *importer) chunks(name string, r io.Reader, refs []manifest.ChunkRef, sum hash.Hash) error {
	i := 0
	var sinkErr error
	err := eachChunk(r, refs, im.buf, func(plain []byte) error {
		if sum != nil {
			sum.Write(plain)
		}
		if sinkErr = im.sink.Chunk(refs[i], plain); sinkErr != nil {
			return sinkErr
		}
		i++
		return im.ctx.Err()
	})
	var bad *badChunkError
	switch {
	case sinkErr != nil:
		return sinkErr
	case im.ctx.Err() != nil:
		return im.ctx.Err()
	case errors.As(err, &bad) && bad.short:
		return notAStick("it ends inside of %s", name)
	case errors.As(err, &bad):
		return problem.New(problem.ChunkCorrupt, "stick file: %s is damaged: its bytes are not chunk %s", name, bad.want).
			WithDone("what was verified before is kept, nothing else was used").WithNext("copy the file to the stick again and compare its checksum")
	case err != nil:
		return readError(name, err)
	}
	return nil
}

// maxPadding is how many zero bytes may follow the end of the tar: other programs fill a block.
const maxPadding = 1 << 20

func (im *importer) readEnd() error {
	if h, err := im.peek(); err != nil {
		return err
	} else if h != nil {
		return notAStick("entry %.200q is not in the index", h.Name)
	}
	rest, err := io.ReadAll(io.LimitReader(im.in, maxPadding+1))
	if err != nil {
		return readError("the end", err)
	}
	if len(rest) > maxPadding || len(bytes.Trim(rest, "\x00")) > 0 {
		return notAStick("bytes follow its end")
	}
	return nil
}
