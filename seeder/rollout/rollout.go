// Package rollout decides which nodes of a policy may start when: canary, batches, caps, failure budget, pause and
// resume. Pure and deterministic: time and facts are handed in, what is to be done comes out. Safe for concurrent use as
// long as each State is used by one goroutine at a time.
//
// A State is one revision of a policy on its way. Its nodes are frozen when it begins and stand in their order: the
// canary (batch 0), then batches. Sites whose windows open at the same instant are a cohort with a clock of its own. What
// lets a node start is the grant of its site (internal/grant), which Step asks for; the site itself keeps the cap and its
// own budget, with the WAN down too.
package rollout

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
)

// Limits of a state.
const (
	MaxBytes  = 64 << 20
	MaxNodes  = 200_000
	maxPauses = 100
)

// Phase says where a rollout stands. The words are those of api.RolloutState.
type Phase string

// The phases. Done, Superseded and Deleted let nothing start that has no grant yet.
const (
	Waiting     Phase = "Waiting"
	InCanary    Phase = "Canary"
	Soaking     Phase = "Soaking"
	Running     Phase = "Running"
	Paused      Phase = "Paused"
	RollingBack Phase = "RollingBack"
	Suspended   Phase = "Suspended"
	Done        Phase = "Done"
	Superseded  Phase = "Superseded"
	Deleted     Phase = "Deleted"
)

// State is one revision of a policy on its way to its nodes. It is kept as JSON.
type State struct {
	Policy   string          `json:"policy"`
	Revision uint64          `json:"revision"`
	Bundle   string          `json:"bundle,omitempty"` // and its version, for people
	Version  string          `json:"version,omitempty"`
	Since    time.Time       `json:"since"`
	Frozen   bool            `json:"frozen"` // Nodes are chosen
	Serial   uint64          `json:"serial"` // the serials of all grants of this revision are above it, and those of the revisions before are not
	Phase    Phase           `json:"phase"`
	Reason   string          `json:"reason,omitempty"` // one line
	Nodes    []Node          `json:"nodes"`            // in their order
	Cohorts  []Cohort        `json:"cohorts"`
	Canary   CanaryState     `json:"canary"`
	Pauses   []Pause         `json:"pauses"`
	Accepted int             `json:"accepted"` // failures that the person knew of who let it go on
	Past     Tally           `json:"past"`     // of tries that a person let be made again
	Back     bool            `json:"back"`     // the nodes of this revision are sent back
	Sites    map[string]Sent `json:"sites"`    // the newest grant of each site
}

// Node is a node's place and what became of it.
type Node struct {
	Site     string    `json:"site"`
	Name     string    `json:"node"`
	Cohort   int       `json:"cohort"`
	Batch    int       `json:"batch"` // counted from 1; 0: the canary
	Result   Result    `json:"result,omitempty"`
	Reason   string    `json:"reason,omitempty"`   // why it settled without a result
	Before   bool      `json:"before,omitempty"`   // the result is not of this rollout: it counts for nothing
	Missed   int       `json:"missed,omitempty"`   // windows that closed while it might have started
	Released time.Time `json:"released,omitzero"`  // since when it may start, in this window
	Started  time.Time `json:"started,omitzero"`   // as far as we know
	Settled  time.Time `json:"settled,omitzero"`   // nobody waits for it any more
	SentBack time.Time `json:"sent_back,omitzero"` // an order to go back was asked for
}

// Cohort is the clock of the sites whose windows opened at the same instant when the rollout began.
type Cohort struct {
	Opens   time.Time     `json:"opens,omitzero"` // that instant; zero: always open
	Batches int           `json:"batches"`
	Batch   int           `json:"batch"`            // the last that was released; 0: none
	At      []time.Time   `json:"at"`               // when each was released
	Settled time.Time     `json:"settled,omitzero"` // when Batch was
	Next    time.Time     `json:"next,omitzero"`    // when the one after Batch is to be released, as planned
	Took    time.Duration `json:"took"`             // of the batches that have settled, together
	Of      int           `json:"of"`               // so many
}

// CanaryState is how far the canary is.
type CanaryState struct {
	Settled  time.Time `json:"settled,omitzero"`
	Promoted string    `json:"promoted,omitempty"` // who promoted it, and why
	Passed   bool      `json:"passed"`             // the others may go
	Accepted int       `json:"accepted"`           // failures of canary nodes that a person knows of
}

// Pause is one stop, and who let it go on.
type Pause struct {
	At      time.Time `json:"at"`
	By      string    `json:"by"` // "budget", "canary", or who
	Reason  string    `json:"reason"`
	Resumed time.Time `json:"resumed,omitzero"`
	Who     string    `json:"who,omitempty"`
	Why     string    `json:"why,omitempty"`
}

// Tally is what the budget looks at.
type Tally struct {
	Failed int `json:"failed"`
	Of     int `json:"of"` // have started and settled
}

// Sent is the newest grant of a site.
type Sent struct {
	Serial  uint64    `json:"serial"`
	Hash    uint64    `json:"hash"`
	At      time.Time `json:"at"`
	Halted  bool      `json:"halted,omitempty"`
	Opens   time.Time `json:"opens,omitzero"`    // of the window that it is for
	Late    time.Time `json:"late,omitzero"`     // the window that it was not staged for
	Carried bool      `json:"carried,omitempty"` // the bundle is brought by hand: see Carry
}

// World is what a step sees.
type World struct {
	Policy   *policy.Policy // in force; nil: withdrawn
	Revision uint64         // of it; above that of the State: superseded
	Nodes    []Fact         // the targets of the policy, in any order
	Sites    map[string]Site
	Revoked  string // why the bundle is revoked; empty: it is not
}

// Site is the window of a site and whether its nodes hold the bundle.
type Site struct {
	Known  bool      // there is a window
	Opens  time.Time // the window that is open, or the next; zero: since ever
	Closes time.Time // zero: never
}

// open: a node of the site may start now.
func (x Site) open(now time.Time) bool {
	return x.Known && !x.Opens.After(now) && (x.Closes.IsZero() || now.Before(x.Closes))
}

// Action is what is to be done: one of its fields is set.
type Action struct {
	Grant *grant.Grant // to be signed and given to its site
	Back  *Back
	Event *Event
}

// Back sends nodes of a site back to what they had before.
type Back struct {
	Site  string
	Nodes []string // in order
}

// Event is what happened.
type Event struct {
	Name     string // paused, resumed, promoted, superseded, deleted, done, batch, budget, rollback
	Severity string // info, warning, critical
	Text     string
}

// New is the rollout of a revision. prev is the newest of the same policy, nil if there is none: its grants' numbers go
// on.
func New(now time.Time, name string, revision uint64, prev *State) State {
	s := State{Policy: name, Revision: revision, Since: now.UTC(), Phase: Waiting, Serial: uint64(max(now.Unix(), 1)),
		Nodes: []Node{}, Cohorts: []Cohort{}, Pauses: []Pause{}, Sites: map[string]Sent{}}
	if prev != nil {
		s.Serial = max(s.Serial, prev.Serial)
		for _, sent := range prev.Sites {
			s.Serial = max(s.Serial, sent.Serial)
		}
	}
	return s
}

// Final reports whether the rollout does nothing more.
func (s *State) Final() bool { return s.Phase == Superseded || s.Phase == Deleted }

// Step looks at the world and says what is to be done. The State that it returns is to be kept before that is done; the
// one that it was given is not changed.
func Step(now time.Time, s State, w World) (State, []Action) {
	if s.Final() {
		return s, nil
	}
	now = now.UTC().Truncate(time.Second)
	x := &stepper{State: s.clone(), w: w, now: now}
	switch {
	case w.Policy == nil || w.Policy.Rollout == nil && w.Revision == s.Revision:
		x.end(Deleted, "deleted", "the policy was withdrawn: nothing more starts, what runs finishes")
	case w.Revision != s.Revision:
		x.end(Superseded, "superseded", fmt.Sprintf("revision %d takes its place: what runs finishes", w.Revision))
	default:
		x.r = *w.Policy.Rollout
		x.Bundle, x.Version = w.Policy.Bundle.Name, w.Policy.Bundle.Version
		x.look()
		x.join()
		x.watch()
		x.fold()
		x.recall()
		x.canary()
		x.clocks()
		x.judge()
		x.sendBack()
		x.grants()
		x.phase()
	}
	return x.State, x.out
}

// stepper is a step under way.
type stepper struct {
	State
	w     World
	r     policy.Rollout
	now   time.Time
	facts map[place]*Fact
	alive map[string]bool // sites of which somebody is heard
	// cohorts are those of the sites that have a node in one.
	cohorts map[string]int
	open    []bool // by cohort: a window of one of its sites is
	out     []Action
}

type place struct{ site, node string }

func (x *stepper) tell(name, severity, format string, a ...any) {
	x.out = append(x.out, Action{Event: &Event{name, severity, fmt.Sprintf(format, a...)}})
}

func (x *stepper) end(p Phase, name, text string) {
	x.Phase, x.Reason = p, text
	x.tell(name, "info", "%s", text)
}

func (s State) clone() State {
	s.Nodes, s.Cohorts, s.Pauses, s.Sites = slices.Clone(s.Nodes), slices.Clone(s.Cohorts), slices.Clone(s.Pauses), maps.Clone(s.Sites)
	for i := range s.Cohorts {
		s.Cohorts[i].At = slices.Clone(s.Cohorts[i].At)
	}
	if s.Sites == nil {
		s.Sites = map[string]Sent{}
	}
	return s
}

// phase says in one word where the rollout stands.
func (x *stepper) phase() {
	was := x.Phase
	switch {
	case x.w.Policy.Suspend:
		x.Phase, x.Reason = Suspended, "spec.suspend is set"
	case x.Back && x.goingBack():
		x.Phase, x.Reason = RollingBack, x.last().Reason
	case x.paused():
		x.Phase, x.Reason = Paused, x.last().Reason
	case x.settled() == len(x.Nodes):
		x.Phase, x.Reason = Done, ""
		if was != Done {
			t := x.Tally()
			x.tell("done", "info", "all %d nodes have settled, %d of them failed", len(x.Nodes), t.Failed)
		}
	case !x.Canary.Passed:
		x.Phase, x.Reason = x.canaryPhase()
	case x.begun():
		x.Phase, x.Reason = Running, ""
	default:
		x.Phase, x.Reason = Waiting, "no window is open"
	}
}

// begun: a batch was released and a window is open.
func (x *stepper) begun() bool {
	for i := range x.Cohorts {
		if x.Cohorts[i].Batch > 0 {
			return true
		}
	}
	return false
}

func (s *State) settled() (n int) {
	for i := range s.Nodes {
		if !s.Nodes[i].Settled.IsZero() {
			n++
		}
	}
	return n
}

// Encode writes the state.
func (s *State) Encode() ([]byte, error) { return json.Marshal(s) }

// Decode reads what Encode wrote. What cannot be is refused, so that a step can rely on it.
func Decode(b []byte) (State, error) {
	var s State
	if len(b) > MaxBytes {
		return s, fmt.Errorf("rollout state: %d bytes: at most %d", len(b), MaxBytes)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("rollout state: %w", err)
	}
	if err := s.validate(); err != nil {
		return State{}, fmt.Errorf("rollout state: %w", err)
	}
	return s, nil
}

func (s *State) validate() error {
	switch s.Phase {
	case Waiting, InCanary, Soaking, Running, Paused, RollingBack, Suspended, Done, Superseded, Deleted:
	default:
		return fmt.Errorf("phase %.40q is not known", s.Phase)
	}
	if !manifest.ValidName(s.Policy) || s.Revision == 0 || len(s.Nodes) > MaxNodes || len(s.Cohorts) > len(s.Nodes) {
		return fmt.Errorf("policy %.80q, revision %d, %d nodes in %d cohorts", s.Policy, s.Revision, len(s.Nodes), len(s.Cohorts))
	}
	for i, c := range s.Cohorts {
		if c.Batch < 0 || c.Batch > c.Batches || c.Batches > len(s.Nodes) || len(c.At) != c.Batch || c.Of < 0 || c.Took < 0 {
			return fmt.Errorf("cohort %d: batch %d of %d, %d of them released", i, c.Batch, c.Batches, len(c.At))
		}
	}
	for _, n := range s.Nodes {
		if !manifest.ValidName(n.Site) || !manifest.ValidName(n.Name) || n.Cohort < 0 || n.Cohort >= len(s.Cohorts) || n.Batch < 0 || n.Batch > s.Cohorts[n.Cohort].Batches {
			return fmt.Errorf("node %.80q of site %.80q has no place: cohort %d, batch %d", n.Name, n.Site, n.Cohort, n.Batch)
		}
	}
	return nil
}
