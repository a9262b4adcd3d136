package grant

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Reasons for waiting, of the closed list.
const (
	BatchNotReached = "BatchNotReached"
	Paused          = "Paused"
	LeaseMissing    = "LeaseMissing"
)

// No says why a node may not start now.
type No struct {
	Reason string
	Text   string    // the same for a person
	Next   time.Time // when it is worth while to ask again; zero: when a newer grant comes
}

// Fits reports whether the grant is about this revision of a policy at this site. An empty site fits any: a machine that
// does not know its site believes the grant's.
func (g *Grant) Fits(site, policy string, revision uint64, checksum manifest.Digest) bool {
	return g != nil && (site == "" || g.Site == site) && g.Policy == policy && g.Revision == revision && g.Checksum == checksum
}

// Permits says what the grant by itself has against a start of the node now; nil: nothing. A machine that does not know
// its name ("") may start as soon as anybody may. fresh is how old the grant may be, 0: as old as its window.
//
// Nothing here asks what the neighbours do: see package node/turn.
func (g *Grant) Permits(node string, now time.Time, fresh time.Duration) *No {
	if g == nil {
		return &No{Reason: LeaseMissing, Text: "the rollout has not granted a start yet"}
	}
	created, opens, expires := Time(g.Created), Time(g.Opens), Time(g.Expires)
	switch {
	case g.Halted != "":
		return &No{Reason: Paused, Text: g.Halted}
	case !now.Before(expires):
		return &No{Reason: LeaseMissing, Text: fmt.Sprintf("grant %d was until %s", g.Serial, g.Expires)}
	case now.Before(opens):
		return &No{Reason: BatchNotReached, Text: fmt.Sprintf("grant %d is for the window from %s", g.Serial, g.Opens), Next: opens}
	case fresh > 0 && now.Sub(created) >= fresh:
		return &No{Reason: LeaseMissing, Text: fmt.Sprintf("gating is Strict: grant %d is of %s, and may be %s old", g.Serial, g.Created, fresh)}
	}
	start, named := g.start(node)
	switch after := Time(start.After); {
	case !named:
		return &No{Reason: BatchNotReached, Text: fmt.Sprintf("grant %d does not name this node", g.Serial)}
	case now.Before(after):
		return &No{Reason: BatchNotReached, Text: fmt.Sprintf("batch %d starts at %s", start.Batch, start.After), Next: after}
	}
	return nil
}

// start is the place of a node; of no name, the one that comes first.
func (g *Grant) start(node string) (first Start, ok bool) {
	if node != "" {
		i, ok := g.Place(node)
		if !ok {
			return Start{}, false
		}
		return g.Starts[i], true
	}
	for i, s := range g.Starts {
		if i == 0 || Time(s.After).Before(Time(first.After)) {
			first = s
		}
	}
	return first, len(g.Starts) > 0
}
