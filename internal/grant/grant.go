// Package grant holds the permission by which a rollout lets the nodes of one site start: policy.md calls it the site's
// lease; here a lease is what an uplink holds. The seeder signs it with the key of its rosters. It adds nothing to what a
// policy allows and can only hold back, so a forged one could start early what an operator has signed and nothing else.
//
// A grant names the site, the policy with its revision, the bundle, the nodes in their order, the window, and the budget
// that the site itself keeps to. With it a staged site patches with its WAN cut. Grants of one site and policy are
// numbered: a newer one replaces an older one, also to halt it. Pure; safe for concurrent use.
package grant

import (
	"fmt"
	"math"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Schema identifies the document inside the signed bytes.
const Schema = "patchmesh.io/grant/v1"

// Limits.
const (
	MaxBytes  = 128 << 10
	MaxStarts = 512 // a roster has no more nodes
	MaxReason = 400 // bytes
)

// Grant is the document: canonical JSON, all fields present.
type Grant struct {
	Schema         string          `json:"schema"`
	Serial         uint64          `json:"serial"` // grows with every grant of one site and policy; see Mark
	Created        string          `json:"created"`
	Site           string          `json:"site"`
	Policy         string          `json:"policy"`
	Revision       uint64          `json:"revision"`
	Bundle         string          `json:"bundle"`
	Version        string          `json:"version"`
	Checksum       manifest.Digest `json:"checksum"`
	Opens          string          `json:"opens"`           // of the window that it is for; no start before
	Expires        string          `json:"expires"`         // end of that window; no start from then on
	Halted         string          `json:"halted"`          // why nothing may start; empty: it may
	Starts         []Start         `json:"starts"`          // in the order in which the nodes go, each once; empty only if halted
	First          int             `json:"first"`           // so many of Starts are the site's own canary: the others wait until they have done well
	MaxUnavailable int             `json:"maxUnavailable"`  // nodes that may be at it at the same time, at least 1
	MaxFailures    int             `json:"maxFailures"`     // with more failures than this the site stops by itself
	Deadline       int             `json:"deadlineSeconds"` // a node that is at it for longer does not hold up the next
}

// Start is a node's place.
type Start struct {
	Node  string `json:"node"`
	Batch int    `json:"batch"` // of the rollout, counted from 1; 0: the canary
	After string `json:"after"` // no start before
}

// Encode writes the canonical bytes, which are what is signed.
func (g *Grant) Encode() ([]byte, error) {
	if err := g.validate(); err != nil {
		return nil, err
	}
	b, err := manifest.EncodeCanonical(g)
	if err == nil && len(b) > MaxBytes {
		err = invalid(fmt.Errorf("%d bytes: at most %d", len(b), MaxBytes))
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Open verifies a grant's signature, for the role of rosters, and parses it. at is the trusted time, as for
// trust.Set.Verify. Whether it is the newest, and whether its time has come, is for the caller to say.
func Open(set *trust.Set, s trust.Signed, at time.Time) (*Grant, error) {
	if len(s.Doc) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(s.Doc), MaxBytes))
	}
	v, err := set.Verify(trust.RoleRoster, s, at)
	if err != nil {
		return nil, err
	}
	g, err := Parse(s.Doc)
	if err != nil {
		return nil, err
	}
	created, err := instant("created", g.Created)
	if err != nil {
		return nil, invalid(err)
	}
	return g, v.CheckCreated(created)
}

// Parse reads the bytes of a grant whose signature was verified, now or before.
func Parse(b []byte) (*Grant, error) {
	if len(b) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes: at most %d", len(b), MaxBytes))
	}
	g := new(Grant)
	if err := manifest.DecodeCanonical("grant", b, g); err != nil {
		return nil, invalid(err)
	}
	return g, g.validate()
}

// Time reads one of the grant's instants; it was validated.
func Time(text string) time.Time {
	t, _ := time.Parse(time.RFC3339, text)
	return t
}

// Timestamp is how instants are written.
func Timestamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// Mark is where a grant stands among those of its site and policy: a newer one takes the place of an older one.
func (g *Grant) Mark() policy.Mark { return policy.Mark{Revision: g.Revision, Number: g.Serial} }

// Place finds a node's place among the starts; ok is false if it has none.
func (g *Grant) Place(node string) (i int, ok bool) {
	for i := range g.Starts {
		if g.Starts[i].Node == node {
			return i, true
		}
	}
	return 0, false
}

func (g *Grant) validate() error {
	bad := func(f string, a ...any) error { return invalid(fmt.Errorf(f, a...)) }
	switch {
	case g.Schema != Schema:
		return bad("schema %q is not %q", g.Schema, Schema)
	case g.Serial == 0 || g.Serial > math.MaxInt64 || g.Revision == 0 || g.Revision > math.MaxInt64:
		return bad("serial %d or revision %d is out of range", g.Serial, g.Revision)
	case !manifest.ValidName(g.Site) || !manifest.ValidName(g.Policy) || !manifest.ValidName(g.Bundle) || !manifest.ValidVersion(g.Version):
		return bad("site %q, policy %q, bundle %q or version %q is not well named", g.Site, g.Policy, g.Bundle, g.Version)
	case g.Checksum == manifest.Digest{}:
		return bad("the checksum is missing")
	case g.Starts == nil || len(g.Starts) > MaxStarts:
		return bad("%d starts: at most %d", len(g.Starts), MaxStarts)
	case len(g.Starts) == 0 && g.Halted == "":
		return bad("nobody may start and it does not say why")
	case g.First < 0 || g.First > len(g.Starts) || g.MaxUnavailable < 1 || g.MaxFailures < 0 || g.Deadline < 1:
		return bad("first %d, maxUnavailable %d, maxFailures %d or deadlineSeconds %d is out of range", g.First, g.MaxUnavailable, g.MaxFailures, g.Deadline)
	case len(g.Halted) > MaxReason:
		return bad("the reason has %d bytes: at most %d", len(g.Halted), MaxReason)
	}
	for _, x := range [][2]string{{"created", g.Created}, {"opens", g.Opens}, {"expires", g.Expires}} {
		if _, err := instant(x[0], x[1]); err != nil {
			return invalid(err)
		}
	}
	if !Time(g.Opens).Before(Time(g.Expires)) {
		return bad("it expires at %s, before it opens", g.Expires)
	}
	seen := make(map[string]bool, len(g.Starts))
	for i, s := range g.Starts {
		if !manifest.ValidName(s.Node) || seen[s.Node] || s.Batch < 0 {
			return bad("start %d, of node %.80q in batch %d, is not well named or there twice", i, s.Node, s.Batch)
		}
		seen[s.Node] = true
		if _, err := instant("after", s.After); err != nil {
			return invalid(err)
		}
	}
	return nil
}

func instant(what, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || Timestamp(t) != text {
		return time.Time{}, fmt.Errorf("%s %.40q is not a UTC time with whole seconds", what, text)
	}
	return t, nil
}

func invalid(err error) error {
	return problem.New(problem.InvalidGrant, "the grant is not valid").Because(err).WithDone("what was in force stays in force")
}
