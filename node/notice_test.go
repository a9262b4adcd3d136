package node

import (
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Only an executor that says so has taken a notice: one that was busy with something else was told nothing, and a daemon that is
// taken over later could still show it the grant from before.
func TestWhatCountsAsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		r    install.Result
		want bool
	}{
		"noted":                     {install.Result{Outcome: install.Success, Reason: install.ReasonNoted}, true},
		"it knows a newer revision": {install.Result{Outcome: install.VerificationFailure, Reason: "SequenceTooOld", Code: problem.SequenceTooOld}, true},
		"deferred":                  {install.Result{Outcome: install.Deferred, Reason: install.ReasonLocked}, false},
		"the way back of another bundle failed": {install.Result{Outcome: install.RollbackFailed, Reason: "RollbackFailed", Code: problem.RollbackFailed,
			Bundle: "app", Version: "2.0"}, false},
		"what was carried on":     {install.Result{Outcome: install.Success, Reason: install.ReasonInstalled, Bundle: "app", Version: "2.0"}, false},
		"it does not believe it":  {install.Result{Outcome: install.VerificationFailure, Reason: "SignatureInvalid", Code: problem.SignatureInvalid}, false},
		"an answer to some other": {install.Result{Outcome: install.Success, Reason: install.ReasonNothingToDo}, false},
	} {
		if got := taken(c.r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
