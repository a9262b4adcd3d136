// Package order holds what an operator tells nodes to do once, apart from the policies: to go back from a release, to
// try one again that they hold back, or to end a quarantine. An order is a signed document like a policy, is signed with the same keys, and is
// verified by every node and again by the executor.
//
// An order names the release it is about by its checksum, so it says nothing about any other. Orders are numbered by one
// sequence: for each bundle name the executor remembers the highest one that it carried out, and does none that is not
// above it. So an order that is sent again does nothing, and a newer order puts an end to an older one that has not been
// carried out; no clock is asked.
//
// The seeder may give one kind of order itself, where an operator's policy says so: see OpenDelegated. Those name that
// policy and its revision, and are numbered within it. They never count against an operator's order, whatever their
// numbers are, and the operator's next revision puts an end to all of them. Pure; safe for concurrent use.
package order

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Schema identifies the document inside the signed bytes.
const Schema = "patchmesh.io/order/v1"

// Limits.
const (
	MaxBytes  = 64 << 10 // of a document
	MaxSites  = 2048
	MaxNodes  = 512
	MaxLabels = 64
	MaxReason = 400 // bytes

	// MaxKept is how many orders a site's board, and a node, keep to hand on: the newest.
	MaxKept = 64
)

// Kind is what is to be done.
type Kind string

// The kinds.
const (
	Rollback Kind = "rollback" // put the release before this one in force, and hold this one back
	Retry    Kind = "retry"    // forget that this release failed or was rolled back
	Release  Kind = "release"  // end the quarantine that a node holds against itself because of this release
)

// Order is the document: canonical JSON, all fields present but the last two.
type Order struct {
	Schema   string          `json:"schema"`
	Sequence uint64          `json:"sequence"` // see Next
	Created  string          `json:"created"`  // RFC 3339, UTC, whole seconds
	Kind     Kind            `json:"kind"`
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"` // of the release that the order is about
	Targets  Targets         `json:"targets"`
	Now      bool            `json:"now"`    // do not wait for the maintenance window
	Reason   string          `json:"reason"` // one line, for people

	// Quarantine is the identity of the one that a Release ends, of 16 hex digits: it says nothing about a later one.
	Quarantine string `json:"quarantine,omitempty"`

	// Under is the operator's policy by which the seeder gives the order. An operator's own has none.
	Under *Under `json:"under,omitempty"`
}

// Under names a revision of a policy.
type Under struct {
	Policy   string `json:"policy"`
	Revision uint64 `json:"revision"`
}

// QuarantineID is the length of a quarantine's identity, in hex digits.
const QuarantineID = 16

// Targets says whose order it is: nodes for which everything holds that is not empty. A list of sites or a label must
// be given; names of nodes only with exactly one site.
type Targets struct {
	Sites  []string          `json:"sites"` // in order, each once; empty: every site
	Nodes  []string          `json:"nodes"` // in order, each once; empty: every node
	Labels map[string]string `json:"labels"`
}

// Names reports whether a node is meant.
func (t Targets) Names(site, node string, labels map[string]string) bool {
	if len(t.Sites) > 0 && !slices.Contains(t.Sites, site) || len(t.Nodes) > 0 && !slices.Contains(t.Nodes, node) {
		return false
	}
	for k, want := range t.Labels {
		if have, ok := labels[k]; !ok || have != want {
			return false
		}
	}
	return len(t.Sites) > 0 || len(t.Labels) > 0
}

// Concerns reports whether the order may be meant for a node of the site.
func (t Targets) Concerns(site string) bool {
	return slices.Contains(t.Sites, site) || len(t.Sites) == 0 && len(t.Labels) > 0
}

// Next is the sequence of a new order after the last one: the time of day where that is higher, so that orders are
// still accepted after a seeder has lost its memory.
func Next(last uint64, now time.Time) uint64 {
	if last >= math.MaxInt64 {
		return last // refused by Encode
	}
	return max(last+1, uint64(max(now.Unix(), 1)))
}

// maxAhead is how far the last order's sequence may be ahead of the clock: further than honest clocks differ.
const maxAhead = 400 * 24 * time.Hour

// CheckLast refuses to number an order after one that nobody can have given. Who signs has the last sequence from the
// seeder, and the nodes do nothing below the highest that a person has signed: it must not choose that number.
func CheckLast(last uint64, now time.Time) error {
	if last <= uint64(max(now.Add(maxAhead).Unix(), 0)) {
		return nil
	}
	return problem.New(problem.InvalidOrder, "the seeder says that the last order is %d, which is years ahead of this machine's clock", last).
		WithDone("nothing was signed: nodes would never again do an order with a lower number").
		WithNext("see that the clock of this machine is right; if it is, ask who gave that order: meshctl order list")
}

// Timestamp is how Created is written.
func Timestamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// Encode writes the canonical bytes, which are what is signed.
func (o *Order) Encode() ([]byte, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	b, err := manifest.EncodeCanonical(o)
	if err == nil && len(b) > MaxBytes {
		err = invalid(fmt.Errorf("%d bytes: at most %d", len(b), MaxBytes))
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Open verifies an order's signature, for the role of policies, and parses it. at is the trusted time, as for
// trust.Set.Verify. Whether it is new, and for whom, is for the caller to say.
func Open(set *trust.Set, s trust.Signed, at time.Time) (*Order, error) {
	if len(s.Doc) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(s.Doc), MaxBytes))
	}
	v, err := set.Verify(trust.RolePolicy, s, at)
	if err != nil {
		return nil, err
	}
	o, err := Parse(s.Doc)
	if err != nil {
		return nil, err
	}
	if o.Under != nil {
		return nil, invalid(errors.New("an operator has signed it, and it says under: only the seeder's orders do"))
	}
	created, err := o.Time()
	if err != nil {
		return nil, invalid(err)
	}
	return o, v.CheckCreated(created)
}

// OpenDelegated is Open for an order that the seeder has signed, with the key of its rosters, because a rollout has
// used up its budget. It can be nothing but a rollback of named nodes in their window, and counts only where Delegated
// holds for the policy in force. Its sequence counts within the revision of that policy: see AdmitDelegated.
func OpenDelegated(set *trust.Set, s trust.Signed, at time.Time) (*Order, error) {
	if len(s.Doc) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(s.Doc), MaxBytes))
	}
	v, err := set.Verify(trust.RoleRoster, s, at)
	if err != nil {
		return nil, err
	}
	o, err := Parse(s.Doc)
	if err != nil {
		return nil, err
	}
	if o.Kind != Rollback || o.Now || len(o.Targets.Nodes) == 0 || o.Under == nil {
		return nil, problem.New(problem.Denied, "order %d, %s, is signed by the seeder, which may only send named nodes back in their window, under a policy", o.Sequence, o).
			WithDone("nothing was changed")
	}
	created, err := o.Time()
	if err != nil {
		return nil, invalid(err)
	}
	return o, v.CheckCreated(created)
}

// Delegated refuses an order of the seeder unless the operator's policy, in the very revision that the order names, says
// that the seeder may give it: it asks for the release that is to go, and says onExceeded: Rollback.
func Delegated(o *Order, revision uint64, p *policy.Policy) error {
	if p != nil && o.Under != nil && p.Name == o.Under.Policy && revision == o.Under.Revision &&
		p.Bundle.Name == o.Bundle && p.Bundle.Checksum == o.Checksum && p.Rollout != nil && p.Rollout.Budget.Rollback {
		return nil
	}
	return problem.New(problem.Denied, "order %d, %s, is signed by the seeder, and the policy in force does not say onExceeded: Rollback for that release", o.Sequence, o).
		WithDone("nothing was changed")
}

// Parse reads the bytes of an order whose signature was verified, now or before.
func Parse(b []byte) (*Order, error) {
	if len(b) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(b), MaxBytes))
	}
	o := new(Order)
	if err := manifest.DecodeCanonical("order", b, o); err != nil {
		return nil, invalid(err)
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	return o, nil
}

// Time is when the order says it was made.
func (o *Order) Time() (time.Time, error) {
	t, err := time.Parse(time.RFC3339, o.Created)
	if err != nil || Timestamp(t) != o.Created {
		return time.Time{}, fmt.Errorf("created %q is not a UTC time with whole seconds", o.Created)
	}
	return t, nil
}

func (o *Order) validate() error {
	bad := func(f string, a ...any) error { return invalid(fmt.Errorf(f, a...)) }
	switch {
	case o.Schema != Schema:
		return bad("schema %q is not %q", o.Schema, Schema)
	case o.Sequence == 0 || o.Sequence > math.MaxInt64:
		return bad("sequence %d is out of range", o.Sequence)
	case o.Kind != Rollback && o.Kind != Retry && o.Kind != Release:
		return bad("kind %q is not known", o.Kind)
	case o.Kind == Release && (!ValidQuarantine(o.Quarantine) || len(o.Targets.Nodes) != 1):
		return bad("a release is for one node and names its quarantine, not %.40q for %d nodes", o.Quarantine, len(o.Targets.Nodes))
	case o.Kind != Release && o.Quarantine != "":
		return bad("a %s names the quarantine %.40q", o.Kind, o.Quarantine)
	case !manifest.ValidName(o.Bundle) || !manifest.ValidVersion(o.Version):
		return bad("bundle %q version %q is not well named", o.Bundle, o.Version)
	case o.Checksum == manifest.Digest{}:
		return bad("the checksum is missing")
	case !line(o.Reason):
		return bad("reason of %d bytes: want one line of 1 to %d", len(o.Reason), MaxReason)
	}
	if u := o.Under; u != nil && (!manifest.ValidName(u.Policy) || u.Revision == 0 || u.Revision > math.MaxInt64) {
		return bad("under policy %.80q, revision %d: not well named or out of range", u.Policy, u.Revision)
	}
	if _, err := o.Time(); err != nil {
		return invalid(err)
	}
	return o.Targets.validate()
}

func (t Targets) validate() error {
	bad := func(f string, a ...any) error { return invalid(fmt.Errorf("targets: "+f, a...)) }
	switch {
	case t.Sites == nil || t.Nodes == nil || t.Labels == nil:
		return bad("a part is missing")
	case len(t.Sites) > MaxSites || len(t.Nodes) > MaxNodes || len(t.Labels) > MaxLabels:
		return bad("more than %d sites, %d nodes or %d labels", MaxSites, MaxNodes, MaxLabels)
	case len(t.Sites) == 0 && len(t.Labels) == 0:
		return bad("neither a site nor a label is given")
	case len(t.Nodes) > 0 && len(t.Sites) != 1:
		return bad("nodes are named, and %d sites: want one", len(t.Sites))
	}
	for _, names := range [][]string{t.Sites, t.Nodes} {
		for i, n := range names {
			if !manifest.ValidName(n) {
				return bad("name %.80q: want lower-case letters, digits, . _ -, at most 64", n)
			}
			if i > 0 && names[i-1] >= n {
				return bad("%s stands after %s: want each once, in order", n, names[i-1])
			}
		}
	}
	for k, v := range t.Labels {
		if k == "" || len(k) > 63 || len(v) > 63 {
			return bad("label %.80q=%.80q: want 1 to 63 characters", k, v)
		}
	}
	return nil
}

// ValidQuarantine reports whether text has the form of a quarantine's identity.
func ValidQuarantine(id string) bool {
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) == QuarantineID
}

// line: text for a person, with nothing in it that moves a cursor.
func line(s string) bool {
	if s == "" || len(s) > MaxReason {
		return false
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// Newest keeps the MaxKept orders with the highest sequence, in the order of their sequences.
func Newest[T any](all []T, sequence func(T) uint64) []T {
	slices.SortFunc(all, func(a, b T) int {
		if sequence(a) < sequence(b) {
			return -1
		}
		return 1
	})
	return all[max(0, len(all)-MaxKept):]
}

// String names an order for people: "rollback of app 2.0".
func (o *Order) String() string {
	if o.Kind == Release {
		return fmt.Sprintf("release from quarantine %s", o.Quarantine)
	}
	return fmt.Sprintf("%s of %s %s", o.Kind, o.Bundle, o.Version)
}

// errOld is why an order is not carried out.
var errOld = errors.New("it was carried out already, or a newer one was")

// Admit refuses an order that is not newer than the last one that was carried out for its bundle.
func Admit(last uint64, o *Order) error {
	if o.Sequence > last {
		return nil
	}
	return problem.New(problem.OrderTooOld, "order %d, %s: the last one carried out here is %d", o.Sequence, o, last).
		Because(errOld).WithDone("nothing was changed")
}

// AdmitDelegated is Admit for an order of the seeder. done is the last one of the seeder that was carried out under its
// policy; last is the operators' last one for its bundle. An operator's newer order puts an end to the seeder's older one,
// and never the other way round: what the seeder numbers as it likes raises no bar for a person.
func AdmitDelegated(done policy.Mark, last uint64, o *Order) error {
	if err := Admit(last, o); err != nil || done.Before(o.Mark()) {
		return err
	}
	return problem.New(problem.OrderTooOld, "order %d, %s, under revision %d: the last one carried out here is %d, under revision %d",
		o.Sequence, o, o.Under.Revision, done.Number, done.Revision).Because(errOld).WithDone("nothing was changed")
}

// Mark is where an order of the seeder stands among those under its policy.
func (o *Order) Mark() policy.Mark {
	return policy.Mark{Revision: o.Under.Revision, Number: o.Sequence}
}

func invalid(err error) error {
	return problem.New(problem.InvalidOrder, "the order is not valid").Because(err).WithDone("nothing was changed")
}
