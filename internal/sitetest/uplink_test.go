package sitetest

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
)

// The node that fetches dies, freezes or is cut off. The site goes on with another, and what is fetched twice stays
// within a window for each time.
func TestUplink(t *testing.T) {
	cases(t,
		sitecase{name: "killed at 10 %", setup: setup{wan: slower()}, play: killed(0.1)},
		sitecase{name: "killed at 50 %", setup: setup{wan: slower()}, play: killed(0.5)},
		sitecase{name: "killed at 90 %", setup: setup{wan: slower()}, play: killed(0.9)},
		sitecase{name: "killed and its successor too", stand: true, setup: setup{wan: slower()}, play: killed(0.3, 0.4)},
		sitecase{name: "killed and two successors too", setup: setup{wan: slower()}, play: killed(0.2, 0.3, 0.4)},
		sitecase{name: "frozen", setup: setup{wan: slower()}, play: frozen},
		sitecase{name: "frozen and thawed under way", stand: true, setup: setup{wan: slower()}, play: thawed},
		sitecase{name: "asked to leave", stand: true, setup: setup{wan: slower()}, play: dismissed},
		sitecase{name: "cable pulled", setup: setup{wan: slower()}, play: unplugged},
		sitecase{name: "WAN blocked", setup: setup{wan: slower()}, play: blocked},
	)
}

// killed kills whichever node is the uplink at each of these shares of the bundle; they come back when the others are
// done.
func killed(at ...float64) func(*trial) {
	return func(tr *trial) {
		tr.run()
		var dead []*harness.Node
		for _, share := range at {
			tr.awaitWAN(share)
			victim, n := tr.uplink(dead...)
			tr.must(tr.bed.Kill(tr.host(n)))
			dead = append(dead, victim)
		}
		gap := tr.gap()
		tr.awaitInstalled(tr.but(dead...)...)
		tr.launch(dead...)
		tr.atMostTwice(tr.finish(), len(dead))
		tr.Logf("WAN idle for at most %.1f s after the last of %d kills", gap.Seconds(), len(dead))
	}
}

// frozen: the uplink's process is stopped, not dead: its connections stay up and it answers nothing. It goes on when
// the others are done.
func frozen(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	victim, n := tr.uplink()
	tr.must(tr.bed.Stop(tr.host(n)))
	gap := tr.gap()
	tr.awaitInstalled(tr.but(victim)...)
	tr.must(tr.bed.Cont(tr.host(n)))
	tr.atMostTwice(tr.finish(), 1)
	tr.Logf("uplink %s frozen: WAN idle for about %.1f s", victim.Name, gap.Seconds())
}

// thawed: the frozen uplink wakes up while its successor fetches. It still holds what it held, believes what it
// believed, and must not fetch a byte more.
func thawed(tr *trial) {
	tr.run()
	tr.awaitWAN(0.3)
	victim, n := tr.uplink()
	tr.must(tr.bed.Stop(tr.host(n)))
	heir, _ := tr.uplink(victim)
	tr.awaitWAN(0.6)
	tr.must(tr.bed.Cont(tr.host(n)))
	tr.atMostTwice(tr.finish(), 1)
	tr.Logf("uplink %s frozen and thawed while %s fetched", victim.Name, heir.Name)
}

// dismissed: the uplink is asked to leave half-way. It hands over what it has, and nothing is fetched twice.
func dismissed(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	victim, _ := tr.uplink()
	tr.must(victim.Leave(tr.ctx, time.Minute))
	gap := tr.gap()
	tr.awaitInstalled(tr.but(victim)...)
	tr.launch(victim)
	tr.once(tr.finish())
	tr.Logf("uplink %s left: WAN idle for about %.1f s", victim.Name, gap.Seconds())
}

// unplugged: nobody is told that the uplink is gone, and it is not told either.
func unplugged(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	victim, n := tr.uplink()
	tr.must(tr.bed.Isolate(1, n))
	gap := tr.gap()
	tr.awaitInstalled(tr.but(victim)...)
	tr.must(tr.bed.Join(1, n))
	tr.atMostTwice(tr.finish(), 1)
	tr.Logf("uplink %s out of reach: WAN idle for about %.1f s", victim.Name, gap.Seconds())
}

// blocked: the uplink is well and loses the WAN, which the others still have.
func blocked(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	victim, n := tr.uplink()
	tr.must(tr.bed.Block(1, n))
	gap := tr.gap()
	tr.atMostTwice(tr.finish(), 1)
	tr.Logf("uplink %s without WAN: WAN idle for about %.1f s", victim.Name, gap.Seconds())
}
