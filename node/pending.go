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
	mu sync.Mutex
	by map[uint32]want
}

// maxGiven bounds the requests given up whose answers may still come.
const maxGiven = 256

func (p *pending) add(req uint32, w want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.by[req] = w
}

// cancel gives a request up.
func (p *pending) cancel(req uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.by[req]
	if !ok {
		return
	}
	w.given = true
	p.by[req] = w
	if len(p.by) > maxGiven {
		for r, w := range p.by {
			if w.given {
				delete(p.by, r)
			}
		}
	}
}

// take removes and returns the request that an answer from a peer belongs to.
func (p *pending) take(from peer.ID, req uint32) (want, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.by[req]
	if !ok || w.from != from {
		return want{}, false
	}
	delete(p.by, req)
	return w, true
}

// leave forgets the requests given up with a peer that is gone and returns the others.
func (p *pending) leave(from peer.ID) (open []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r, w := range p.by {
		if w.from == from {
			delete(p.by, r)
			if !w.given {
				open = append(open, r)
			}
		}
	}
	return open
}
