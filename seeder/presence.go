package seeder

import (
	"context"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// presence is what each node last said and when something was last heard from it. What is new is written every second: a
// statement that a kill loses is made again by its node. That a node was heard again, and nothing else, is written once in
// presenceStep, and when nothing follows for so long.
type presence struct {
	db *fleet.Store

	mu    sync.Mutex
	peers map[string]*heard
}

// presenceStep is how far behind the last sign of life may be on disk.
const presenceStep = time.Minute

type heard struct {
	fleet.Statement
	news bool      // the statement is not on disk
	kept time.Time // Seen, on disk
}

// due reports whether it is to be written now.
func (h *heard) due(now time.Time) bool {
	return h.news || !h.Seen.Equal(h.kept) && (h.Seen.Sub(h.kept) >= presenceStep || now.Sub(h.Seen) >= presenceStep)
}

func loadPresence(ctx context.Context, db *fleet.Store) (*presence, error) {
	have, err := db.Statements(ctx)
	if err != nil {
		return nil, err
	}
	p := &presence{db: db, peers: map[string]*heard{}}
	for _, s := range have {
		p.peers[s.Peer] = &heard{Statement: s, kept: s.Seen}
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
		h.Node, h.news = n, true
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

// flush writes what is due, or with all what is not on disk. On an error it is tried again with the next flush.
func (p *presence) flush(ctx context.Context, now time.Time, all bool) error {
	p.mu.Lock()
	var list []fleet.Statement
	for _, h := range p.peers {
		if h.due(now) || all && !h.Seen.Equal(h.kept) {
			h.news = false
			list = append(list, h.Statement)
		}
	}
	p.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := p.db.PutStatements(ctx, list)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range list {
		if h := p.of(s.Peer); err != nil {
			h.news = true
		} else {
			h.kept = s.Seen
		}
	}
	return err
}
