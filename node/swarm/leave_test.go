package swarm

import (
	"testing"
	"time"
)

// A node that is asked to leave as uplink asks the WAN for nothing more, takes what is on its way, gives the lease
// back when a neighbour holds that, and may go when nobody wants what it alone has.
func TestLeave(t *testing.T) {
	b := newBench(Config{})
	b.do(Expect{[]Peer{"p"}}, PeerUp{Peer: "p"}, PeerUplink{Peer: "p"}, add(40, true), PeerHave{Peer: "p", Bundle: Bundle{1}, Wants: true, Total: 40, Bitmap: make([]byte, 5)})
	b.lead()
	index := of[Fetch](b.all)[0]
	b.do(Stored{index.Req}, PeerHaveAdd{"p", Bundle{1}, []uint32{0}})
	open := of[Fetch](b.all)[1:]
	if len(open) != 4 {
		t.Fatalf("%d chunks are asked of the WAN, the window has room for 4", len(open))
	}
	if out := b.do(Leave{}); len(of[Withdraw](out)) != 1 || len(of[Cancel](out)) != 0 || len(of[ReleaseLease](out)) != 0 {
		t.Fatalf("asked to leave: %+v", out)
	}
	for i, f := range open {
		if out := b.do(Stored{f.Req}); len(of[Fetch](out)) != 0 {
			t.Fatalf("%d: asks for more: %+v", i, out)
		}
	}
	if out := b.pass(time.Second); len(of[ReleaseLease](out)) != 0 || b.Sole() != 4*256<<10 {
		t.Fatalf("the lease went before what it brought was shared, %d bytes are only here: %+v", b.Sole(), out)
	}
	out := b.do(PeerHaveAdd{"p", Bundle{1}, []uint32{uint32(open[0].Number), uint32(open[1].Number), uint32(open[2].Number), uint32(open[3].Number)}})
	if len(of[ReleaseLease](out)) != 1 || len(of[MayLeave](out)) != 1 || b.Sole() != 0 {
		t.Fatalf("everything is shared, %d bytes are not: %+v", b.Sole(), out)
	}
	if out := b.pass(time.Minute); len(of[AskLease](out))+len(of[Fetch](out))+len(of[MayLeave](out)) != 0 {
		t.Errorf("a node that leaves starts anew: %+v", out)
	}
}

// The last holder stays; and a neighbour that leaves too, wanting nothing any more, does not keep it.
func TestLastHolderStays(t *testing.T) {
	b := newBench(Config{})
	have := PeerHave{Peer: "p", Bundle: Bundle{1}, Wants: true, Total: 4, Bitmap: []byte{1}}
	b.do(Expect{[]Peer{"p"}}, PeerUp{Peer: "p"}, add(4, true, 0, 1, 2, 3), have, PeerUplink{Peer: "p"})
	if out := append(b.do(Leave{}), b.pass(time.Hour)...); len(of[MayLeave](out)) != 0 || b.Sole() != 3*256<<10 {
		t.Fatalf("the last holder may leave, with %d bytes: %+v", b.Sole(), out)
	}
	have.Wants = false
	if out := b.do(have); len(of[MayLeave](out)) != 1 {
		t.Errorf("kept by a neighbour that wants nothing: %+v", out)
	}
}

// A node that has not met its neighbours yet does not know who needs it.
func TestLeaveBeforeMeeting(t *testing.T) {
	b := newBench(Config{})
	b.do(Expect{[]Peer{"p"}}, add(4, true, 0, 1, 2, 3))
	if out := append(b.do(Leave{}), b.pass(DefaultSettle-200*time.Millisecond)...); len(of[MayLeave](out)) != 0 {
		t.Fatal("left before anybody could say what it lacks")
	}
	if out := b.pass(400 * time.Millisecond); len(of[MayLeave](out)) != 1 {
		t.Error("waits for ever for a neighbour that does not come")
	}
}
