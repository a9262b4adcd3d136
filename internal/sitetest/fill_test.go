package sitetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// A WAN that works and nodes that live: every byte crosses the WAN once. Nothing runs beside these: their times are
// figures.
func TestFill(t *testing.T) {
	once := func(tr *trial) {
		tr.run()
		tr.once(tr.finish())
	}
	inTurn(t,
		sitecase{name: "one node", setup: setup{nodes: 1}, play: once},
		sitecase{name: "8 nodes at once", stand: true, setup: setup{nodes: 8}, play: once},
		sitecase{name: "16 nodes at once", setup: setup{nodes: 16}, play: once},
		sitecase{name: "30 nodes at once", setup: setup{nodes: 30}, play: once},
		sitecase{name: "8 nodes there before the policy", setup: setup{nodes: 8, idle: true}, play: thereBefore},
		sitecase{name: "a WAN of 1 Mbit/s", setup: setup{wan: thin(testbed.Mbit), size: 4 << 20}, play: once},
		sitecase{name: "sites", stand: true, setup: setup{sites: either(4, 2), nodes: either(4, 2)}, play: sites},
	)
}

// thin is a WAN that takes seconds for a chunk.
func thin(rate testbed.Rate) testbed.Config {
	c := link
	c.WAN = rate
	return c
}

// thereBefore: the nodes know each other, and one is the uplink, when the policy comes.
func thereBefore(tr *trial) {
	tr.run()
	tr.awaitAcquainted(tr.site.Nodes...)
	tr.uplink()
	tr.begin()
	tr.post()
	tr.once(tr.finish())
}

// awaitAcquainted waits until each of these nodes has heard of all of them.
func (tr *trial) awaitAcquainted(nodes ...*harness.Node) {
	tr.Helper()
	tr.await("nodes that know each other", func() (bool, string) {
		for _, n := range nodes {
			self, err := n.Self(tr.ctx)
			if err != nil || self.Transfer.Peers < len(nodes)-1 {
				return false, fmt.Sprintf("%s: %d peers (%v)", n.Name, self.Transfer.Peers, err)
			}
		}
		return true, ""
	})
}

// sites know nothing of each other: each takes its own copy over its own WAN, and none a byte from another site. The
// last one's link loses one packet of a hundred.
func sites(tr *trial) {
	tr.must(tr.bed.Loss(len(tr.sites), 0.01))
	tr.run()
	for s := range tr.sites {
		tr.awaitInstalled(tr.sites[s].Nodes...)
		tr.Logf("%s: every node Installed after %.1f s", tr.sites[s].Name, time.Since(tr.began).Seconds())
	}
	for s := range tr.sites {
		tr.once(tr.finishSite(s))
	}
}
