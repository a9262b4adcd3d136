package install

import (
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
)

// time fills in when a run was, and what was in force before it, where the transaction has not said so.
func (s *session) time(r *Result) {
	if r.Started.IsZero() {
		r.Started = s.began
	}
	r.Started, r.Ended = r.Started.UTC().Truncate(time.Millisecond), s.Now().UTC().Truncate(time.Millisecond)
	if r.Before == nil && r.Bundle != "" {
		r.Before = s.before[r.Bundle]
	}
}

// beforeOf is what was in force when a transaction began, which may be runs ago; nil when that is not known here.
func (s *session) beforeOf(t journal.Transaction) *ledger.Release {
	if undoes(t) {
		return &t.New
	}
	if t.Old == "" {
		delete(s.before, t.New.Bundle)
		return nil
	}
	b := s.ledger.Bundle(t.New.Bundle)
	if b.Current != nil && b.Current.Dir == t.Old {
		return b.Current
	}
	for i := range b.Previous {
		if b.Previous[i].Dir == t.Old {
			return &b.Previous[i]
		}
	}
	return nil
}

// undoes reports whether a transaction puts the machine back to what it was before New: what putBack begins.
func undoes(t journal.Transaction) bool {
	return t.Kind == journal.Rollback && t.Fault != nil && t.Fault.Reason == ReasonOperator
}

func inForce(l *ledger.Ledger) map[string]*ledger.Release {
	out := map[string]*ledger.Release{}
	for name, b := range l.Bundles {
		if b.Current != nil && b.Current.Installed() {
			r := *b.Current
			out[name] = &r
		}
	}
	return out
}
