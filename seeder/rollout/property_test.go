package rollout

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/window"
)

// TestProperties runs random rollouts. At every step: a place is kept, no batch is larger than it may be or takes more of
// a site than may be out of service, grants grow and name nobody twice, a pause lets nothing start, and the same step of
// the same state, as it was or through JSON, is the same.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string, least, most int) int { return rapid.IntRange(least, most).Draw(t, name) }
		r := policy.Rollout{Batch: policy.Size{Count: n("batch", 0, 4)}, BatchDelay: time.Duration(n("delay", 0, 20)) * time.Minute,
			MaxUnavailable: policy.Size{Count: n("cap", 1, 3)}, FromStarted: rapid.Bool().Draw(t, "fromStarted"), Strict: rapid.Bool().Draw(t, "strict"),
			Budget: policy.Budget{Max: policy.Size{Count: n("max", 1, 3)}, Rollback: rapid.Bool().Draw(t, "rollback")}}
		if rapid.Bool().Draw(t, "canary") {
			r.Canary = &policy.Canary{Soak: time.Duration(n("soak", 0, 60)) * time.Minute, Manual: rapid.Bool().Draw(t, "manual")}
		}
		x := &stage{now: day, s: New(day, "pos", 1, nil), w: World{Revision: 1, Policy: testPolicy(r), Sites: map[string]Site{}}, shift: map[string]time.Duration{"s2": 30 * time.Minute}}
		for i := range n("nodes", 1, 12) {
			x.fact(fmt.Sprintf("s%d", i%3), fmt.Sprintf("n%d", i)).Canary = i == 0
		}
		serials := map[string]uint64{}
		var order []place
		said := []Said{SaidWaiting, SaidDeferred, SaidStarted, SaidRebooting, SaidInstalled, SaidRolledBack, SaidFailed, SaidUnverified, SaidTakenBack}
		step := func() {
			was := x.s
			twin, _ := was.Encode()
			if len(was.Sites) == 0 { // before the first step
				twin = nil
			}
			out := x.step(t)
			if twin != nil {
				y, err := Decode(twin)
				if err != nil {
					t.Fatal(err)
				}
				s, again := Step(x.now, y, x.w)
				a, _ := s.Encode()
				b, _ := x.s.Encode()
				if !bytes.Equal(a, b) || fmt.Sprint(len(again)) != fmt.Sprint(len(out)) {
					t.Fatalf("the same step is another one:\n%s\n%s", a, b)
				}
			}
			for _, a := range out {
				if g := a.Grant; g != nil {
					if g.Serial <= serials[g.Site] {
						t.Fatalf("serial %d of %s after %d", g.Serial, g.Site, serials[g.Site])
					}
					serials[g.Site] = g.Serial
					if x.s.paused() && g.Halted == "" {
						t.Fatal("a grant while it is paused")
					}
					if i := slices.IndexFunc(g.Starts, func(s grant.Start) bool { return s.Batch > 0 }); i >= 0 && !x.s.Canary.Passed {
						t.Fatal("a grant before the canary has passed")
					}
					if i := slices.IndexFunc(g.Starts, func(s grant.Start) bool { return x.fact(g.Site, s.Node).Quarantined }); i >= 0 {
						t.Fatal("a place for a node under quarantine")
					}
				}
			}
			for site, sent := range x.s.Sites {
				if x.s.paused() && !x.s.Final() && sent.Serial != 0 && !sent.Halted && !overAll(&x.s, site) {
					t.Fatalf("%s may start although it is paused: %s", site, x.s.Reason)
				}
			}
			if len(order) > len(x.s.Nodes) {
				t.Fatal("a place is gone")
			}
			for i, p := range order {
				if got := (place{x.s.Nodes[i].Site, x.s.Nodes[i].Name}); got != p {
					t.Fatalf("place %d was of %v and is of %v", i, p, got)
				}
			}
			order = nil
			inBatch := map[string]int{}
			for _, n := range x.s.Nodes {
				order = append(order, place{n.Site, n.Name})
				if k := fmt.Sprint(n.Site, n.Cohort, n.Batch); n.Batch > 0 && !r.Batch.IsZero() {
					if inBatch[k]++; inBatch[k] > r.MaxUnavailable.Count {
						t.Fatalf("%d nodes of %s in batch %d", inBatch[k], n.Site, n.Batch)
					}
				}
			}
			if x.s.paused() && x.s.Phase != Paused && x.s.Phase != RollingBack && x.s.Phase != Suspended {
				t.Fatalf("paused, and %s", x.s.Phase)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"step": func(t *rapid.T) { x.now = x.now.Add(time.Duration(n("minutes", 0, 90)) * time.Minute); step() },
			"say": func(t *rapid.T) {
				f := &x.w.Nodes[n("node", 0, len(x.w.Nodes)-1)]
				f.Said, f.Silent = rapid.SampledFrom(said).Draw(t, "said"), rapid.Bool().Draw(t, "silent")
				f.Quarantined, f.Staged = n("quarantined", 0, 9) == 0, n("staged", 0, 4) > 0
				f.Reason = rapid.SampledFrom([]string{"", "WindowClosed", "LowDisk"}).Draw(t, "reason")
				step()
			},
			"person": func(t *rapid.T) {
				switch n("what", 0, 4) {
				case 0:
					x.s, _ = x.s.Pause(x.now, "ann", "x")
				case 1:
					x.s, _ = x.s.Resume(x.now, "ann", "x")
				case 2:
					x.s, _ = x.s.Promote("ann", "x")
				case 3:
					x.s, _, _ = x.s.Retry("")
				case 4:
					x.fact(fmt.Sprintf("s%d", n("site", 0, 3)), fmt.Sprintf("late%d", n("late", 0, 3)))
				}
				step()
			},
		})
	})
}

func overAll(s *State, site string) bool {
	var nodes []*Node
	for i := range s.Nodes {
		if s.Nodes[i].Site == site {
			nodes = append(nodes, &s.Nodes[i])
		}
	}
	return over(nodes)
}

// Silent nodes never block: whatever they are, every batch is released within the windows that the others take.
func TestSilentNeverBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &stage{now: day, s: New(day, "pos", 1, nil), w: World{Revision: 1, Sites: map[string]Site{}, Policy: testPolicy(policy.Rollout{
			Batch: policy.Size{Count: rapid.IntRange(1, 4).Draw(t, "batch")}, MaxUnavailable: policy.Size{Count: 2}, ProgressDeadline: time.Hour})}, always: true}
		for i := range rapid.IntRange(1, 12).Draw(t, "nodes") {
			f := x.fact(fmt.Sprintf("s%d", i%3), fmt.Sprintf("n%d", i))
			if f.Silent = rapid.Bool().Draw(t, "silent"); !f.Silent {
				f.Said = SaidInstalled
			}
		}
		for range 40 {
			x.step(t)
			x.now = x.now.Add(time.Minute)
		}
		if x.s.Phase != Done {
			t.Fatalf("%s: %d of %d settled", x.s.Phase, x.s.settled(), len(x.s.Nodes))
		}
	})
}

// What is read is either refused, or steps can be made of it.
func FuzzDecode(f *testing.F) {
	x := &stage{now: day, s: New(day, "pos", 1, nil), w: World{Revision: 1, Sites: map[string]Site{}, Policy: testPolicy(policy.Rollout{Batch: policy.Size{Count: 1}, Canary: &policy.Canary{}})}}
	for _, n := range []string{"a", "b", "c"} {
		x.fact("s1", n).Canary = n == "a"
	}
	x.fact("s1", "a").Said = SaidInstalled
	for range 4 {
		x.step(f)
		x.now = x.now.Add(time.Hour)
		b, _ := x.s.Encode()
		f.Add(b)
	}
	f.Add([]byte(`{"policy":"p","revision":1,"phase":"Running","nodes":[{"site":"s","node":"n","cohort":0,"batch":2}],"cohorts":[{"batches":1,"batch":1,"at":[]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		once, err := s.Encode()
		if err != nil {
			return // a time that JSON cannot write
		}
		again, err := Decode(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s\n%v", once, twice, err)
		}
		w := x.w
		w.Revision = s.Revision
		Step(x.now, s, w)
		s.Retry("")
		s.Resume(x.now, "ann", "x")
		batch.Project(x.now, s.Pace(batch.PaceOf(w.Policy)), s.Ahead(func(string) *window.Rules { return nil }))
	})
}
