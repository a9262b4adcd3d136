package sitetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// The LAN falls apart, one of its cables is slow, or the LAN is all there is.
func TestLAN(t *testing.T) {
	cases(t,
		sitecase{name: "split and healed", stand: true, setup: setup{wan: thin(20 * testbed.Mbit)}, play: split},
		sitecase{name: "one cable is slow", setup: setup{wan: slower(), size: 16 << 20}, play: slow},
		sitecase{name: "no WAN and a stick", stand: true, setup: setup{nodes: either(8, 5)}, play: stick},
	)
}

// split: the LAN falls in two halves that both reach the WAN, until the half without the uplink has a lease of its own
// and has used it. Each half must get on, and what both fetched is accounted for.
func split(tr *trial) {
	tr.run()
	tr.awaitWAN(0.1)
	var one []int
	for n := range tr.site.Nodes[:len(tr.site.Nodes)/2] {
		one = append(one, n+1)
	}
	tr.must(tr.bed.Partition(1, one...))
	tr.await("a lease for the other half", func() (bool, string) {
		v := tr.view()
		return v.WAN.LeaseSplit > 0, fmt.Sprintf("%+v", v.WAN)
	})
	from := tr.carried()
	tr.await("bytes over the WAN after the split", func() (bool, string) {
		n := tr.carried() - from
		return n > 8*chunk, fmt.Sprint(n)
	})
	tr.must(tr.bed.Reunite(1))
	f := tr.finish()
	tr.accounted(f)
	if f.wan.Needed != tr.bytes {
		tr.Errorf("the seeder sent %d different bytes of a bundle of %d", f.wan.Needed, tr.bytes)
	}
	if most := tr.bytes / 2; f.twice() > most {
		// The halves fetch from either end: they overlap in what was on its way when they met, and in what each had
		// when they parted and the other half did not.
		tr.Errorf("%d bytes crossed the WAN twice, of a bundle of %d", f.twice(), tr.bytes)
	}
	tr.Logf("split: %d leases beside the first, %.1f chunks fetched by both halves", f.wan.LeaseSplit, float64(f.twice())/chunk)
}

// slow: the cable of a node that is not the uplink carries 2 Mbit/s. When the others are done it has next to nothing,
// so they did not wait for it.
func slow(tr *trial) {
	tr.run()
	tr.awaitWAN(0.05)
	up, _ := tr.uplink()
	last := len(tr.site.Nodes)
	if tr.site.Nodes[last-1] == up {
		last--
	}
	node := tr.site.Nodes[last-1]
	tr.must(tr.bed.NodeRate(1, last, 2*testbed.Mbit))
	tr.awaitInstalled(tr.but(node)...)
	others := time.Since(tr.began)
	self, err := node.Self(tr.ctx)
	tr.must(err)
	if 2*self.Transfer.BytesHave > tr.bytes {
		tr.Errorf("the others were done when %s had %d of %d bytes already", node.Name, self.Transfer.BytesHave, tr.bytes)
	}
	tr.must(tr.bed.NodeRate(1, last, testbed.Gbit))
	tr.once(tr.finish())
	tr.Logf("%s on a slow cable had %.2f of the bundle when the others were done after %.1f s", node.Name,
		float64(self.Transfer.BytesHave)/float64(tr.bytes), others.Seconds())
}

// stick: nodes that have never run, and a WAN that was cut before. Bundle and policy come to one of them in a file.
func stick(tr *trial) {
	file := tr.lab.Path("stick.mesh")
	_, err := tr.seeder.Meshctl(tr.ctx, "bundle", "export", tr.bundle, "--policy", app, "--out", file)
	tr.must(err)
	tr.must(tr.bed.Cut(1))
	tr.run()
	carrier := tr.site.Nodes[1]
	tr.must(carrier.Ready(tr.ctx))
	_, err = carrier.Meshctl(tr.ctx, "bundle", "import", file)
	tr.must(err)
	imported := time.Now()
	tr.awaitInstalled(tr.site.Nodes...)
	took := time.Since(imported)
	tr.nothing()
	stats := tr.stats()
	tr.good(tr.site.Nodes...)
	tr.Logf("%d nodes from one stick: 0 bytes over the WAN, LAN %.3f of N-1 copies, last node %.1f s after the import", len(tr.site.Nodes),
		float64(lan(stats))/float64(tr.bytes)/float64(len(tr.site.Nodes)-1), took.Seconds())
}
