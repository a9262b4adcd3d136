package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// Kind classes what Fsck finds.
type Kind string

// The kinds. Repair removes everything but foreign files and missing chunks.
const (
	Damaged   Kind = "damaged"   // the content is not the chunk that the name says, or the file is gone
	Misplaced Kind = "misplaced" // a chunk's name in the wrong directory
	Temporary Kind = "temporary" // left by an interrupted write
	BadPins   Kind = "badPins"   // a pin file that cannot be read; it stops eviction until its owner pins again
	Foreign   Kind = "foreign"   // not of this store; never touched
	Missing   Kind = "missing"   // pinned and not held: normal while a bundle is being staged
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind     Kind   `json:"kind"`
	Path     string `json:"path"` // below DIR; the owner's pin file for a missing chunk
	Chunk    string `json:"chunk,omitempty"`
	Repaired bool   `json:"repaired"`
}

// Result counts what Fsck read and found.
type Result struct {
	Chunks   int          `json:"chunks"` // good ones
	Bytes    int64        `json:"bytes"`  // of good ones
	Findings map[Kind]int `json:"findings"`
	Repaired int          `json:"repaired"`
}

// Clean reports whether nothing is wrong. Missing chunks are no damage.
func (r Result) Clean() bool {
	for k, n := range r.Findings {
		if k != Missing && n > 0 {
			return false
		}
	}
	return true
}

// Fsck reads every file of the store and compares it with its name. With repair it removes what is bad, as far as
// that is safe. report, if not nil, is told each finding. The store stays usable meanwhile.
func (s *Store) Fsck(ctx context.Context, repair bool, report func(Finding)) (Result, error) {
	f := &fsck{s: s, repair: repair, report: report, seen: make(map[chunk.ID]bool), res: Result{Findings: make(map[Kind]int)}}
	err := errors.Join(f.top(ctx), f.absent(ctx), f.pins(ctx))
	if err != nil {
		err = fmt.Errorf("fsck %s: %w", s.dir, err)
	}
	return f.res, err
}

type fsck struct {
	s      *Store
	repair bool
	report func(Finding)
	seen   map[chunk.ID]bool
	res    Result
	buf    []byte
}

// found counts a finding and repairs it with fix, unless fix is nil.
func (f *fsck) found(k Kind, path string, id *chunk.ID, fix func() error) error {
	x := Finding{Kind: k, Path: path}
	if id != nil {
		x.Chunk = id.String()
	}
	var err error
	if f.repair && fix != nil {
		if err = fix(); err == nil {
			x.Repaired = true
			f.res.Repaired++
		}
	}
	f.res.Findings[k]++
	if f.report != nil {
		f.report(x)
	}
	return err
}

func (f *fsck) top(ctx context.Context) error {
	es, err := os.ReadDir(f.s.dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		switch {
		case e.Name() == lockName || e.Name() == pinsName:
		case e.IsDir() && len(e.Name()) == shardLetters:
			if err := f.shard(ctx, e.Name()); err != nil {
				return err
			}
		default:
			if err := f.found(Foreign, e.Name(), nil, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fsck) shard(ctx context.Context, shard string) error {
	rest, strays, err := f.list(shard)
	if err != nil {
		return err
	}
	for _, stray := range strays {
		if err := f.found(Temporary, stray, nil, f.remove(stray)); err != nil {
			return err
		}
	}
	for _, e := range rest {
		if err := ctx.Err(); err != nil {
			return err
		}
		rel := filepath.Join(shard, e.Name())
		id, perr := chunk.Parse(e.Name())
		switch {
		case perr != nil:
			err = f.found(Foreign, rel, nil, nil)
		case !strings.HasSuffix(e.Name(), shard):
			err = f.found(Misplaced, rel, &id, f.remove(rel))
		default:
			err = f.chunk(rel, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list lists a shard, temporary files apart. No write is under way while the lock is held, so that those are strays:
// a write that begins later has a file of another name.
func (f *fsck) list(shard string) (rest []fs.DirEntry, strays []string, err error) {
	f.s.writing.Lock()
	defer f.s.writing.Unlock()
	es, err := os.ReadDir(filepath.Join(f.s.dir, shard))
	for _, e := range es {
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			strays = append(strays, filepath.Join(shard, e.Name()))
		} else {
			rest = append(rest, e)
		}
	}
	return rest, strays, err
}

func (f *fsck) remove(rel string) func() error {
	return func() error { return os.RemoveAll(filepath.Join(f.s.dir, rel)) }
}

// chunk checks one file that has the right name.
func (f *fsck) chunk(rel string, id chunk.ID) error {
	f.s.mu.Lock()
	e := f.s.held[id]
	f.s.mu.Unlock()
	f.seen[id] = true
	b, err := read(f.s.root, id, f.buf, f.s.opt.DropCache)
	var corrupt *CorruptError
	switch {
	case err == nil:
		f.buf = b[:0]
		f.res.Chunks++
		f.res.Bytes += int64(len(b))
		return nil
	case errors.Is(err, ErrNotFound) && e == nil: // evicted since the directory was read
		return nil
	case !errors.As(err, &corrupt) && !errors.Is(err, ErrNotFound):
		return err
	case e == nil:
		return f.found(Damaged, rel, &id, f.remove(rel))
	default:
		return f.found(Damaged, rel, &id, func() error { return f.s.damaged(e) })
	}
}

// absent looks for chunks in the set whose files are gone.
func (f *fsck) absent(ctx context.Context) error {
	for _, id := range f.s.Held() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.seen[id] {
			continue
		}
		if err := f.chunk(Name(id), id); err != nil {
			return err
		}
	}
	return nil
}

func (f *fsck) pins(ctx context.Context) error {
	es, err := os.ReadDir(filepath.Join(f.s.dir, pinsName))
	if err != nil {
		return err
	}
	for _, e := range es {
		rel := filepath.Join(pinsName, e.Name())
		if !ownerRE.MatchString(e.Name()) {
			if !strings.HasPrefix(e.Name(), durable.TempPrefix) { // a pin file being written, or swept by the next Open
				if err := f.found(Foreign, rel, nil, nil); err != nil {
					return err
				}
			}
			continue
		}
		ids, err := readPins(filepath.Join(f.s.dir, rel))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			if err := f.found(BadPins, rel, nil, func() error { return f.s.Unpin(e.Name()) }); err != nil {
				return err
			}
			continue
		}
		for _, id := range ids {
			if !f.s.Has(id) {
				if err := f.found(Missing, rel, &id, nil); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

// Kinds lists the kinds found, sorted, for a report.
func (r Result) Kinds() []Kind {
	var ks []Kind
	for k, n := range r.Findings {
		if n > 0 {
			ks = append(ks, k)
		}
	}
	slices.Sort(ks)
	return ks
}
