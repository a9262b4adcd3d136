package node

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// want is a chunk that was asked for.
type want struct {
	from   peer.ID
	bundle manifest.Digest
	number int
	ref    manifest.ChunkRef
	given  bool // the swarm gave it up; if it still comes and is good, it is kept
}

// pending are the requests under way. The loop adds and cancels, sessions take; mu guards all.
type pending struct {
	mu    sync.Mutex
	by    map[uint32]want
	given []uint32        // requests given up, the oldest first
	owed  map[peer.ID]int // answers that a peer still has to send: one for each Get, whatever became of it
}

func newPending() pending { return pending{by: map[uint32]want{}, owed: map[peer.ID]int{}} }

// maxGiven bounds the requests given up whose answers are still taken.
const maxGiven = 256

func (p *pending) add(req uint32, w want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.by[req] = w
	p.owed[w.from]++
}

// cancel gives a request up.
func (p *pending) cancel(req uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.by[req]
	if !ok || w.given {
		return
	}
	w.given = true
	p.by[req] = w
	p.given = append(p.given, req)
	for len(p.given) > maxGiven {
		if w := p.by[p.given[0]]; w.given {
			delete(p.by, p.given[0])
		}
		p.given = p.given[1:]
	}
}

// take removes and returns the request that an answer from a peer belongs to. asked is false for an answer that
// nobody asked for: the peer has sent more of them than it got Gets. An answer that was asked for and is not known any
// more, or has another's number, is neither.
func (p *pending) take(from peer.ID, req uint32) (w want, known, asked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owed[from] == 0 {
		return want{}, false, false
	}
	p.owed[from]--
	if w = p.by[req]; w.from != from {
		return want{}, false, true
	}
	delete(p.by, req)
	return w, true, true
}

// leave forgets everything about a peer that is gone.
func (p *pending) leave(from peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owed, from)
	for r, w := range p.by {
		if w.from == from {
			delete(p.by, r)
		}
	}
}
