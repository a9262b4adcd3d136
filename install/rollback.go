package install

import (
	"context"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/internal/order"
)

// putBack makes the machine what it was before the release in force came, from the snapshot that was taken then. That is
// done only while the packages are still the ones that it left: what came later would go with it. why says why it is
// not done, and nothing was changed.
func (s *session) putBack(ctx context.Context, current ledger.Release, o *order.Order) (r Result, why string) {
	k := current.Snapshot
	switch {
	case !current.Installed():
		return r, "its packages were never installed"
	case k == nil:
		return r, "no snapshot is kept"
	case !k.Until.IsZero() && s.Now().After(k.Until):
		return r, fmt.Sprintf("the snapshot is older than the policy allows (%s)", k.Until.Format(time.DateOnly))
	}
	p := s.provider(k.Provider)
	if p == nil {
		return r, "this program has no snapshots of " + k.Provider
	}
	if has, err := s.keeps(ctx, p, k.ID); err != nil || !has {
		return r, fmt.Sprintf("snapshot %s is gone (%v)", k.Name, err)
	}
	d, err := release.Open(s.Config.Root, current.Bundle)
	if err != nil {
		return r, err.Error()
	}
	if has, err := d.Has(k.Old); k.Old != "" && (err != nil || !has) {
		k.Old = ""
	}
	t := journal.Transaction{
		Schema: journal.Schema, Kind: journal.Rollback, Step: journal.Undo, Attempt: 1, New: current, Old: k.Old,
		Fault:    &journal.Fault{Class: journal.Unhealthy, Reason: ReasonOperator},
		Packages: journal.Packages{ID: k.ID, Provider: k.Provider, Snapshot: k.Name, Touched: true},
	}
	t = under(t, o)
	hand, err := s.openPatch(d, t)
	if err != nil {
		return r, err.Error()
	}
	now, err := hand.manager.Installed(ctx)
	if err != nil {
		return r, err.Error()
	}
	if digestOf(now) != current.Packages {
		s.endPatch()
		s.patch = nil
		return r, "the machine's packages were changed since"
	}
	// What is foreseen is how it goes back: so the result says what changed.
	if t.Packages.Foreseen, err = s.state.writeForeseen(foreseen{Before: now}); err != nil {
		return s.refuse(err), ""
	}
	if err := s.state.writeJournal(t); err != nil {
		return s.refuse(err), ""
	}
	end, err := s.run(ctx, t)
	return s.resultOf(end, err), ""
}
