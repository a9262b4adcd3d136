package turn_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node/turn"
)

// sim is a site in virtual time. Its nodes decide for themselves, and hear of each other late.
type sim struct {
	g                 *grant.Grant
	rnd               *rand.Rand
	now               time.Duration // since the window opened
	nodes             []*simNode
	delay             time.Duration // most that a statement takes
	work              time.Duration // most that an install takes
	splitAt, splitFor time.Duration
	hasty             bool // control: nobody waits for what the others say about a claim
	narrow            bool // control: each sees the nodes of its own grant only
	caps              map[manifest.Digest]int
	crowd             string // how a cap was exceeded, when it was first

	most, mostHalf, failures, done int
	early                          bool // somebody went before the canary was settled
}

type simNode struct {
	name    string
	g       *grant.Grant
	half    int
	off     time.Duration // switched off at; 0: never
	fails   bool
	phase   status.Phase
	claimed time.Duration // -1: not
	ends    time.Duration
	heard   map[string]*simSaid
	reason  string
}

type simSaid struct {
	turn.Said
	since time.Duration
	quiet time.Duration // since when it is silent; -1: it is not
	queue []simMessage
}

type simMessage struct {
	at  time.Duration
	say turn.Said
}

const simTick = 200 * time.Millisecond

func newSim(seed uint64, n int) *sim {
	s := &sim{rnd: rand.New(rand.NewPCG(seed, 1)), delay: turn.Settle - 2*simTick, work: 90 * time.Second}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	s.g = grantOf(names...)
	s.g.Deadline = 300
	for i, name := range names {
		x := &simNode{name: name, g: s.g, half: i % 2, phase: status.Scheduled, reason: "WindowClosed", claimed: -1, heard: map[string]*simSaid{}}
		for _, other := range names {
			if other != name {
				x.heard[other] = &simSaid{Said: turn.Said{Phase: status.Scheduled, Reason: "WindowClosed", Checksum: two}, quiet: -1}
			}
		}
		s.nodes = append(s.nodes, x)
	}
	return s
}

func (s *sim) split() bool {
	return s.splitFor > 0 && s.now >= s.splitAt && s.now < s.splitAt+s.splitFor
}

func (s *sim) alive(x *simNode) bool { return x.off == 0 || s.now < x.off }

func (s *sim) reach(a, b *simNode) bool {
	return s.alive(a) && s.alive(b) && !(s.split() && a.half != b.half)
}

// tell sends what a node says now to all that it reaches, each after a delay of its own, in order.
func (s *sim) tell(x *simNode) {
	for _, y := range s.nodes {
		if y != x {
			s.say(x, y)
		}
	}
}

func (s *sim) say(x, y *simNode) {
	o := turn.Said{Phase: x.phase, Reason: x.reason, Checksum: x.g.Checksum}
	if x.claimed >= 0 {
		o.Phase, o.Reason, o.Claims = status.Scheduled, turn.Starting, x.g.Checksum
	}
	h := y.heard[x.name]
	at := s.now + time.Duration(s.rnd.Int64N(int64(s.delay)+1))
	if k := len(h.queue); k > 0 {
		at = max(at, h.queue[k-1].at)
	}
	if s.reach(x, y) {
		h.queue = append(h.queue, simMessage{at, o})
	}
}

func (s *sim) hear(y *simNode) {
	for _, x := range s.nodes {
		h := y.heard[x.name]
		if x == y {
			continue
		}
		if !s.reach(x, y) {
			h.queue = nil
			if h.quiet < 0 {
				h.quiet = s.now
			}
			continue
		}
		if h.quiet >= 0 { // they meet again
			h.quiet = -1
			s.say(x, y)
		}
		for len(h.queue) > 0 && h.queue[0].at <= s.now {
			if say := h.queue[0].say; say.Phase != h.Phase || (say.Reason == turn.Starting) != (h.Reason == turn.Starting) {
				h.since = s.now
			}
			h.Said, h.queue = h.queue[0].say, h.queue[1:]
		}
	}
}

func (s *sim) step(x *simNode) {
	if !s.alive(x) {
		return
	}
	s.hear(x)
	switch {
	case x.phase == status.Installing && s.now >= x.ends:
		x.phase, x.reason = status.Installed, "Installed"
		if x.fails {
			x.phase, x.reason = status.RolledBack, "HealthCheck"
			s.failures++
		}
		s.done++
		s.tell(x)
		return
	case x.phase != status.Scheduled:
		return
	}
	v := turn.View{Self: x.name, Now: opens.Add(s.now), Others: map[string]turn.Said{}, Claimed: x.claimed >= 0, ClaimFor: s.now - x.claimed}
	if s.hasty {
		v.Claimed, v.ClaimFor = true, turn.Settle
	}
	for name, h := range x.heard {
		o := h.Said
		o.For = s.now - h.since
		if o.Silent = h.quiet >= 0; o.Silent {
			o.Quiet = s.now - h.quiet
		}
		v.Others[name] = o
	}
	was, reason := x.claimed, x.reason
	if s.caps != nil {
		v.Caps = s.caps
	}
	if s.narrow { // who follows another grant is not looked at
		maps.DeleteFunc(v.Others, func(name string, _ turn.Said) bool { _, named := x.g.Place(name); return !named })
	}
	switch d := turn.Decide(x.g, v); d.Step {
	case turn.Wait:
		x.claimed, x.reason = -1, d.Reason
	case turn.Claim:
		if x.claimed < 0 {
			x.claimed = s.now
		}
	case turn.Go:
		if i, _ := x.g.Place(x.name); i >= x.g.First && x.g == s.g {
			for _, c := range s.nodes[:s.g.First] {
				s.early = s.early || s.alive(c) && c.off == 0 && !s.splitEver() && (c.phase == status.Scheduled || c.phase == status.Installing)
			}
		}
		x.claimed, x.phase, x.reason = -1, status.Installing, "InstallerRunning"
		x.ends = s.now + time.Second + time.Duration(s.rnd.Int64N(int64(s.work)))
	}
	if x.claimed != was || x.reason != reason || x.phase == status.Installing {
		s.tell(x)
	}
}

func (s *sim) splitEver() bool { return s.splitFor > 0 }

func (s *sim) run(until time.Duration) {
	for ; s.now < until && len(s.unsettled()) > 0; s.now += simTick {
		for _, i := range s.rnd.Perm(len(s.nodes)) {
			s.step(s.nodes[i])
			s.count()
		}
	}
}

func (s *sim) count() {
	var all int
	var half [2]int
	for _, x := range s.nodes {
		if x.phase == status.Installing && s.alive(x) {
			all++
			half[x.half]++
		}
	}
	s.most, s.mostHalf = max(s.most, all), max(s.mostHalf, slices.Max(half[:]))
	for _, x := range s.nodes {
		if x.phase == status.Installing && s.alive(x) && all > x.g.MaxUnavailable && s.crowd == "" {
			s.crowd = fmt.Sprintf("%d at a time at %s, and %s may be one of %d", all, s.now, x.name, x.g.MaxUnavailable)
		}
	}
}

// unsettled are the nodes that are on and have neither succeeded nor failed.
func (s *sim) unsettled() (names []string) {
	for _, x := range s.nodes {
		if s.alive(x) && (x.phase == status.Scheduled || x.phase == status.Installing) {
			names = append(names, x.name)
		}
	}
	return names
}

// Whatever order things happen in: never more than MaxUnavailable at it, the canary first, nobody left behind because
// another one is switched off, and no more failures than the budget and those that were at it when it was used up.
func TestSite(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "nodes")
		s := newSim(rapid.Uint64().Draw(t, "seed"), n)
		s.g.First = rapid.IntRange(0, n).Draw(t, "first")
		s.g.MaxUnavailable = rapid.IntRange(1, 4).Draw(t, "max")
		s.g.MaxFailures = rapid.IntRange(0, 3).Draw(t, "failures")
		var bad int
		for _, x := range s.nodes {
			if rapid.IntRange(0, 4).Draw(t, "off") == 0 {
				x.off = time.Duration(rapid.IntRange(1, 1200).Draw(t, "at")) * time.Second
			}
			if x.fails = rapid.IntRange(0, 5).Draw(t, "fails") == 0; x.fails {
				bad++
			}
		}
		if rapid.Bool().Draw(t, "split") {
			s.splitAt = time.Duration(rapid.IntRange(0, 600).Draw(t, "from")) * time.Second
			s.splitFor = time.Duration(rapid.IntRange(1, 600).Draw(t, "for")) * time.Second
		}
		s.run(2*time.Hour - time.Second)
		if s.mostHalf > s.g.MaxUnavailable || s.splitFor == 0 && s.most > s.g.MaxUnavailable || s.most > 2*s.g.MaxUnavailable {
			t.Fatalf("%d at a time, %d in one half: at most %d", s.most, s.mostHalf, s.g.MaxUnavailable)
		}
		if s.early {
			t.Fatal("the canary did not go first")
		}
		halves := 1
		if s.splitFor > 0 {
			halves = 2 // the budget of each is its own until they hear of each other
		}
		if most := halves * (s.g.MaxFailures + s.g.MaxUnavailable); s.failures > most {
			t.Fatalf("%d failures: at most %d", s.failures, most)
		}
		if left := s.unsettled(); bad <= s.g.MaxFailures && len(left) > 0 {
			t.Fatalf("%v are left after %s", left, s.now)
		}
	})
}

// grants divides the nodes among grants of their own, of these caps.
func (s *sim) grants(caps ...int) {
	s.caps = map[manifest.Digest]int{}
	for k, most := range caps {
		g := *s.g
		g.Policy, g.Checksum, g.MaxUnavailable, g.First = fmt.Sprintf("p%d", k), manifest.DigestOf([]byte{byte(k)}), most, 0
		g.Starts = nil
		for i, x := range s.nodes {
			if i%len(caps) == k {
				g.Starts = append(g.Starts, s.g.Starts[i])
				x.g = &g
			}
		}
		s.caps[g.Checksum] = most
	}
	for _, x := range s.nodes {
		for _, y := range s.nodes {
			if x != y {
				x.heard[y.name].Checksum = y.g.Checksum
			}
		}
	}
}

// Whatever grants a site holds: never more at it than the grant of anybody who is at it allows, and all get their turn.
func TestGrantsBesideEachOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 7).Draw(t, "nodes")
		s := newSim(rapid.Uint64().Draw(t, "seed"), n)
		s.grants(rapid.SliceOfN(rapid.IntRange(1, 3), 1, min(n, 4)).Draw(t, "caps")...)
		for _, x := range s.nodes {
			if rapid.IntRange(0, 4).Draw(t, "off") == 0 {
				x.off = time.Duration(rapid.IntRange(1, 1200).Draw(t, "at")) * time.Second
			}
		}
		s.run(2*time.Hour - time.Second)
		if s.crowd != "" {
			t.Fatal(s.crowd)
		}
		if left := s.unsettled(); len(left) > 0 {
			t.Fatalf("%v are left after %s", left, s.now)
		}
	})
}

// The control: when each looks at its own grant only, two grants of one at a time make two.
func TestGrantsBesideEachOtherControl(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		s := newSim(seed, 6)
		s.grants(1, 1)
		s.narrow = true
		s.run(10 * time.Minute)
		if s.crowd != "" {
			return
		}
	}
	t.Error("two grants of one each never made two: the simulation shows nothing")
}

// Controls: without the wait after a claim too many go at once, and without a budget all that can fail do.
func TestControls(t *testing.T) {
	t.Parallel()
	var crowded bool
	for seed := range uint64(20) {
		s := newSim(seed, 8)
		s.g.First, s.hasty = 0, true
		s.run(5 * time.Minute)
		crowded = crowded || s.most > s.g.MaxUnavailable
	}
	if !crowded {
		t.Error("claims that nobody waits for do no harm: the simulation shows nothing")
	}
	for _, c := range []struct{ budget, want int }{{1, 2}, {12, 12}} {
		s := newSim(1, 12)
		s.g.MaxFailures = c.budget
		for _, x := range s.nodes {
			x.fails = true
		}
		s.run(2*time.Hour - time.Second)
		if s.failures != c.want {
			t.Errorf("%d failures with a budget of %d: want %d", s.failures, c.budget, c.want)
		}
	}
}
