package sitetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// once holds that every byte crossed the WAN once: exactly by the seeder's account, and within what headers, lists
// and reports may cost by the interface's.
func (tr *trial) once(f figures) {
	tr.Helper()
	if f.wan.Needed != tr.bytes {
		tr.Errorf("the seeder sent %d different bytes of a bundle of %d", f.wan.Needed, tr.bytes)
	}
	if f.wan.Duplicate != 0 || f.wan.Plain != f.wan.Needed {
		tr.Errorf("%d bytes crossed the WAN twice", f.wan.Duplicate)
	}
	if limit := tr.bytes * 1045 / 1000; f.link.DownArrived > limit {
		tr.Errorf("%d bytes on the interface for a bundle of %d", f.link.DownArrived, tr.bytes)
	}
}

// atMostTwice holds what a fault may cost: four chunks or two bandwidth-delay products, whichever is more.
func (tr *trial) atMostTwice(f figures) {
	tr.Helper()
	limit := max(4*chunk, 2*tr.wan.WAN.Bytes(tr.wan.RTT))
	if f.wan.Duplicate > limit {
		tr.Errorf("%d bytes crossed the WAN twice, at most %d may", f.wan.Duplicate, limit)
	}
}

// uplink returns the node that fetches, and its number.
func (tr *trial) uplink() (n *harness.Node, number int) {
	tr.Helper()
	tr.await("an uplink", func() (bool, string) {
		name := tr.view().Uplink
		for i, x := range tr.site.Nodes {
			if x.Name == name {
				n, number = x, i+1
			}
		}
		return n != nil, name
	})
	return n, number
}

// but is every node of the site but one.
func (tr *trial) but(one *harness.Node) []*harness.Node {
	return slices.DeleteFunc(slices.Clone(tr.site.Nodes), func(n *harness.Node) bool { return n == one })
}

// silence measures how long nothing but small talk crosses the WAN from now on.
func (tr *trial) silence() time.Duration {
	tr.Helper()
	began, from := time.Now(), tr.stats().DownArrived
	tr.await("bytes over the WAN again", func() (bool, string) {
		n := tr.stats().DownArrived - from
		return n > 2*chunk, fmt.Sprint(n)
	})
	return time.Since(began)
}

func TestAllAtOnce(t *testing.T) {
	tr := newTrial(t, 8, link)
	tr.run()
	tr.once(tr.finish())
}

func TestOneNode(t *testing.T) {
	tr := newTrial(t, 1, link)
	tr.run()
	tr.once(tr.finish())
}

// The uplink's processes are killed half-way; it comes back when the others are done.
func TestUplinkKilled(t *testing.T) {
	tr := newTrial(t, nodes(), link)
	tr.run()
	tr.awaitWAN(0.5)
	victim, n := tr.uplink()
	tr.must(tr.bed.Kill(testbed.Node(1, n)))
	gap := tr.silence()
	tr.awaitInstalled(tr.but(victim)...)
	tr.must(victim.Start())
	tr.atMostTwice(tr.finish())
	tr.Logf("uplink %s killed: WAN idle for about %.1f s", victim.Name, gap.Seconds())
}

// The uplink's cable is pulled half-way: nobody is told that it is gone, and it is not told either.
func TestUplinkSilent(t *testing.T) {
	tr := newTrial(t, nodes(), link)
	tr.run()
	tr.awaitWAN(0.5)
	victim, n := tr.uplink()
	tr.must(tr.bed.Isolate(1, n))
	gap := tr.silence()
	tr.awaitInstalled(tr.but(victim)...)
	tr.must(tr.bed.Join(1, n))
	tr.atMostTwice(tr.finish())
	tr.Logf("uplink %s out of reach: WAN idle for about %.1f s", victim.Name, gap.Seconds())
}

// The LAN falls in two halves that both reach the WAN, until the half without the uplink has a lease of its own and
// has used it. Each half must get on, and what both fetched is accounted for.
func TestLANSplit(t *testing.T) {
	wan := link
	wan.WAN = 20 * testbed.Mbit // so that the transfer outlives the split
	tr := newTrial(t, nodes(), wan)
	tr.run()
	tr.awaitWAN(0.1)
	var half []int
	for n := range tr.site.Nodes[:len(tr.site.Nodes)/2] {
		half = append(half, n+1)
	}
	tr.must(tr.bed.Partition(1, half...))
	tr.await("a lease for the other half", func() (bool, string) {
		v := tr.view()
		return v.WAN.LeaseSplit > 0, fmt.Sprintf("%+v", v.WAN)
	})
	from := tr.stats().DownArrived
	tr.await("bytes over the WAN after the split", func() (bool, string) {
		n := tr.stats().DownArrived - from
		return n > 8*chunk, fmt.Sprint(n)
	})
	tr.must(tr.bed.Reunite(1))
	f := tr.finish()
	if f.wan.Plain != f.wan.Needed+f.wan.Duplicate || f.wan.Needed != tr.bytes {
		t.Errorf("the account does not add up: %+v for a bundle of %d", f.wan, tr.bytes)
	}
}

// The seeder is killed half-way and comes back. What it had not yet written down of its account is lost with it, so
// the interface says what was sent twice.
func TestSeederKilled(t *testing.T) {
	tr := newTrial(t, nodes(), link)
	tr.run()
	tr.awaitWAN(0.5)
	tr.seeder.Kill()
	tr.must(tr.seeder.Start(tr.ctx))
	tr.atMostOnTheInterface(tr.finish())
}

// The WAN is a black hole for ten seconds half-way.
func TestWANCut(t *testing.T) {
	tr := newTrial(t, nodes(), link)
	tr.run()
	tr.awaitWAN(0.5)
	tr.must(tr.bed.Cut(1))
	<-time.After(10 * time.Second)
	tr.must(tr.bed.Heal(1))
	gap := tr.silence()
	f := tr.finish()
	tr.atMostTwice(f)
	tr.Logf("WAN cut for 10 s: bytes flow again %.1f s after it is back", gap.Seconds())
}

// atMostOnTheInterface is atMostTwice by the interface's count.
func (tr *trial) atMostOnTheInterface(f figures) {
	tr.Helper()
	limit := (tr.bytes + max(4*chunk, 2*tr.wan.WAN.Bytes(tr.wan.RTT))) * 1045 / 1000
	if f.link.DownArrived > limit {
		tr.Errorf("%d bytes on the interface for a bundle of %d: want at most %d", f.link.DownArrived, tr.bytes, limit)
	}
}
