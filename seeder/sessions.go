package seeder

import (
	"sync"

	"github.com/patchmesh/patchmesh/internal/xfer"
)

// sessions is who is connected.
type sessions struct {
	mu     sync.Mutex
	byPeer map[string]*xfer.Session
	sites  map[*xfer.Session]string
	bySite map[string]map[*xfer.Session]bool
}

func newSessions() *sessions {
	return &sessions{byPeer: map[string]*xfer.Session{}, sites: map[*xfer.Session]string{}, bySite: map[string]map[*xfer.Session]bool{}}
}

func (x *sessions) add(site string, s *xfer.Session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byPeer[s.Peer().String()], x.sites[s] = s, site
	if x.bySite[site] == nil {
		x.bySite[site] = map[*xfer.Session]bool{}
	}
	x.bySite[site][s] = true
}

// remove forgets a session and returns the site it was of; false if it never counted.
func (x *sessions) remove(s *xfer.Session) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	site, ok := x.sites[s]
	if !ok {
		return "", false
	}
	delete(x.sites, s)
	if delete(x.bySite[site], s); len(x.bySite[site]) == 0 {
		delete(x.bySite, site)
	}
	if id := s.Peer().String(); x.byPeer[id] == s {
		delete(x.byPeer, id)
	}
	return site, true
}

func (x *sessions) peer(id string) *xfer.Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byPeer[id]
}

func (x *sessions) of(site string) []*xfer.Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []*xfer.Session
	for s := range x.bySite[site] {
		out = append(out, s)
	}
	return out
}
