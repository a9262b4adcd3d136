package seeder

import (
	"context"
	"sync"

	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// members is who is on which roster, as the gater and the sessions need it. It follows the database: a change is
// committed first, then shown here.
type members struct {
	changing sync.Mutex // held from reading the database to showing what it said

	mu     sync.RWMutex
	byPeer map[string]fleet.Node
	bySite map[string]map[string]fleet.Node // site, name
}

func loadMembers(ctx context.Context, db *fleet.Store) (*members, error) {
	m := &members{}
	return m, m.reload(ctx, db)
}

// reload reads the database anew. changing is held meanwhile, so that an older state never replaces a newer one.
func (m *members) reload(ctx context.Context, db *fleet.Store) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	nodes, err := db.Nodes(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byPeer, m.bySite = make(map[string]fleet.Node, len(nodes)), map[string]map[string]fleet.Node{}
	m.add(nodes)
	return nil
}

// reloadSite does so for one site: a node that joins does not cost a look at all the others.
func (m *members) reloadSite(ctx context.Context, db *fleet.Store, site string) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	nodes, err := db.NodesOf(ctx, site)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.bySite[site] {
		if m.byPeer[n.PeerID].Site == site { // or it has joined another
			delete(m.byPeer, n.PeerID)
		}
	}
	delete(m.bySite, site)
	m.add(nodes)
	return nil
}

// add shows nodes. The lock is held.
func (m *members) add(nodes []fleet.Node) {
	for _, n := range nodes {
		m.byPeer[n.PeerID] = n
		if m.bySite[n.Site] == nil {
			m.bySite[n.Site] = map[string]fleet.Node{}
		}
		m.bySite[n.Site][n.Name] = n
	}
}

func (m *members) peer(id string) (fleet.Node, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, ok := m.byPeer[id]
	return n, ok
}

func (m *members) named(site, name string) (fleet.Node, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, ok := m.bySite[site][name]
	return n, ok
}

func (m *members) site(name string) []fleet.Node {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]fleet.Node, 0, len(m.bySite[name]))
	for _, n := range m.bySite[name] {
		out = append(out, n)
	}
	return out
}

// all returns the nodes of all sites, in no order.
func (m *members) all() []fleet.Node {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]fleet.Node, 0, len(m.byPeer))
	for _, n := range m.byPeer {
		out = append(out, n)
	}
	return out
}

func (m *members) count(site string) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.bySite[site])
}

// addressed counts the nodes that an order is for.
func (m *members) addressed(t order.Targets) (n int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, x := range m.byPeer {
		if t.Names(x.Site, x.Name, x.Labels) {
			n++
		}
	}
	return n
}

func mayUplink(n fleet.Node) bool { return n.WAN != roster.WANNever }
