// Package turn decides when it is a node's turn to start, by the grant that its site holds and what its neighbours say:
// the site keeps its own canary, its cap and its failure budget, with the WAN down too. Pure; safe for concurrent use.
//
// Nobody in the site is asked for leave. A node that sees a free place claims it, says so to its neighbours, and starts
// Settle later if the place is free still. Of those who claim at the same time, the one that the grant names first has
// it: the others give up when they hear of its claim, and it holds on until they have. While statements arrive within
// Settle, who starts last of some that are at it together has heard of the claims of all the others, so they are never too
// many. (Lamport's bakery, doi:10.1145/361082.361093, with the grant's order for the numbers, and with a bound on delays
// in place of waiting for answers: a node that is switched off must not hold up the others.)
//
// A site may hold several grants, each with a cap of its own, and nodes that follow none. Whoever is at it counts, whatever
// it installs; a node starts only if they are then no more than its own grant allows, and no more than the grant of anybody
// who is at it allows. Of claims under different grants the one for the lower checksum has the place. The budget is that
// of one revision, and so of one grant.
//
// Where the LAN is split, each half sees itself alone: at most MaxUnavailable start in each of them.
package turn

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Starting is the reason in the statement of a node that has claimed its turn and does not act on it yet.
const Starting = "Starting"

// Bounds.
const (
	Settle  = 3 * time.Second // from the claim to the start: more than a statement takes
	Silence = 5 * time.Minute // how long the site's canary is waited for when it says nothing
)

// Said is what a node has last said of itself.
type Said struct {
	Phase    status.Phase
	Reason   string
	Checksum manifest.Digest // what it is to have; while it installs, what it installs
	Claims   manifest.Digest // what it has claimed its turn for, under whatever grant; zero: nothing
	For      time.Duration   // for how long it has been saying that, as far as we heard
	Next     time.Time       // its next attempt, by its own account; zero: none
	Silent   bool            // there is no session with it
	Quiet    time.Duration   // for how long it has been silent
	Unheard  bool            // we never heard of it: nothing of the above is known but Silent and Quiet
}

// View is what a node knows when it asks whether it is its turn.
type View struct {
	Self     string
	Now      time.Time               // by the clock of the site
	Fresh    time.Duration           // how old the grant may be; 0: as old as its window
	Others   map[string]Said         // of the site, by name; those of the grant that are missing are silent for ever
	Caps     map[manifest.Digest]int // MaxUnavailable of the other grants of the site, by checksum
	Claimed  bool                    // we have claimed our turn,
	ClaimFor time.Duration           // for so long
	Settling bool                    // this daemon was started just now: who has not spoken may be about to
}

// Step is what a node is to do.
type Step int

// The steps.
const (
	Wait  Step = iota // and give up the claim
	Claim             // tell everybody, or hold on to what they were told, and ask again
	Go
)

// Verdict is the answer. Reason, Text and Next are those of Wait.
type Verdict struct {
	Step   Step
	Reason string
	Text   string
	Next   time.Time // never zero with Wait
}

// Decide says whether it is the node's turn.
func Decide(g *grant.Grant, v View) Verdict {
	if no := g.Permits(v.Self, v.Now, v.Fresh); no != nil {
		next := no.Next
		if next.IsZero() { // a newer grant is news that does not wait for this
			next = v.Now.Add(time.Hour)
		}
		return Verdict{Wait, no.Reason, no.Text, next}
	}
	s := site{g, v}
	wait := func(reason string, names []string, format string, args ...any) Verdict {
		return Verdict{Wait, reason, fmt.Sprintf(format, args...) + list(names), v.Now.Add(time.Minute)}
	}
	if failed := s.of(s.failed, len(g.Starts)); len(failed) > g.MaxFailures {
		no := wait(grant.Paused, failed, "the site's own budget of %d failures is used up by", g.MaxFailures)
		no.Next = grant.Time(g.Expires)
		return no
	}
	me, _ := g.Place(v.Self)
	if v.Settling {
		if unheard := s.of(func(o Said, _ int) bool { return o.Unheard }, len(g.Starts)); len(unheard) > 0 {
			return wait(grant.BatchNotReached, unheard, "this node was started just now and has not heard of")
		}
	}
	if me >= g.First {
		if canary := s.of(s.owing, g.First); len(canary) > 0 {
			return wait(grant.BatchNotReached, canary, "the site's canary goes first:")
		}
	}
	// Who is at it keeps its place; who waits for its turn and is named before us has the next one.
	before := s.anywhere(func(o Said, name string, i int) bool {
		return s.atIt(o) || i >= 0 && i < me && s.ready(o, i) || s.claims(o) && s.yields(o, name, i)
	})
	if most := s.most(); len(before) >= most {
		return wait(grant.BatchNotReached, before, "place %d, %d at a time: waits for", me+1, most)
	}
	if len(g.Starts) == 1 && len(v.Others) == 0 {
		return Verdict{Step: Go}
	}
	rivals := s.anywhere(func(o Said, _ string, _ int) bool { return s.atIt(o) || s.claims(o) })
	if !v.Claimed || v.ClaimFor < Settle || len(rivals) >= s.most() {
		return Verdict{Step: Claim}
	}
	return Verdict{Step: Go}
}

// site is what is known of the nodes of a site and of a grant.
type site struct {
	g *grant.Grant
	v View
}

// of are the others among the first n of the grant of whom something holds.
func (s site) of(holds func(o Said, i int) bool, n int) (names []string) {
	for i, start := range s.g.Starts[:n] {
		if start.Node == s.v.Self {
			continue
		}
		o, ok := s.v.Others[start.Node]
		if !ok {
			o = Said{Silent: true, Unheard: true, Quiet: Silence}
		}
		if holds(o, i) {
			names = append(names, start.Node)
		}
	}
	return names
}

// anywhere are the others of whom something holds, whether the grant names them or not; i is their place, -1 if it does not.
func (s site) anywhere(holds func(o Said, name string, i int) bool) (names []string) {
	names = s.of(func(o Said, i int) bool { return holds(o, s.g.Starts[i].Node, i) }, len(s.g.Starts))
	for name, o := range s.v.Others {
		if _, named := s.g.Place(name); !named && holds(o, name, -1) {
			names = append(names, name)
		}
	}
	return names
}

// most is how many may be at it: what the grant says, and the grants of those who are at it or claim to be.
func (s site) most() int {
	most := s.g.MaxUnavailable
	for _, o := range s.v.Others {
		for _, c := range []manifest.Digest{o.Checksum, o.Claims} {
			if cap, ok := s.v.Caps[c]; ok && (s.atIt(o) || s.claims(o)) {
				most = min(most, cap)
			}
		}
	}
	return most
}

// yields: we give way to a claim. Within the grant its order says so (ready); between grants the lower checksum has it.
func (s site) yields(o Said, name string, i int) bool {
	if c := bytes.Compare(o.Claims[:], s.g.Checksum[:]); c != 0 {
		return c < 0
	}
	return i < 0 && name < s.v.Self
}

func (s site) deadline() time.Duration { return time.Duration(s.g.Deadline) * time.Second }

func (s site) failed(o Said, _ int) bool {
	switch o.Phase {
	case status.RolledBack, status.InstallFailed, status.Quarantined:
		return o.Checksum == s.g.Checksum
	}
	return false
}

// atIt: the node has started, whatever it installs, and may still be out of service. One that fell silent meanwhile
// starts its machine again, or will not come back: its place is kept for as long as that of the others.
func (s site) atIt(o Said) bool {
	return !o.Unheard && (o.Phase == status.Installing || o.Silent && claimed(o)) && o.For < s.deadline()
}

func claimed(o Said) bool { return o.Claims != manifest.Digest{} }

func (s site) claims(o Said) bool { return !o.Unheard && claimed(o) && o.For < s.deadline() }

// ready: the node could go, and says that it waits for its turn only.
func (s site) ready(o Said, i int) bool {
	return !o.Silent && !o.Unheard && o.Checksum == s.g.Checksum && (o.Claims == s.g.Checksum || o.Reason == grant.BatchNotReached && s.reached(i)) && o.For < s.deadline()
}

func (s site) reached(i int) bool { return !s.v.Now.Before(grant.Time(s.g.Starts[i].After)) }

// owing: the node of the site's canary has neither done its part nor had its time.
func (s site) owing(o Said, i int) bool {
	from := latest(grant.Time(s.g.Opens), grant.Time(s.g.Starts[i].After))
	since := func(d time.Duration) time.Duration { return min(d, s.v.Now.Sub(from)) }
	switch {
	case o.Unheard || o.Silent && o.Phase != status.Installing && !claimed(o):
		return since(o.Quiet) < Silence
	case o.Checksum != s.g.Checksum || since(o.For) >= s.deadline():
		return since(o.For) < s.deadline()
	}
	switch o.Phase {
	case status.Installed, status.RolledBack, status.InstallFailed, status.Quarantined:
		return false
	case status.Deferred: // what it waits for is not its turn, and it is not about to try again
		return o.Reason == grant.BatchNotReached || !o.Next.After(s.v.Now)
	}
	return true
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// list names a few.
func list(names []string) string {
	slices.Sort(names)
	more := ""
	if len(names) > 5 {
		more = fmt.Sprintf(" and %d more", len(names)-5)
		names = names[:5]
	}
	return " " + strings.Join(names, ", ") + more
}
