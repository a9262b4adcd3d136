package rollout

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/policy"
)

// fleet is a fleet in virtual time: sites whose WAN is cut now and then, nodes that are off, that fail, that are lost in a
// reboot, that defer. Sites do what their newest grant lets them, and the centre sees what connected sites tell it.
type fleet struct {
	t     *testing.T
	r     *rand.Rand
	x     *stage
	sites []*simSite
	nodes map[place]*simNode

	paused  time.Time // since when no grant lets anything start
	steps   int
	starts  int
	offline int // of them with the WAN cut
	failed  int
	grants  int
	pauses  int
}

type simSite struct {
	name  string
	nodes []*simNode
	cut   time.Time    // the WAN is cut until then
	board *grant.Grant // what it would be given
	g     *grant.Grant // what it has
	most  int          // that were at it at once
}

type simNode struct {
	name   string
	off    time.Time // until then; it is silent
	never  bool      // it never comes back
	defers bool      // it always has a reason of its own
	fails  bool
	lost   bool
	ends   time.Time // of what it is doing
	said   Said
	told   Said // what the centre has heard
}

// seeds is how many fleets are simulated.
func seeds(t *testing.T) int {
	text := os.Getenv("PATCHMESH_SEEDS")
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("PATCHMESH_SEEDS: %v", err)
	}
	return n
}

// TestRolloutInVirtualTime rolls out over a whole fleet and looks at every start: in its window, by a grant, after the
// canary has soaked, never more of a site at once than may be, in the order of the batches where the WAN works; and at
// the end nobody waits who could have gone. PATCHMESH_LONG=1: 10,000 nodes in 1,200 sites. PATCHMESH_SEEDS: so many fleets.
func TestRolloutInVirtualTime(t *testing.T) {
	sites, nodes := 72, 600
	if os.Getenv("PATCHMESH_LONG") != "" {
		sites, nodes = 1200, 10_000
	}
	for seed := range seeds(t) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { simulate(t, uint64(seed+1), sites, nodes) })
	}
}

func simulate(t *testing.T, seed uint64, sites, nodes int) {
	f := &fleet{t: t, r: rand.New(rand.NewPCG(seed, 5)), nodes: map[place]*simNode{}}
	p := testPolicy(policy.Rollout{Batch: policy.Size{Percent: 5}, BatchDelay: 15 * time.Minute, MaxUnavailable: policy.Size{Percent: 25},
		Canary: &policy.Canary{Soak: 6 * time.Hour}, Budget: policy.Budget{Max: policy.Size{Percent: 2}, MinSamples: 20, MaxPerSite: 1},
		ProgressDeadline: time.Hour, BySite: seed%4 == 3, FromStarted: seed%5 == 4})
	f.x = &stage{now: day, s: New(day, "pos", 1, nil), w: World{Revision: 1, Policy: p, Sites: map[string]Site{}}, shift: map[string]time.Duration{}}
	for i := range sites {
		s := &simSite{name: fmt.Sprintf("s%04d", i)}
		f.sites = append(f.sites, s)
		f.x.shift[s.name] = time.Duration(i%4) * time.Hour
		f.x.w.Sites[s.name] = Site{}
	}
	bad := 80 // one of so many nodes fails
	if seed%2 == 0 {
		bad = 40 // more than the budget
	}
	for i := range nodes {
		s := f.sites[i%sites]
		n := &simNode{name: fmt.Sprintf("n%02d", i/sites), said: SaidWaiting, told: SaidWaiting, fails: f.r.IntN(bad) == 0, lost: f.r.IntN(400) == 0,
			never: f.r.IntN(200) == 0, defers: f.r.IntN(150) == 0}
		if f.r.IntN(20) == 0 {
			n.off = day.Add(time.Duration(f.r.IntN(5*24)) * time.Hour)
		}
		canary := i < max(3, nodes/100)
		if canary { // a canary that is well: what a failing one does stands in a transcript
			n.fails, n.lost, n.never, n.defers, n.off = false, false, false, false, time.Time{}
		}
		s.nodes = append(s.nodes, n)
		f.nodes[place{s.name, n.name}] = n
		f.x.w.Nodes = append(f.x.w.Nodes, Fact{Site: s.name, Node: n.name, Said: SaidWaiting, Staged: true, Canary: canary})
	}
	var done time.Time
	end := day.AddDate(0, 0, 30)
	for ; f.x.now.Before(end); f.x.now = f.x.now.Add(f.tick()) {
		f.weather()
		f.centre()
		f.work()
		if f.x.s.Phase == Done && done.IsZero() {
			done = f.x.now
			end = done.AddDate(0, 0, 4) // who was off comes back
		}
	}
	if done.IsZero() {
		t.Fatalf("not done in 30 days: %s %s, %d of %d settled", f.x.s.Phase, f.x.s.Reason, f.x.s.settled(), nodes)
	}
	f.after()
	t.Logf("%d nodes, %d sites: done after %s; %d steps, %d grants, %d starts, %d of them with the WAN cut, %d failed, %d pauses",
		nodes, sites, done.Sub(day), f.steps, f.grants, f.starts, f.offline, f.failed, f.pauses)
	if bad == 40 && f.pauses == 0 {
		t.Error("the budget stopped nothing")
	}
	if f.offline == 0 {
		t.Error("nothing started with the WAN cut: the simulation does not show what it is for")
	}
}

// tick is short while a window is open.
func (f *fleet) tick() time.Duration {
	if h := f.x.now.Hour(); h >= 2 && h < 7 {
		return 2 * time.Minute
	}
	return 30 * time.Minute
}

// weather cuts WANs and brings them back.
func (f *fleet) weather() {
	for _, s := range f.sites {
		if s.cut.Before(f.x.now) && f.r.IntN(2000) == 0 {
			s.cut = f.x.now.Add(time.Duration(1+f.r.IntN(30)) * time.Hour)
		}
	}
}

// centre lets the rollout look at what connected sites tell, and gives them their grants.
func (f *fleet) centre() {
	bySite := map[string]*simSite{}
	for _, s := range f.sites {
		bySite[s.name] = s
	}
	for i := range f.x.w.Nodes {
		fact := &f.x.w.Nodes[i]
		n := f.nodes[place{fact.Site, fact.Node}]
		heard := !bySite[fact.Site].cut.After(f.x.now) && !n.off.After(f.x.now) && !n.never
		fact.Silent = !heard
		if heard {
			n.told = n.said
		}
		fact.Said = n.told
		if fact.Reason = ""; n.told == SaidDeferred {
			fact.Reason = "LowDisk"
		}
	}
	var out []Action
	if f.steps++; f.steps%50 == 0 {
		out = f.x.step(f.t) // through JSON, too
	} else {
		f.windows()
		f.x.s, out = Step(f.x.now, f.x.s, f.x.w)
	}
	for _, a := range out {
		if a.Event != nil && a.Event.Name == "paused" {
			f.paused, f.pauses = f.x.now, f.pauses+1
		}
		if a.Grant == nil {
			continue
		}
		f.grants++
		bySite[a.Grant.Site].board = a.Grant
	}
	for _, s := range f.sites {
		if g := s.board; g != nil && !s.cut.After(f.x.now) && (s.g == nil || g.Serial > s.g.Serial) {
			s.g = g
		}
	}
	if f.x.s.Phase == Paused && f.x.now.Sub(f.paused) >= 20*time.Minute { // a person looks at it
		var err error
		if f.x.s, err = f.x.s.Resume(f.x.now, "ann", "known fault"); err != nil {
			f.t.Fatal(err)
		}
		f.paused = time.Time{}
	}
}

func (f *fleet) windows() {
	for site := range f.x.w.Sites {
		opens := f.x.now.Truncate(24 * time.Hour).Add(2*time.Hour + f.x.shift[site])
		if !f.x.now.Before(opens.Add(2 * time.Hour)) {
			opens = opens.Add(24 * time.Hour)
		}
		f.x.w.Sites[site] = Site{Known: true, Opens: opens, Closes: opens.Add(2 * time.Hour)}
	}
}

func (n *simNode) up(now time.Time) bool { return !n.never && !n.off.After(now) }
func (n *simNode) busy() bool            { return n.said == SaidStarted || n.said == SaidRebooting }
func (n *simNode) failed() bool          { return n.said == SaidRolledBack }
func count(ns []*simNode, is func(*simNode) bool) (c int) {
	for _, n := range ns {
		if is(n) {
			c++
		}
	}
	return c
}

// work is what happens at the sites.
func (f *fleet) work() {
	now := f.x.now
	for _, s := range f.sites {
		for _, n := range s.nodes {
			if !n.busy() || now.Before(n.ends) {
				continue
			}
			switch {
			case n.lost:
				n.said, n.never = SaidRebooting, true
			case n.fails:
				n.said = SaidRolledBack
				f.failed++
			default:
				n.said = SaidInstalled
			}
		}
		if s.g == nil || s.g.Halted != "" || now.Before(grant.Time(s.g.Opens)) || !now.Before(grant.Time(s.g.Expires)) {
			continue
		}
		for i, st := range s.g.Starts {
			n := f.nodes[place{s.name, st.Node}]
			if n.said != SaidWaiting && n.said != SaidDeferred || !n.up(now) || now.Before(grant.Time(st.After)) ||
				count(s.nodes, (*simNode).failed) > s.g.MaxFailures ||
				count(s.nodes, func(n *simNode) bool { return n.busy() && !n.never }) >= s.g.MaxUnavailable {
				continue
			}
			if i >= s.g.First && slices.ContainsFunc(s.g.Starts[:s.g.First], func(st grant.Start) bool {
				c := f.nodes[place{s.name, st.Node}]
				return c.up(now) && c.said != SaidInstalled && c.said != SaidDeferred
			}) {
				continue
			}
			if n.defers {
				n.said = SaidDeferred
				continue
			}
			f.start(s, n, st)
		}
	}
}

// start checks that the node may.
func (f *fleet) start(s *simSite, n *simNode, st grant.Start) {
	now, cut := f.x.now, s.cut.After(f.x.now)
	bad := func(format string, a ...any) {
		f.t.Helper()
		f.t.Fatalf("%s: %s/%s, batch %d, starts %s", now, s.name, n.name, st.Batch, fmt.Sprintf(format, a...))
	}
	c := f.x.s.Cohorts[f.x.s.Nodes[slices.IndexFunc(f.x.s.Nodes, func(x Node) bool { return x.Site == s.name && x.Name == n.name })].Cohort]
	opens := now.Truncate(24 * time.Hour).Add(2*time.Hour + f.x.shift[s.name])
	switch {
	case now.Before(opens) || !now.Before(opens.Add(2*time.Hour)):
		bad("outside its window")
	case st.Batch > 0 && (!f.x.s.Canary.Passed || now.Before(f.x.s.Canary.Settled.Add(6*time.Hour))):
		bad("before the canary has soaked")
	case !cut && st.Batch > c.Batch:
		bad("before its batch: %d is released", c.Batch)
	case !cut && !f.paused.IsZero():
		bad("although the rollout is paused since %s", f.paused)
	}
	n.said = SaidStarted
	n.ends = now.Add(time.Duration(4+f.r.IntN(12)) * time.Minute)
	f.starts++
	if cut {
		f.offline++
	}
	at := count(s.nodes, func(n *simNode) bool { return n.busy() && !n.never })
	if s.most = max(s.most, at); at > max(1, len(s.nodes)/4) {
		bad("and %d of %d are at it", at, len(s.nodes))
	}
}

// after is what has to be true at the end.
func (f *fleet) after() {
	seen := map[place]bool{}
	perBatch, perSite := map[[2]int]int{}, map[string]int{}
	for _, n := range f.x.s.Nodes {
		p := place{n.Site, n.Name}
		if seen[p] {
			f.t.Fatalf("%v has two places", p)
		}
		seen[p] = true
		perBatch[[2]int{n.Cohort, n.Batch}]++
		perSite[fmt.Sprint(n.Site, n.Cohort, n.Batch)]++
	}
	if len(seen) != len(f.nodes) {
		f.t.Fatalf("%d of %d nodes have a place", len(seen), len(f.nodes))
	}
	if !f.x.w.Policy.Rollout.BySite {
		for k, n := range perBatch {
			if most := len(f.nodes) * 5 / 100; k[1] > 0 && n > most {
				f.t.Errorf("cohort %d, batch %d has %d nodes: at most %d", k[0], k[1], n, most)
			}
		}
		for _, n := range f.x.s.Nodes {
			size := 0
			for _, s := range f.sites {
				if s.name == n.Site {
					size = len(s.nodes)
				}
			}
			if got := perSite[fmt.Sprint(n.Site, n.Cohort, n.Batch)]; n.Batch > 0 && got > max(1, size/4) {
				f.t.Fatalf("site %s has %d of %d nodes in batch %d", n.Site, got, size, n.Batch)
			}
		}
	}
	for _, s := range f.sites {
		stopped := count(s.nodes, (*simNode).failed) > 1 || s.cut.After(f.x.now) // by its own budget
		for _, n := range s.nodes {
			if n.up(f.x.now.Add(-72*time.Hour)) && !n.defers && !stopped && n.said == SaidWaiting {
				f.t.Errorf("%s/%s was never let start", s.name, n.name)
			}
		}
	}
}
