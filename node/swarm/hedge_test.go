package swarm

import (
	"testing"
	"time"
)

// What a neighbour is late with is asked of another one too; the first that comes ends the other request.
func TestHedge(t *testing.T) {
	b := newBench(Config{})
	b.do(add(2, true, 0), PeerUp{Peer: "p"}, PeerUp{Peer: "q"}, haveAll("p", 2), haveAll("q", 2))
	b.pass(time.Second)
	first := of[Fetch](b.all)
	if len(first) != 1 {
		t.Fatalf("asked %+v", first)
	}
	second := of[Fetch](b.pass(hedgeAfter + 200*time.Millisecond))
	if len(second) != 1 || second[0].From == first[0].From {
		t.Fatalf("then asked %+v", second)
	}
	if out := b.do(Stored{second[0].Req}); len(of[Cancel](out)) != 1 || of[Cancel](out)[0].Req != first[0].Req {
		t.Errorf("the twin goes on: %+v", out)
	}
}

// A claim that fails again and again counts for nothing, also when it is made anew: the WAN is not kept waiting.
func TestDisbelief(t *testing.T) {
	b := newBench(Config{})
	b.do(Expect{[]Peer{"liar"}}, PeerUp{Peer: "liar"}, PeerUplink{Peer: "liar"}, add(2, true, 0), haveAll("liar", 2))
	b.lead()
	seen := 0
	for range 300 {
		for ; seen < len(b.all); seen++ {
			if f, ok := b.all[seen].(Fetch); ok && f.From == WAN {
				return // what it should come to
			} else if ok {
				b.do(Failed{f.Req, WhyNotHeld}, haveAll("liar", 2))
			}
		}
		b.pass(100 * time.Millisecond)
	}
	t.Error("half a minute of lies, and the chunk is still not fetched over the WAN")
}
