package swarm

// Waits reports whether a neighbour is to hear at once that this node holds a chunk; others may hear of it with the
// next ones. Whoever lacks the chunk may be next to ask for it. And the uplink may ask for more of the WAN when it
// knows that a second node holds what it brought: the first that does tells it.
func (s *Swarm) Waits(id Peer, bundle Bundle, n int) bool {
	p, b := s.peers[id], s.bundles[bundle]
	if p == nil || b == nil || n >= len(b.sizes) {
		return false
	}
	h := p.have[bundle]
	if h == nil {
		return false // it has not said that it has to do with the bundle; all of ours is said to it when it has
	}
	if h.has(n) {
		return p.holder == id && b.holders[n] <= 1
	}
	return h.wants || n < b.index || p.holder == id
}
