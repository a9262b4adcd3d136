package swarm

import (
	"testing"
	"time"
)

// What one node of the roster that means harm can and cannot do to this one.

// A neighbour that is banned stays banned when it comes back.
func TestBanOutlivesTheSession(t *testing.T) {
	b := newBench(Config{})
	b.do(add(8, true), PeerUp{Peer: "liar"}, haveAll("liar", 8))
	b.pass(3 * time.Second)
	fs := of[Fetch](b.all)
	if len(fs) == 0 {
		t.Fatal("nothing was asked of it")
	}
	if out := b.do(Failed{fs[0].Req, WhyCorrupt}); len(of[Strike](out)) != 1 {
		t.Fatalf("no strike: %v", out)
	}
	b.do(PeerDown{"liar"}, PeerUp{Peer: "liar"}, haveAll("liar", 8))
	if out := b.pass(time.Minute); len(of[Fetch](out)) != 0 {
		t.Errorf("asked again after a new session: %v", of[Fetch](out))
	}
	b.now = b.now.Add(DefaultBan)
	if out := b.pass(time.Minute); len(of[Fetch](out)) == 0 { // positive control
		t.Error("never asked again, although the ban is over")
	}
}

// A banned neighbour's claims keep nothing from being fetched over the WAN, also of a bundle that came up later.
func TestBannedClaimsCountForNothing(t *testing.T) {
	b := newBench(Config{})
	b.do(PeerUp{Peer: "liar"}, PeerUplink{Peer: "liar"})
	early := haveAll("liar", 8)
	early.Bundle = Bundle{2}
	b.do(early, add(8, true), haveAll("liar", 8))
	b.pass(3 * time.Second)
	b.do(Failed{of[Fetch](b.all)[0].Req, WhyCorrupt})
	late := add(8, true)
	late.Bundle = Bundle{2}
	b.do(late)
	b.lead()
	seen := 0
	for range 20 {
		b.pass(time.Second)
		for ; seen < len(b.all); seen++ {
			if f, ok := b.all[seen].(Fetch); ok && f.From == WAN {
				b.do(Stored{f.Req})
			}
		}
	}
	for _, l := range b.list {
		if l.left > 0 {
			t.Errorf("bundle %x: %d chunks never fetched", l.id[0], l.left)
		}
	}
}

// A neighbour that claims to hold everything and delivers nothing does not keep the uplink from the WAN for long.
func TestSilentHolderIsGivenUp(t *testing.T) {
	for name, answer := range map[string]func(*bench, Fetch){
		"silent": func(*bench, Fetch) {},
		"busy":   func(b *bench, f Fetch) { b.do(Failed{f.Req, WhyBusy}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(Config{})
			b.do(PeerUp{Peer: "liar"}, PeerUplink{Peer: "liar"}, add(100, true), haveAll("liar", 100))
			b.lead()
			seen := 0
			for range 1200 { // two minutes
				b.pass(100 * time.Millisecond)
				for ; seen < len(b.all); seen++ {
					if f, ok := b.all[seen].(Fetch); ok && f.From == WAN {
						b.do(Stored{f.Req})
					} else if ok {
						answer(b, f)
					}
				}
			}
			if left := b.list[0].left; left > 0 {
				t.Errorf("%d chunks of 100 are missing after two minutes", left)
			}
		})
	}
}

// A neighbour cannot make us remember more than a bounded map of a bundle, known or not.
func TestClaimedBundleSizeIsBounded(t *testing.T) {
	b := newBench(Config{})
	b.do(add(8, true), PeerUp{Peer: "liar"}, haveAll("liar", 1<<24))
	if h := b.peers["liar"].have[Bundle{1}]; h == nil || len(h.bits) > maxMapBytes || !h.has(7) {
		t.Errorf("remembers %v", h != nil)
	}
	if n := b.list[0].holders[7]; n != 1 {
		t.Errorf("what it holds of the chunks there are counts %d times", n)
	}
}
