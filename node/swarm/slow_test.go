package swarm

import (
	"testing"
	"time"
)

// serve lets a node fetch from one neighbour that holds everything and sends one chunk after the other at a rate. It
// says what was struck, how many chunks came, and how many bytes were asked for at a time at most.
func serve(t *testing.T, rate, size int64, chunks int, lasts time.Duration) (strikes []Strike, came int, most int64) {
	t.Helper()
	b := newBench(Config{})
	a := add(chunks, true)
	for i := range a.Sizes {
		a.Sizes[i] = size
	}
	b.do(PeerUp{Peer: "slow"}, PeerUplink{Peer: "slow"}, a, haveAll("slow", chunks))
	var owed []Fetch
	at := b.now // when the next chunk began to leave
	given := map[uint32]bool{}
	seen := 0
	for end := b.now.Add(lasts); b.now.Before(end); {
		b.pass(100 * time.Millisecond)
		if len(owed) > 0 {
			b.do(Progress{"slow", int64(came)*size + int64(b.now.Sub(at))*rate/int64(time.Second)})
		} else {
			b.do(Progress{"slow", int64(came) * size})
		}
		for ; seen < len(b.all); seen++ {
			switch x := b.all[seen].(type) {
			case Fetch:
				if len(owed) == 0 {
					at = b.now
				}
				owed = append(owed, x)
				most = max(most, int64(len(owed))*size)
			case Cancel:
				given[x.Req] = true
			case Strike:
				if x.Ban > 0 {
					strikes = append(strikes, x)
				}
			}
		}
		for rate > 0 && len(owed) > 0 && b.now.Sub(at) >= time.Duration(size*int64(time.Second)/rate) {
			f := owed[0]
			owed, at = owed[1:], at.Add(time.Duration(size*int64(time.Second)/rate))
			came++
			b.do(Stored{f.Req})
			if given[f.Req] {
				b.do(Late{"slow", f.Bundle, f.Number})
			}
			b.do(Gained{f.Bundle, f.Number})
		}
	}
	return strikes, came, most
}

// A port of 2 Mbit/s, alone or shared by 8 or 30 neighbours, is slow and nothing else: no ban, little is asked of it at
// a time once its pace is known, and what it can send is used.
func TestSlowIsNotBanned(t *testing.T) {
	const port = 2e6 / 8
	for _, shared := range []int64{1, 8, 30} {
		for _, size := range []int64{64 << 10, 256 << 10, 1 << 20} {
			rate, lasts := port/shared, 10*time.Minute
			could := int(rate * int64(lasts/time.Second) / size)
			strikes, came, most := serve(t, rate, size, 4000, lasts)
			if len(strikes) > 0 || came < could*8/10-1 || most > max(5*size, 2*rate*int64(slowTime/time.Second)) {
				t.Errorf("%d bytes/s, chunks of %d: %d chunks of %d came, at most %d bytes were asked for at a time, struck: %v", rate, size, came, could, most, strikes)
			}
		}
	}
}

// Positive control of the test above: one that sends next to nothing, or nothing, is banned soon.
func TestDripIsBanned(t *testing.T) {
	for _, rate := range []int64{0, 1, 100} {
		if strikes, _, _ := serve(t, rate, 256<<10, 4000, time.Minute); len(strikes) == 0 {
			t.Errorf("%d bytes/s: not banned after a minute", rate)
		}
	}
}
