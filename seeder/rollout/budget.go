package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/batch"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Tally counts what the budget looks at: nodes that have started in this rollout and settled, and those that failed.
func (s *State) Tally() Tally {
	t := s.Past
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Before || n.Started.IsZero() || n.Result == "" {
			continue
		}
		t.Of++
		if n.Result.Failed() {
			t.Failed++
		}
	}
	return t
}

// Allowed is how many of so many nodes may fail. ok is false while a percentage says nothing yet.
func Allowed(b policy.Budget, settled int) (n int, ok bool) {
	most, least := b.Max, b.MinSamples
	if most.IsZero() {
		most = policy.Size{Percent: policy.DefaultBudget}
	}
	if least == 0 {
		least = policy.DefaultMinSamples
	}
	return max(1, most.Of(settled)), most.Percent == 0 || settled >= least
}

// judge stops the rollout when more nodes have failed than may. What a person knew of who let it go on does not stop it
// again; one more failure does.
func (x *stepper) judge() {
	if x.halted() != "" {
		return
	}
	b := x.r.Budget
	b.MinSamples = min(cmp.Or(b.MinSamples, policy.DefaultMinSamples), max(1, len(x.Nodes)))
	t := x.Tally()
	allowed, ok := Allowed(b, t.Of)
	if !ok || t.Failed <= allowed || t.Failed <= x.Accepted {
		return
	}
	if x.r.Budget.Rollback {
		x.Back = true
		x.pause("budget", "%d of %d nodes failed, %d may: the nodes of this revision go back", t.Failed, t.Of, allowed)
		return
	}
	x.pause("budget", "%d of %d nodes failed, %d may", t.Failed, t.Of, allowed)
}

// sendBack asks for the nodes of this revision to go back, the newest first, of each site no more at a time than may be
// out of service.
func (x *stepper) sendBack() {
	if !x.Back || x.w.Policy.Suspend {
		return
	}
	busy, size := map[string]int{}, map[string]int{}
	var list []*Node
	for i := range x.Nodes {
		n := &x.Nodes[i]
		size[n.Site]++
		f := x.facts[place{n.Site, n.Name}]
		switch {
		case n.Result != Installed || n.Before || f == nil:
		case !n.SentBack.IsZero() && x.now.Before(n.SentBack.Add(x.progress())):
			busy[n.Site]++
		case !f.Silent && x.w.Sites[n.Site].open(x.now): // a second time too: the order may have been lost with the seeder
			list = append(list, n)
		}
	}
	slices.SortStableFunc(list, func(a, b *Node) int { return b.Settled.Compare(a.Settled) })
	bySite := map[string][]string{}
	for _, n := range list {
		if busy[n.Site] < batch.AtOnce(x.r, size[n.Site]) {
			busy[n.Site]++
			n.SentBack = x.now
			bySite[n.Site] = append(bySite[n.Site], n.Name)
		}
	}
	for _, site := range sorted(bySite) {
		slices.Sort(bySite[site])
		x.out = append(x.out, Action{Back: &Back{Site: site, Nodes: bySite[site]}})
	}
}

// goingBack: some node still has what it is to give back.
func (x *stepper) goingBack() bool {
	return slices.ContainsFunc(x.Nodes, func(n Node) bool { return n.Result == Installed && !n.Before })
}

func (s *State) last() *Pause {
	if len(s.Pauses) == 0 {
		return &Pause{}
	}
	return &s.Pauses[len(s.Pauses)-1]
}

func (s *State) paused() bool { return len(s.Pauses) > 0 && s.last().Resumed.IsZero() }

// halted is why nothing may start; "" if it may.
func (x *stepper) halted() string {
	switch {
	case x.w.Policy.Suspend:
		return "the policy is suspended"
	case x.paused():
		return "paused by " + x.last().By + ": " + x.last().Reason
	}
	return ""
}

func (x *stepper) pause(by, format string, a ...any) {
	x.stop(x.now, by, fmt.Sprintf(format, a...))
	x.tell("paused", "critical", "%s", x.last().Reason)
}

func (s *State) stop(now time.Time, by, reason string) {
	if len(s.Pauses) == maxPauses {
		s.Pauses = slices.Delete(s.Pauses, 1, 2) // the first says how it began
	}
	s.Pauses = append(s.Pauses, Pause{At: now.UTC().Truncate(time.Second), By: by, Reason: reason})
}

// Pause stops new starts; what runs finishes.
func (s State) Pause(now time.Time, who, reason string) (State, error) {
	if s.Final() || s.paused() {
		return s, s.conflict("it cannot be paused")
	}
	s = s.clone()
	s.stop(now, who, reason)
	s.Phase, s.Reason = Paused, reason
	return s, nil
}

// Resume lets it go on. The budget goes on too: the next failure above it stops it again.
func (s State) Resume(now time.Time, who, why string) (State, error) {
	if s.Final() || !s.paused() {
		return s, s.conflict("there is nothing to resume")
	}
	s = s.clone()
	p := s.last()
	p.Resumed, p.Who, p.Why = now.UTC().Truncate(time.Second), who, why
	s.Accepted, s.Canary.Accepted, s.Back = s.Tally().Failed, s.CanaryTally().Failed, false
	s.Phase, s.Reason = Waiting, ""
	return s, nil
}

// Promote lets the batches begin after a canary that waits for a person, when it has soaked.
func (s State) Promote(who, why string) (State, error) {
	if s.Final() || s.Canary.Passed || s.Canary.Promoted != "" || !s.Frozen {
		return s, s.conflict("there is no canary that waits to be promoted")
	}
	s = s.clone()
	s.Canary.Promoted = who + ": " + why
	return s, nil
}

// Retry lets the nodes that failed be tried again; those of a site, or of every site if it is empty. What they did still
// counts. It names them by site: each needs an order too, since a node holds back what failed.
func (s State) Retry(site string) (State, map[string][]string, error) {
	nodes := map[string][]string{}
	if s.Final() {
		return s, nil, s.conflict("nothing is tried again")
	}
	t := s.Tally()
	s = s.clone()
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !n.Result.Failed() || site != "" && n.Site != site {
			continue
		}
		nodes[n.Site] = append(nodes[n.Site], n.Name)
		n.Before = true // until it starts again
	}
	if len(nodes) == 0 {
		return s, nil, s.conflict("no node has failed")
	}
	now := s.Tally()
	s.Past = Tally{s.Past.Failed + t.Failed - now.Failed, s.Past.Of + t.Of - now.Of}
	for site := range nodes {
		slices.Sort(nodes[site])
	}
	return s, nodes, nil
}

func (s *State) conflict(what string) error {
	return problem.New(problem.RolloutState, "the rollout of policy %s, revision %d, is %s: %s", s.Policy, s.Revision, s.Phase, what).
		WithDone("nothing was changed").WithNext("meshctl rollout status %s", s.Policy)
}
