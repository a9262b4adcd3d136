package fleet

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Bundle is a bundle's signed documents and how far its upload is.
type Bundle struct {
	Digest    manifest.Digest
	Name      string
	Version   string
	Sequence  uint64
	Begun     time.Time
	Committed time.Time // zero: still uploading
	Manifest  trust.Signed
	Sums      trust.Signed
}

// BeginBundle records the start of an upload and the chunks it is made of. A bundle that is known already, in whatever
// state, is no error: its upload is resumed, or its damaged chunks are mended. Another upload of the same name and
// version that was not committed gives way; a committed one never does.
func (s *Store) BeginBundle(ctx context.Context, b Bundle, chunks []chunk.ID) (committed bool, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		old, err := readBundles(ctx, tx, `name = ? AND version = ?`, b.Name, b.Version)
		if err != nil {
			return err
		}
		for _, o := range old {
			switch {
			case o.Digest == b.Digest:
				committed = !o.Committed.IsZero()
			case !o.Committed.IsZero():
				return problem.New(problem.AlreadyExists, "bundle %s %s was published with the checksum %s, this one has %s", b.Name, b.Version, o.Digest, b.Digest).
					WithDone("the published one is unchanged").WithNext("publish the change under a new version and a higher sequence")
			default:
				if _, err := tx.ExecContext(ctx, `DELETE FROM bundles WHERE digest = ?`, o.Digest[:]); err != nil {
					return err
				}
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO bundles VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING`,
			b.Digest[:], b.Name, b.Version, int64(b.Sequence), stamp(b.Begun), b.Manifest.Doc, b.Manifest.Sig, b.Sums.Doc, b.Sums.Sig); err != nil {
			return err
		}
		return numberChunks(ctx, tx, chunks)
	})
	return committed, err
}

// numberChunks gives the next numbers to the chunks that have none. A sequence of the engine's own would leave gaps.
func numberChunks(ctx context.Context, tx *sql.Tx, chunks []chunk.ID) error {
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(num), 0) FROM chunks`).Scan(&last); err != nil {
		return err
	}
	st, err := tx.PrepareContext(ctx, `INSERT INTO chunks (num, id) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`)
	if err != nil {
		return err
	}
	defer st.Close()
	for _, id := range chunks {
		res, err := st.ExecContext(ctx, last+1, id[:])
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		last += n
	}
	return nil
}

// CommitBundle publishes an upload. That every chunk is held durably is the caller's to know.
func (s *Store) CommitBundle(ctx context.Context, d manifest.Digest, now time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE bundles SET committed = coalesce(committed, ?) WHERE digest = ?`, stamp(now), d[:])
		return err
	})
}

// Bundles lists the bundles by name, the newest of a name first.
func (s *Store) Bundles(ctx context.Context) ([]Bundle, error) { return readBundles(ctx, s.r, `TRUE`) }

// Bundle returns one bundle.
func (s *Store) Bundle(ctx context.Context, d manifest.Digest) (Bundle, error) {
	bs, err := readBundles(ctx, s.r, `digest = ?`, d[:])
	if err == nil && len(bs) == 0 {
		err = problem.New(problem.NotFound, "there is no bundle %s", d).WithNext("list them with: meshctl bundle list")
	}
	if err != nil {
		return Bundle{}, err
	}
	return bs[0], nil
}

func readBundles(ctx context.Context, q querier, where string, args ...any) (out []Bundle, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var b Bundle
		var digest []byte
		var seq, begun int64
		var committed sql.NullInt64
		if err := scan(&digest, &b.Name, &b.Version, &seq, &committed, &begun, &b.Manifest.Doc, &b.Manifest.Sig, &b.Sums.Doc, &b.Sums.Sig); err != nil {
			return err
		}
		if len(digest) != len(b.Digest) {
			return errors.New("bundle with a digest of the wrong length")
		}
		b.Digest, b.Sequence, b.Begun = manifest.Digest(digest), uint64(seq), unstamp(begun)
		if committed.Valid {
			b.Committed = unstamp(committed.Int64)
		}
		out = append(out, b)
		return nil
	}, `SELECT digest, name, version, sequence, committed, begun, manifest, sig, sums, sums_sig FROM bundles WHERE `+where+`
		ORDER BY name, sequence DESC, version`, args...)
	return out, err
}

// ChunkNumbers returns the number of every chunk that any upload has named. A chunk keeps its number for ever; numbers
// are dense and index the bitmaps of what was sent to a site.
func (s *Store) ChunkNumbers(ctx context.Context) (map[chunk.ID]uint32, error) {
	out := map[chunk.ID]uint32{}
	err := each(ctx, s.r, func(scan func(...any) error) error {
		var id []byte
		var num uint32
		if err := scan(&num, &id); err != nil {
			return err
		}
		if len(id) != len(chunk.ID{}) {
			return errors.New("chunk with an id of the wrong length")
		}
		out[chunk.ID(id)] = num
		return nil
	}, `SELECT num, id FROM chunks`)
	return out, err
}
