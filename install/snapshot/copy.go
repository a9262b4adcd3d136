package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// Copy keeps copies of the system's files in DIR/ID/tree, whatever file systems they lie on; where blocks can be shared
// it costs next to nothing. All file systems of the machine's own that packages write to are kept.
type Copy struct {
	Dir string           // of the copies; for root alone
	Now func() time.Time // the machine's clock, by which ctimes are judged
}

// Name is "copy".
func (*Copy) Name() string { return "copy" }

func (c *Copy) place(id string) string { return filepath.Join(c.Dir, id) }
func (c *Copy) kept(id string) string  { return filepath.Join(c.Dir, id, "tree") }

// perFile is what a file of a copy takes beside its content: an inode and its entry in a directory, in bytes.
const perFile = 1 << 10

// Usable looks at every file's size, so it takes a second or two for a large system.
func (c *Copy) Usable(ctx context.Context, s Scope, need int64) error {
	ms, err := mounts()
	if err != nil {
		return err
	}
	dir := c.Dir // or the nearest one above that is there
	for {
		if _, err := os.Stat(dir); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return unusable("%w", err)
		}
		dir = filepath.Dir(dir)
	}
	if err := attributes(dir); err != nil {
		return unusable("%s: %w", dir, err)
	}
	cross := parts(ms, s)
	var want, files int64
	o, err := s.options(ms, c.Dir)
	if err != nil {
		return err
	}
	for _, p := range append([]string{"/"}, cross...) {
		top := filepath.Join(s.Root, p)
		room, err := tree.Measure(ctx, top, under(o, p))
		if err != nil {
			return err
		}
		files += room.Files
		want += room.Files * perFile
		if !clones(top, dir) {
			want += room.Bytes
		}
	}
	return fits(dir, want+need, files)
}

// under gives the options for a part of the tree that is mounted at p.
func under(o tree.Options, p string) tree.Options {
	cut := func(list []string) (out []string) {
		for _, q := range list {
			if rel, ok := relative(p, q); ok && rel != "/" {
				out = append(out, rel)
			}
		}
		return out
	}
	return tree.Options{Exclude: cut(o.Exclude), Mounts: cut(o.Mounts)}
}

// fits checks that bytes and inodes are free.
func fits(dir string, want, files int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := int64(st.Bavail) * int64(st.Bsize); want > free { //nolint:unconvert // other types on other platforms
		return unusable("%s: a snapshot and the transaction need %d bytes, %d are free", dir, want, free)
	}
	if st.Files > 0 && files > int64(st.Ffree) {
		return unusable("%s: a snapshot needs %d inodes, %d are free", dir, files, st.Ffree)
	}
	return nil
}

// attributes says whether files in a directory can have the attributes of a copy. The file has no name and is gone at once.
func attributes(dir string) error {
	f, err := nameless(dir)
	if err != nil {
		return nil //nolint:nilerr // a file system without such files; Take will see
	}
	defer unix.Close(f)
	return unix.Fsetxattr(f, "trusted.mesh-install.probe", []byte{1}, 0)
}

// clones says whether files of one directory can share their blocks with files in the other.
func clones(from, to string) bool {
	a, err := nameless(from)
	if err != nil {
		return false
	}
	defer unix.Close(a)
	b, err := nameless(to)
	if err != nil {
		return false
	}
	defer unix.Close(b)
	if _, err := unix.Pwrite(a, make([]byte, 4096), 0); err != nil {
		return false
	}
	return unix.IoctlFileClone(b, a) == nil
}

func nameless(dir string) (int, error) {
	return unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
}

// Take copies the tree. A copy that was cut is begun anew.
func (c *Copy) Take(ctx context.Context, s Scope, id string) (Snapshot, error) {
	if err := checkID(id); err != nil {
		return Snapshot{}, err
	}
	if r, err := readRecord(filepath.Join(c.place(id), recordName)); err == nil {
		return c.snapshot(r), nil
	}
	if err := private(c.Dir); err != nil {
		return Snapshot{}, err
	}
	if err := c.Delete(ctx, s, id); err != nil { // half made
		return Snapshot{}, err
	}
	ms, err := mounts()
	if err != nil {
		return Snapshot{}, err
	}
	r := record{ID: id, Begun: c.Now().UTC(), Cross: parts(ms, s)}
	o, err := s.options(ms, c.Dir)
	if err != nil {
		return Snapshot{}, err
	}
	tmp := tree.Unfinished(c.place(id))
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return Snapshot{}, err
	}
	o.Cross = r.Cross
	stats, err := tree.Copy(ctx, s.Root, filepath.Join(tmp, "tree"), o)
	if err == nil {
		r.Bytes = stats.Bytes
		err = r.write(filepath.Join(tmp, recordName))
	}
	if err == nil {
		err = durable.Rename(tmp, c.place(id))
	}
	if err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("copy %s: %w", id, err), os.RemoveAll(tmp))
	}
	return c.snapshot(r), nil
}

func (c *Copy) snapshot(r record) Snapshot {
	return Snapshot{ID: r.ID, Name: "copy:" + c.place(r.ID), Created: r.Begun, Bytes: r.Bytes}
}

// Restore puts the tree back. The file systems that were kept must be mounted: what belongs to them must not be written
// to the directories that they cover.
func (c *Copy) Restore(ctx context.Context, s Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	r, err := readRecord(filepath.Join(c.place(id), recordName))
	if err != nil {
		return fmt.Errorf("copy %s: %w", id, err)
	}
	ms, err := mounts()
	if err != nil {
		return err
	}
	points := below(ms, s.Root)
	for _, p := range r.Cross {
		if !slices.Contains(points, p) {
			return fmt.Errorf("copy %s: nothing is mounted at %s, which was kept", id, p)
		}
	}
	o, err := s.options(ms, c.Dir)
	if err != nil {
		return err
	}
	o.Cross, o.Proof, o.Before = r.Cross, tree.Recorded, r.Begun
	if _, err := tree.Restore(ctx, c.kept(id), s.Root, o); err != nil {
		return fmt.Errorf("copy %s: %w", id, err)
	}
	return nil
}

// Delete removes a copy. It loses its name first, so that half of one never looks whole.
func (c *Copy) Delete(_ context.Context, _ Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	tmp := tree.Unfinished(c.place(id))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := durable.Rename(c.place(id), tmp); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(tmp)
}

// List reads the records.
func (c *Copy) List(context.Context, Scope) ([]Snapshot, error) {
	es, err := os.ReadDir(c.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Snapshot
	var damaged []error // one that cannot be read must not hide the others
	for _, e := range es {
		if !e.IsDir() || strings.HasPrefix(e.Name(), durable.TempPrefix) {
			continue
		}
		r, err := readRecord(filepath.Join(c.Dir, e.Name(), recordName))
		if errors.Is(err, os.ErrNotExist) { // not ours
			continue
		}
		if err != nil {
			damaged = append(damaged, fmt.Errorf("copy %s: %w", e.Name(), err))
			continue
		}
		out = append(out, c.snapshot(r))
	}
	return oldestFirst(out), errors.Join(damaged...)
}
