package sitetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// The WAN is cut, flaps, loses packets, or is there for one node only.
func TestWAN(t *testing.T) {
	cases(t,
		sitecase{name: "cut for 20 s", setup: setup{wan: slower()}, play: cut(20 * time.Second)},
		sitecase{name: "cut for 5 s", stand: true, setup: setup{wan: slower()}, play: cut(5 * time.Second)},
		sitecase{name: "3 s up, 2 s down", setup: setup{wan: slower()}, play: flapping},
		sitecase{name: "1 % loss", setup: setup{wan: lossy(0.01)}, play: loses},
		sitecase{name: "5 % loss", setup: setup{wan: lossy(0.05)}, play: loses},
		sitecase{name: "only the last candidate has it", stand: true, setup: setup{flags: firstIsLast}, play: oneDoor},
	)
}

// cut makes the WAN a black hole half-way.
func cut(length time.Duration) func(*trial) {
	return func(tr *trial) {
		tr.run()
		tr.awaitWAN(0.5)
		tr.must(tr.bed.Cut(1))
		down, rest := time.Now(), tr.bytes-tr.carried()
		<-time.After(length)
		tr.must(tr.bed.Heal(1))
		up := time.Now()
		gap := tr.gap()
		again := time.Since(up) - time.Duration(float64(rest)*8/float64(tr.wan.WAN)*float64(time.Second))
		tr.atMostTwice(tr.finish(), 1)
		tr.Logf("WAN cut for %.1f s: idle for about %.1f s more, the rest came %.1f s later than the link allows",
			up.Sub(down).Seconds(), gap.Seconds(), again.Seconds())
	}
}

// flapping: the WAN is never there for long. What goes on within 2 s costs nothing.
func flapping(tr *trial) {
	tr.run()
	tr.awaitWAN(0.1)
	cuts := 0
	for ; tr.carried() < tr.bytes; cuts++ {
		tr.must(tr.bed.Cut(1))
		<-time.After(2 * time.Second)
		tr.must(tr.bed.Heal(1))
		<-time.After(3 * time.Second)
	}
	tr.atMostTwice(tr.finish(), cuts)
	tr.Logf("WAN cut %d times for 2 s", cuts)
}

func lossy(share float64) testbed.Config {
	c := link
	c.Loss = share
	return c
}

// loses: what is lost is sent again by TCP; no chunk is.
func loses(tr *trial) {
	tr.run()
	tr.once(tr.finish())
	lost := tr.stats().Down
	tr.Logf("the wire lost %d of %d packets towards the site", lost.Lost, lost.Lost+lost.Packets)
}

// firstIsLast lets every node but the first be preferred as uplink.
func firstIsLast(n int) []string {
	if n == 1 {
		return nil
	}
	return []string{"--wan", "prefer"}
}

// oneDoor: only the first node reaches the WAN, and every other one comes before it among the candidates.
func oneDoor(tr *trial) {
	var others []int
	for n := 2; n <= len(tr.site.Nodes); n++ {
		others = append(others, n)
	}
	tr.must(tr.bed.Block(1, others...))
	tr.run()
	tr.await("the first node as uplink", func() (bool, string) {
		up := tr.view().Uplink
		return up == tr.site.Nodes[0].Name, fmt.Sprintf("%q", up)
	})
	tr.Logf("the last candidate is the uplink after %.1f s", time.Since(tr.began).Seconds())
	f := tr.finish()
	tr.once(f)
	for _, n := range others {
		if got := f.link.Nodes[n-1].WANDown; got > 0 {
			tr.Errorf("node %d got %d bytes over a WAN that is blocked", n, got)
		}
	}
}
