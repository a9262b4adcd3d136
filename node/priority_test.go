package node

import (
	"slices"
	"testing"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Installs of several bundles come by priority, then by name; what no policy asks for, or one that cannot be read, is as
// if it had none.
func TestByPriority(t *testing.T) {
	of := func(priority int) *heldPolicy { return &heldPolicy{p: &policy.Policy{Priority: priority}} }
	by := func(name string) *Life { return &Life{Target: &status.Desired{Policy: name}} }
	n := &Node{policies: map[string]*heldPolicy{"high": of(10), "low": of(-10), "none": of(0), "unread": {}},
		rec: &record{Lives: map[string]*Life{"a": by("low"), "b": by("none"), "c": by("high"), "d": by("high"), "e": {}, "f": by("unread"), "g": by("gone")}}}
	if got := n.byPriority(); !slices.Equal(got, []string{"c", "d", "b", "e", "f", "g", "a"}) {
		t.Error(got)
	}
}
