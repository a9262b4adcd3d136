package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// Btrfs keeps read-only snapshots of the subvolume that is the machine's root, as PLACE/ID with a record PLACE/ID.json. A
// snapshot holds no other subvolume and no other file system, so it is used only where all that packages write to lies in
// that one.
type Btrfs struct {
	Dir string           // place of the snapshots if it is on the root's file system; otherwise they lie in ROOT/.mesh-install
	Now func() time.Time // the machine's clock, by which ctimes are judged
}

// Name is "btrfs".
func (*Btrfs) Name() string { return "btrfs" }

// besideName is the place where the executor's own directory lies on another file system.
const besideName = ".mesh-install"

// place is where the snapshots are: only there can the kernel make one.
func (b *Btrfs) place(s Scope) (string, error) {
	ok, err := isSubvolume(s.Root)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", fmt.Errorf("%s is not a subvolume of btrfs", s.Root)
	}
	root, err := btrfsID(s.Root)
	if err != nil {
		return "", err
	}
	dir := b.Dir
	for errors.Is(missing(dir), os.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	if id, err := btrfsID(dir); err == nil && id == root {
		return b.Dir, nil
	}
	return filepath.Join(s.Root, besideName), nil
}

func missing(p string) error { _, err := os.Stat(p); return err }

// margin is what a snapshot's own metadata takes as the files are written over, in bytes.
const margin = 64 << 20

// Usable refuses where a part of the system lies elsewhere, and names it.
func (b *Btrfs) Usable(_ context.Context, s Scope, need int64) error {
	if _, err := b.place(s); err != nil {
		return unusable("%w", err)
	}
	root, err := deviceOf(s.Root)
	if err != nil {
		return err
	}
	if swap, err := swapOn(root); err != nil || swap != "" {
		return errors.Join(err, unusable("the kernel takes no snapshot of %s while it swaps to %s", s.Root, swap))
	}
	ms, err := mounts()
	if err != nil {
		return err
	}
	return whole(ms, s, need+margin)
}

// whole checks that one snapshot of the root's file system holds the system, and has room.
func whole(ms []Mount, s Scope, need int64) error {
	out, err := elsewhere(ms, s)
	if err != nil {
		return err
	}
	if len(out) > 0 {
		return unusable("a snapshot of %s does not hold %s: another file system or subvolume", s.Root, strings.Join(out, ", "))
	}
	return fits(s.Root, need, 0)
}

// Take makes the snapshot in one step of the kernel.
func (b *Btrfs) Take(_ context.Context, s Scope, id string) (Snapshot, error) {
	if err := checkID(id); err != nil {
		return Snapshot{}, err
	}
	place, err := b.place(s)
	if err != nil {
		return Snapshot{}, err
	}
	if ok, err := isSnapshot(filepath.Join(place, id)); err != nil || ok {
		if err != nil {
			return Snapshot{}, err
		}
		return b.read(place, id)
	}
	if err := private(place); err != nil {
		return Snapshot{}, err
	}
	r := record{ID: id, Begun: b.Now().UTC()}
	// What was written through memory maps gets its ctime now, not after the snapshot.
	if err := durable.SyncTree(s.Root); err != nil {
		return Snapshot{}, err
	}
	if err := r.write(filepath.Join(place, id+".json")); err != nil {
		return Snapshot{}, err
	}
	if err := btrfsSnapshot(s.Root, place, id); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return b.read(place, id)
}

// isSnapshot says whether a name is a subvolume that nobody writes to; one that can be written to is an error.
func isSnapshot(p string) (bool, error) {
	ok, err := isSubvolume(p)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || !ok {
		return false, err
	}
	ro, err := btrfsIsReadOnly(p)
	if err == nil && !ro {
		err = fmt.Errorf("%s: is a snapshot that can be written to: it may not be what it was", p)
	}
	return ro, err
}

func (b *Btrfs) read(place, id string) (Snapshot, error) {
	r, err := readRecord(filepath.Join(place, id+".json"))
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return Snapshot{ID: id, Name: "btrfs:" + filepath.Join(place, id), Created: r.Begun}, nil
}

// Restore makes good what differs from the snapshot, sharing its blocks.
func (b *Btrfs) Restore(ctx context.Context, s Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	place, err := b.place(s)
	if err != nil {
		return err
	}
	kept := filepath.Join(place, id)
	if ok, err := isSnapshot(kept); err != nil || !ok {
		return errors.Join(fmt.Errorf("snapshot %s: %w", kept, os.ErrNotExist), err)
	}
	k, err := b.read(place, id)
	if err != nil {
		return err
	}
	ms, err := mounts()
	if err != nil {
		return err
	}
	o, err := s.options(ms, b.Dir, filepath.Join(s.Root, besideName))
	if err != nil {
		return err
	}
	o.Proof, o.Before = tree.Shared, k.Created
	if _, err := tree.Restore(ctx, kept, s.Root, o); err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	return nil
}

// Delete removes a snapshot, then its record.
func (b *Btrfs) Delete(_ context.Context, s Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	place, err := b.place(s)
	if err != nil {
		return err
	}
	if err := btrfsDestroy(place, id); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	err = durable.Remove(filepath.Join(place, id+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// List names the snapshots that have a record.
func (b *Btrfs) List(_ context.Context, s Scope) ([]Snapshot, error) {
	place, err := b.place(s)
	if err != nil {
		return nil, err
	}
	es, err := os.ReadDir(place)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Snapshot
	var damaged []error // one that cannot be read must not hide the others
	for _, e := range es {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || checkID(id) != nil {
			continue
		}
		there, err := isSnapshot(filepath.Join(place, id))
		if err != nil {
			return nil, err
		}
		if !there { // half made
			continue
		}
		k, err := b.read(place, id)
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		out = append(out, k)
	}
	return oldestFirst(out), errors.Join(damaged...)
}
