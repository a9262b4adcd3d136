package swarm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A whole site in virtual time: real Swarms, the real table of leases, and models of everything else. A run follows
// from its seed, which every failure prints; PATCHMESH_SEED=n replays it. The full run is "make sim SEEDS=1000", a
// short one is part of "make test".
//
//	sim_clock_test.go       virtual time
//	sim_lan_test.go         lines of the nodes, both ways, shared by their flows
//	sim_wan_test.go         the line to the data centre: delay, cuts, stalls
//	sim_seeder_test.go      the seeder: leases and chunks
//	sim_node_test.go        what package node does around a Swarm
//	sim_evil_test.go        nodes that mean harm
//	sim_faults_test.go      what breaks, and when
//	sim_invariants_test.go  what must hold in every run
//	sim_scenarios_test.go   the cases
//	sim_controls_test.go    rules switched off: their invariants must fail
//	sim_figures_test.go     R_lan, A_lan, E_wan
var (
	simSeeds = envInt("PATCHMESH_SEEDS", shortSeeds)
	simFirst = uint64(envInt("PATCHMESH_SEED", 1))
)

// shortSeeds is how many runs of each case are part of "make test".
const shortSeeds = 4

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return def
}

const mbit = 125_000 // bytes a second

// layout is what a site looks like before anything breaks.
type layout struct {
	nodes   int
	bytes   int64
	wan     int64 // bytes a second
	lan     int64 // of each node, each way
	rtt     time.Duration
	slice   int64                              // what a line sends of one flow before the next has its turn
	store   time.Duration                      // to verify and write a chunk
	cfg     Config                             // of every node
	prepare func(*sim)                         // before the first node boots
	evil    func(i int) evil                   // nil: all are honest
	mayDup  func(*sim) int64                   // bytes that may cross the WAN twice
	kinder  func(n *simNode, ev Event) []Event // positive controls: what a node hears instead
}

// sim is one run.
type sim struct {
	t    testing.TB
	seed uint64
	l    layout
	rng  *rand.Rand
	clock
	nodes  []*simNode
	sizes  []int64
	bundle Bundle
	wan    simWAN
	seeder simSeeder
	checks
	awaited int // faults that have not happened yet, or are not over
}

func newSim(t testing.TB, l layout, seed uint64) *sim {
	s := &sim{t: t, seed: seed, l: l, rng: rand.New(rand.NewPCG(seed, 42)), clock: clock{now: time.Unix(0, 0)}, bundle: Bundle{1}}
	s.sizes = append(s.sizes, 30<<10) // the index
	for left := l.bytes; left > 0; {
		size := min(s.chunkSize(), left)
		s.sizes = append(s.sizes, size)
		left -= size
	}
	s.spoilt = map[[2]Peer]int{}
	s.crossed = make([]int64, len(s.sizes))
	s.wan.init(s)
	s.seeder.init(s)
	for i := range l.nodes {
		n := &simNode{s: s, i: i, id: Peer(fmt.Sprintf("peer-%d-%d", seed, i)), have: make([]bool, len(s.sizes)), wants: true}
		n.up.rate, n.down.rate = l.lan, l.lan
		if l.evil != nil {
			n.evil = l.evil(i)
		}
		s.nodes = append(s.nodes, n)
	}
	if l.prepare != nil {
		l.prepare(s)
	}
	for _, n := range s.nodes {
		if !n.absent {
			n.boot(s.within(50 * time.Millisecond))
		}
	}
	s.mend()
	return s
}

// chunkSize is drawn as FastCDC cuts: hardly a chunk below 256 KiB, few above 512 KiB, a mean of about 300 KiB.
func (s *sim) chunkSize() int64 {
	if s.rng.IntN(100) < 15 {
		return 64<<10 + s.rng.Int64N(192<<10)
	}
	return min(256<<10+int64(s.rng.ExpFloat64()*85*1024), 1<<20)
}

// within draws a duration below d.
func (s *sim) within(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

// run lets time pass until the site is complete, and says how long that took. A run that does not end fails.
func (s *sim) run(limit time.Duration) (took time.Duration, ok bool) {
	start := s.now
	for s.next() {
		switch {
		case s.now.Sub(start) > limit:
			s.violated("not complete after %v:%s", limit, s.state())
			return limit, false
		case len(s.bad) > 8:
			return s.now.Sub(start), false
		case s.awaited == 0 && s.complete():
			return s.now.Sub(start), true
		}
	}
	s.violated("nothing is left to happen:%s", s.state())
	return s.now.Sub(start), false
}

// complete: every node that is honest, alive and wants the bundle has it.
func (s *sim) complete() bool {
	for _, n := range s.nodes {
		if n.wants && n.evil == nil && !n.absent && (!n.alive || !n.done) {
			return false
		}
	}
	return true
}

func (s *sim) state() string {
	var b strings.Builder
	for _, n := range s.nodes {
		fmt.Fprintf(&b, "\n  %d: alive %v frozen %v holds %d of %d, %d sessions", n.i, n.alive, n.frozen, n.count(), len(s.sizes), len(n.sess))
		if n.sw != nil {
			fmt.Fprintf(&b, ", uplink %q, leads %v, link %d, %d requests", n.sw.Uplink(), n.sw.Leads(), n.sw.uplink.link, len(n.sw.reqs))
		}
	}
	return b.String()
}

// total is the size of the bundle with its index.
func (s *sim) total() (n int64) {
	for _, z := range s.sizes {
		n += z
	}
	return n
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func worst(v []float64) float64 { return slices.Max(v) }
func least(v []float64) float64 { return slices.Min(v) }
