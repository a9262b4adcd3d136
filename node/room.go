package node

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Room for chunks: a bundle that does not fit is not begun, so that a node does not fetch half of it and stop. What fits
// is decided again every roomEvery; nobody has to be told that there is room now.
const (
	roomEvery = 5 * time.Second
	gcEvery   = 24 * time.Hour
	// Of the file system, when the configuration says nothing: the quota is a half, and free stays a twentieth, at
	// most 1 GiB.
	quotaShare = 2
	freeShare  = 20
	freeMost   = 1 << 30
)

// Space is what a file system has, in bytes.
type Space struct{ Total, Free int64 }

// spaceOf asks the file system. Free is what an unprivileged program may use.
func spaceOf(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, err
	}
	return Space{int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize}, nil
}

func (n *Node) space() (Space, error) {
	if n.cfg.Space != nil {
		return n.cfg.Space()
	}
	return spaceOf(n.d.path("chunks"))
}

// quota is the configured one, or the share of the file system; 0: none, the size is unknown.
func quota(configured int64, s Space) int64 {
	if configured > 0 {
		return configured
	}
	return s.Total / quotaShare
}

// floor is how much of the file system stays free.
func floor(configured int64, s Space) int64 {
	if configured > 0 {
		return configured
	}
	return min(s.Total/freeShare, freeMost)
}

// claim is what a bundle asks of the store. Pure, as is fits.
type claim struct {
	pinned  int64 // distinct bytes of everything that must be kept, the bundle included
	own     int64 // bytes of the bundle that are not on disk
	missing int64 // the same of everything that was begun, the bundle included
	idle    int64 // bytes in the store that nobody needs: they go when the space is wanted
}

// fits says why a bundle does not, nil if it does. A file system that says nothing of itself has room.
func (c claim) fits(quota, floor int64, s Space) *problem.Error {
	if c.own == 0 {
		return nil // it is there, whatever the quota says by now
	}
	if quota > 0 && c.pinned > quota {
		return problem.New(problem.QuotaExceeded, "the bundle and what is installed need %d bytes, the quota is %d", c.pinned, quota).
			WithDone("the bundle was not begun").WithNext("raise quotaBytes, or free space: it is begun by itself")
	}
	if s.Total > 0 && c.missing > s.Free-floor+c.idle {
		return problem.New(problem.DiskFull, "the bundle needs %d bytes more, the disk has %d and keeps %d free", c.missing, s.Free, floor).
			WithDone("the bundle was not begun").WithNext("free space: it is begun by itself")
	}
	return nil
}

// claimOf adds up what the bundle asks for, beside the bundles in use that were begun.
func (n *Node) claimOf(b *heldBundle) (c claim) {
	seen := map[chunk.ID]bool{}
	add := func(x *heldBundle, whole bool) {
		if whole && !x.catalog.Complete { // the index says more, once it is here; this is never less
			c.pinned += max(0, x.m.TotalBytes+x.m.Index.Size-x.catalog.Bytes())
			c.missing += max(0, x.m.TotalBytes+x.m.Index.Size-x.catalog.Bytes())
		}
		for _, r := range x.catalog.Chunks {
			if seen[r.ID] {
				continue
			}
			held := n.store.Has(r.ID)
			if !held && !whole { // of what is installed and no longer wanted nothing more is fetched
				continue
			}
			seen[r.ID] = true
			c.pinned += r.Size
			if !held {
				c.missing += r.Size
			}
		}
	}
	use := n.inUse()
	for d := range use {
		if x := n.bundles[d]; x != nil && x != b && x.noRoom == nil {
			add(x, x.wants)
		}
	}
	others := c.missing
	add(b, true)
	c.own = c.missing - others
	st := n.store.Stats()
	c.idle = st.Bytes - st.PinnedBytes
	return c
}

// room decides whether a bundle may be begun. One that was begun goes on.
func (n *Node) room(b *heldBundle) {
	s, err := n.space()
	if err != nil {
		s = Space{}
	}
	was := b.noRoom
	if b.noRoom = n.claimOf(b).fits(quota(n.cfg.QuotaBytes, s), floor(n.cfg.FreeBytes, s), s); b.noRoom != nil && was == nil {
		n.log.Warn("no room for a bundle", "bundle", b.m.Name, "version", b.m.Version, "err", b.noRoom)
	}
	if was != nil && (b.noRoom == nil || b.noRoom.Code != was.Code) {
		n.clearAlarm(was.Code)
	}
	if b.noRoom != nil {
		n.alarm(b.noRoom.Code, "%s %s: %v", b.m.Name, b.m.Version, b.noRoom)
	}
}

// housekeep looks again at bundles that had no room, and lets go of what nobody needs: once a day, and when the file
// system runs low.
func (n *Node) housekeep(now time.Time) {
	if now.Sub(n.roomed) < roomEvery {
		return
	}
	n.roomed = now
	for _, b := range n.list() {
		if b.noRoom != nil {
			n.reconcileBundles()
			break
		}
	}
	s, err := n.space()
	low := err == nil && s.Free < floor(n.cfg.FreeBytes, s)
	if n.collecting || !low && now.Sub(n.collected) < gcEvery {
		return
	}
	if st := n.store.Stats(); st.Bytes == st.PinnedBytes {
		n.collected = now
		return
	}
	n.collecting, n.collected = true, now
	n.group.Go(func() error {
		chunks, bytes, err := n.store.GC(n.ctx)
		n.post(func() {
			n.collecting = false
			if err != nil {
				n.log.Warn("what nobody needs could not all be removed", "err", err)
			}
			if chunks > 0 {
				n.log.Info("removed what nobody needs", "chunks", chunks, "bytes", bytes)
				n.gone()
			}
		})
		return nil
	})
}

// gone tells the swarm and the neighbours of chunks that the store has let go.
func (n *Node) gone() {
	for _, b := range n.list() {
		if !b.staged {
			n.addToSwarm(b)
		}
	}
}
