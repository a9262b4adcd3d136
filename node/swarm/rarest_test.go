package swarm

import "testing"

// The chunk that fewest hold counts, with ourselves and with those neighbours only that are trusted.
func TestRarest(t *testing.T) {
	b := newBench(Config{})
	if got := b.Rarest(Bundle{1}); got != 0 {
		t.Errorf("of a bundle that is not known: %d", got)
	}
	have := func(p Peer, bitmap byte) PeerHave {
		return PeerHave{Peer: p, Bundle: Bundle{1}, Wants: true, Total: 4, Bitmap: []byte{bitmap}}
	}
	want := func(what string, n int) {
		t.Helper()
		if got := b.Rarest(Bundle{1}); got != n {
			t.Errorf("%s: %d, want %d", what, got, n)
		}
	}
	b.do(Expect{[]Peer{"p", "q"}}, PeerUp{Peer: "p"}, PeerUp{Peer: "q"}, add(4, true, 0, 1, 2, 3))
	want("nobody else has any", 1)
	b.do(have("p", 0x07))
	want("p lacks one", 1)
	b.do(have("p", 0x0f))
	want("p has all", 2)
	b.do(have("q", 0x0f))
	want("all have all", 3)
	b.do(Lost{Bundle: Bundle{1}, Number: 2})
	want("we lost one", 2)
	b.do(PeerDown{Peer: "p"})
	want("p is gone", 1)
}
