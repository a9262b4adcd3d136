package swarm

import (
	"testing"
	"time"
)

// A claim that was not kept counts for nothing, and not for ever: who has come back in order may be the only holder.
func TestDisbeliefEnds(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := Bundle{1}
	c := conduct{doubts: map[Bundle]map[int]doubt{id: {0: {maxDoubt, now}, 1: {maxDoubt - 1, now}}}}
	listed := func(now time.Time) (n int) {
		for range c.disbelieved(id, now) {
			n++
		}
		return n
	}
	if !c.disbelieves(id, 0, now) || c.disbelieves(id, 1, now) || listed(now) != 1 {
		t.Error("want the first claim disbelieved and the second believed")
	}
	if now = now.Add(DefaultBan - time.Second); !c.disbelieves(id, 0, now) {
		t.Error("believed too soon")
	}
	if now = now.Add(time.Second); c.disbelieves(id, 0, now) || listed(now) != 0 {
		t.Error("disbelieved for ever")
	}
}

// What is doubted of a bundle goes with the bundle.
func TestDoubtsGoWithTheBundle(t *testing.T) {
	s := New(Config{Self: "self"}, time.Unix(0, 0))
	id := Bundle{1}
	s.Step(time.Unix(0, 0), BundleAdd{Bundle: id, Sizes: []int64{1}, Have: []bool{false}, Wants: true})
	s.conductOf("p").doubts[id] = map[int]doubt{0: {maxDoubt, time.Unix(0, 0)}}
	s.Step(time.Unix(1, 0), BundleDrop{id})
	if n := len(s.conductOf("p").doubts); n != 0 {
		t.Errorf("%d bundles are doubted, none is known", n)
	}
}
