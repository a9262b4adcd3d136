package rollout

import "slices"

// Carry says that the bundle is brought to a site by hand. We do not hear from there that it is staged, and cannot hand in a
// grant when its window opens; so the site is given one for its next window now, as if it had been heard, to travel with
// the bundle. Canary, batches and a pause hold it back as they do every site. Under gating: Strict a grant cannot travel.
func (s State) Carry(site string) (State, error) {
	if s.Final() {
		return s, s.conflict("carried")
	}
	if s.Frozen && !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Site == site }) {
		return s, s.conflict("carried to site " + site + ", which has no node in it")
	}
	s = s.clone()
	sent := s.Sites[site]
	sent.Carried = true
	s.Sites[site] = sent
	return s, nil
}
