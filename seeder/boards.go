package seeder

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// board is the documents that a site gets: its roster, the list of revoked bundles, the newest orders that may be for one of its nodes, the policies
// that select one with the grants of their rollouts and the orders that we gave under them, the withdrawn policies, and the manifests of the bundles that the policies name. It is not changed once it is in the map.
type board struct {
	entries []wire.DocEntry
	docs    map[manifest.Digest]*wire.Doc
	bundles map[manifest.Digest]bool // named by a policy of the site
}

func (b *board) add(kind wire.DocKind, name string, revision uint64, s trust.Signed) {
	d := manifest.DigestOf(s.Doc)
	if b.docs[d] == nil && len(b.entries) < wire.MaxDocs {
		b.docs[d] = &wire.Doc{Kind: kind, Doc: s.Doc, Sig: s.Sig}
		b.entries = append(b.entries, wire.DocEntry{Kind: kind, Name: name, Revision: revision, Digest: d})
	}
}

// boards holds the board of every site.
type boards struct {
	db      *fleet.Store
	members *members
	library *library
	desired *desired
	orders  *orders
	granted func(site, policy string, revision uint64) (fleet.Grant, bool)

	revocations *revocations

	posting sync.Mutex // one change at a time, so that an older state never replaces a newer one
	mu      sync.RWMutex
	bySite  map[string]*board
}

func (x *boards) site(name string) *board {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.bySite[name]
}

// post computes a site's board anew.
func (x *boards) post(ctx context.Context, site string) error {
	x.posting.Lock()
	defer x.posting.Unlock()
	s, err := x.db.Site(ctx, site)
	if err != nil {
		return err
	}
	r, err := x.db.Roster(ctx, site)
	if err != nil {
		return fmt.Errorf("documents of site %s: %w", site, err)
	}
	b := &board{docs: map[manifest.Digest]*wire.Doc{}, bundles: map[manifest.Digest]bool{}}
	b.add(wire.DocRoster, site, s.Roster, r)
	if l := x.revocations.inForce(); l.list != nil {
		b.add(wire.DocRevocations, "fleet", l.list.Sequence, l.signed)
	}
	for _, o := range x.orders.site(site) {
		b.add(wire.DocOrder, o.order.Bundle, o.Sequence, o.Document)
	}
	nodes := x.members.site(site)
	for _, w := range x.desired.all() {
		if !slices.ContainsFunc(nodes, func(n fleet.Node) bool { return w.concerns(n.Labels) }) {
			continue
		}
		b.add(wire.DocPolicy, w.Name, w.Revision, w.Document)
		if w.policy == nil || !selects(w.policy, nodes) {
			continue // nothing is to be fetched for it
		}
		for _, o := range x.orders.backs(site, w.Name, w.Revision) {
			b.add(wire.DocBack, w.Name, o.Sequence, o.Document)
		}
		if g, ok := x.granted(site, w.Name, w.Revision); ok {
			b.add(wire.DocGrant, w.Name, g.Serial, g.Document)
		}
		if k, ok := x.library.book(w.policy.Bundle.Checksum); ok {
			b.add(wire.DocManifest, k.Name, k.Sequence, k.Manifest)
			b.bundles[k.Digest] = true
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bySite[site] = b
	return nil
}

func selects(p *policy.Policy, nodes []fleet.Node) bool {
	return slices.ContainsFunc(nodes, func(n fleet.Node) bool { return p.Matches(n.Labels) })
}
