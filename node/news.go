package node

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// newsEvery is how long a neighbour that need not know may wait to hear which chunks came here: each message wakes a
// process, and most of what a site of 30 says would be news to nobody.
const newsEvery = time.Second

// announce passes on which chunks came: at once to the neighbours that wait for one of them, to the others with the next.
func (n *Node) announce() {
	now := time.Now()
	for d, numbers := range n.news {
		for id, nb := range n.nb {
			if nb.news == nil {
				nb.news = map[manifest.Digest][]uint32{}
			}
			if len(nb.news) == 0 {
				nb.newsSince = now
			}
			nb.news[d] = append(nb.news[d], numbers...)
			for _, k := range numbers {
				if n.sw.Waits(swarm.Peer(id.String()), d, int(k)) {
					nb.newsSince = time.Time{}
					break
				}
			}
		}
		delete(n.news, d)
	}
	for _, nb := range n.nb {
		if len(nb.news) > 0 && now.Sub(nb.newsSince) >= newsEvery {
			nb.tellNews()
		}
	}
}

// tellNews sends what the neighbour has not heard.
func (nb *neighbour) tellNews() {
	for d, numbers := range nb.news {
		for len(numbers) > 0 {
			k := min(len(numbers), wire.MaxHaveAdd)
			nb.s.Send(&wire.HaveAdd{Bundle: d, Numbers: numbers[:k]})
			numbers = numbers[k:]
		}
	}
	clear(nb.news)
}

// sendHave says all that is held of a bundle.
func (n *Node) sendHave(nb *neighbour, b *heldBundle) {
	bits := make([]byte, (len(b.catalog.Chunks)+7)/8)
	for i, r := range b.catalog.Chunks {
		if n.store.Has(r.ID) {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	delete(nb.news, b.digest)
	nb.s.Send(&wire.Have{Bundle: b.digest, Wants: b.wants && !n.leaving.asked, Total: uint32(len(b.catalog.Chunks)), Bitmap: bits})
}
