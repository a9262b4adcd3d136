package gossip

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	p := func(i int) Peer { return Peer{nodeName(i), peerID(i), nodeAddr(i), nodeAddr(i)} }
	moved := p(2)
	moved.GossipAddr = nodeAddr(9)
	before := map[string]Peer{nodeName(1): p(1), nodeName(2): p(2), nodeName(3): p(3), nodeName(4): p(4)}
	now := []Member{{Peer: p(1), Alive: true}, {Peer: moved, Alive: true}, {Peer: p(3)}, {Peer: p(5), Alive: true}, {Peer: p(6)}}
	after, came, gone := diff(before, now)
	if d := cmp.Diff([]Peer{moved, p(5)}, came, cmpAddr); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{nodeName(3), nodeName(4)}, gone); d != "" {
		t.Error(d)
	}
	if _, came, gone = diff(after, now); len(came)+len(gone) > 0 {
		t.Errorf("reported twice: %v %v", came, gone)
	}
}

var cmpAddr = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestPick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var candidates []netip.AddrPort
		connected := map[netip.AddrPort]bool{}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 300), 0, 200).Draw(t, "candidates") {
			a := nodeAddr(i)
			switch i % 5 {
			case 1:
				connected[a] = true
			case 2:
				a = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i))
			case 3:
				a = netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
			}
			candidates = append(candidates, a)
		}
		alive := rapid.IntRange(0, 60).Draw(t, "alive")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		got := pick(candidates, connected, siteNets, alive, rng)
		if len(got) > max(minCalls, siteBudget/(alive+1)) {
			t.Fatalf("%d calls with %d alive", len(got), alive)
		}
		seen := map[netip.AddrPort]bool{}
		for _, a := range got {
			if seen[a] || connected[a] || !allows(siteNets, a.Addr()) || a.Port() == 0 || a.Addr().Is4In6() {
				t.Fatalf("%v was picked", a)
			}
			seen[a] = true
		}
		if len(got) == 0 {
			for _, c := range candidates {
				if !connected[netip.AddrPortFrom(c.Addr().Unmap(), c.Port())] && allows(siteNets, c.Addr()) {
					t.Fatalf("%v was not picked, and nobody else", c)
				}
			}
		}
	})
}

func TestSource(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := map[string]caller{"a": {roster: 5}, "b": {roster: 7}}
	futile := map[string]uint64{"b": 7}
	for range 20 {
		if name, c, ok := source(all, futile, rng); !ok || name != "a" || c.roster != 5 {
			t.Fatalf("%s %v %v", name, c, ok)
		}
	}
	futile["a"] = 5
	if name, _, ok := source(all, futile, rng); ok {
		t.Errorf("%s is asked again for what it did not have", name)
	}
	all["a"] = caller{roster: 6}
	if name, _, ok := source(all, futile, rng); !ok || name != "a" {
		t.Errorf("a newer claim is not believed: %s", name)
	}
}

func TestPace(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := pace{base: 20 * time.Second}
	within := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want/2 || got > want*3/2 {
			t.Errorf("%s: %v, want about %v", what, got, want)
		}
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 20, 20} {
		within("alone", p.next(0, false, rng), want*time.Second)
	}
	within("in company", p.next(3, false, rng), p.base)
	within("alone again", p.next(0, false, rng), time.Second)
	for range maxNear {
		within("near", p.next(3, true, rng), nearPause)
	}
	within("near without end", p.next(3, true, rng), p.base)
	p.next(3, false, rng)
	within("near once more", p.next(3, true, rng), nearPause)
}
