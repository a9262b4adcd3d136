package seeder

import (
	"context"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// presence is what each node last said and when something was last heard from it. It is written every second: a
// statement that a kill loses is made again by its node.
type presence struct {
	db *fleet.Store

	mu    sync.Mutex
	peers map[string]*heard
}

type heard struct {
	fleet.Statement
	dirty bool
}

func loadPresence(ctx context.Context, db *fleet.Store) (*presence, error) {
	have, err := db.Statements(ctx)
	if err != nil {
		return nil, err
	}
	p := &presence{db: db, peers: map[string]*heard{}}
	for _, s := range have {
		p.peers[s.Peer] = &heard{Statement: s}
	}
	return p, nil
}

// of returns a peer's entry. The lock is held.
func (p *presence) of(peer string) *heard {
	h := p.peers[peer]
	if h == nil {
		h = &heard{Statement: fleet.Statement{Peer: peer}}
		p.peers[peer] = h
	}
	h.dirty = true
	return h
}

// seen notes a sign of life.
func (p *presence) seen(peer string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(peer).Seen = now
}

// said notes a statement, unless a newer one is known: two uplinks may tell the same story one after the other. It returns
// the one before, and whether this one took its place.
func (p *presence) said(peer string, n status.Node, now time.Time) (was status.Node, newer bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.of(peer)
	was, newer = h.Node, n.Seq >= h.Node.Seq
	if newer {
		h.Node = n
	}
	if now.After(h.Seen) {
		h.Seen = now
	}
	return was, newer
}

func (p *presence) get(peer string) (fleet.Statement, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.peers[peer]
	if !ok {
		return fleet.Statement{}, false
	}
	return h.Statement, true
}

// flush writes what changed. On an error it is tried again with the next flush.
func (p *presence) flush(ctx context.Context) error {
	p.mu.Lock()
	var list []fleet.Statement
	for _, h := range p.peers {
		if h.dirty {
			h.dirty = false
			list = append(list, h.Statement)
		}
	}
	p.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := p.db.PutStatements(ctx, list)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range list {
			p.of(s.Peer)
		}
	}
	return err
}
