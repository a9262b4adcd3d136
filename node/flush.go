package node

import (
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
)

// Bytes of chunks that are flushed to the disk at a time, beside the loop and the sessions: what is left to flush when
// the last chunk has come delays "staged". Should the disk not keep up, the sessions wait for it from syncBytes on,
// which bounds what a loss of power takes.
const (
	flushBytes = 8 << 20
	syncBytes  = 4 * flushBytes
)

// freshBytes of chunks are kept in memory for the neighbours that are about to ask for them: a second of a line of 50
// Mbit/s, twice what they need to spread.
const freshBytes = 4 << 20

func (n *Node) openStore() (err error) {
	s, err := n.space()
	if err != nil {
		return err
	}
	n.collected = time.Now()
	n.store, err = store.Open(n.d.path("chunks"), store.Options{Quota: quota(n.cfg.QuotaBytes, s), SyncBytes: syncBytes, Fresh: freshBytes, DropCache: n.cfg.Priority == PriorityBackground, OnDamage: n.damaged})
	return err
}

// flush begins to make chunks durable when enough have come.
func (n *Node) flush() {
	if n.flushing || n.store.Unsynced() < flushBytes {
		return
	}
	n.flushing = true
	n.group.Go(func() error {
		err := n.store.Sync()
		n.post(func() {
			n.flushing = false
			if err != nil {
				n.event(diskCode(err), "chunks cannot be made durable: %v", err)
			}
		})
		return nil
	})
}
