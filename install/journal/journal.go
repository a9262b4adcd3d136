// Package journal is one install transaction as a pure state machine. The step in a Transaction names what is about
// to be done; it is on disk before it is done, and every step may be done twice. So a kill at any instant leaves a
// journal from which the same machine goes on, whether "apply" or "recover" finds it.
//
//	Stage ──> Switch ──> Check ──> Commit ──> Prune ──> Close
//	  │          └─────────┴─────────┴──> Undo ──┐        ^
//	  └──────────────────────────────────────> Discard ───┘
//
// The package touches no file and no clock; its values may be copied.
package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Schema identifies the file.
const Schema = "patchmesh.io/journal/v1"

// MaxBytes bounds the file.
const MaxBytes = 64 << 10

// Step is what a transaction is about to do.
type Step string

// The steps.
const (
	Stage   Step = "stage"   // write the new release beside the others; nothing in force is touched
	Switch  Step = "switch"  // point "current" at the new release
	Check   Step = "check"   // ask whether the machine is healthy with it
	Commit  Step = "commit"  // write down that it is in force
	Prune   Step = "prune"   // delete releases that are no longer kept
	Undo    Step = "undo"    // point "current" at the old release again
	Discard Step = "discard" // delete the new release and remember the failure
	Close   Step = "close"   // delete the journal
)

// Kind says who asked.
type Kind string

// The kinds.
const (
	Apply    Kind = "apply"    // a signed policy
	Rollback Kind = "rollback" // a person on this machine
)

// Class says what a fault means for the candidate.
type Class string

// The classes.
const (
	Deferred  Class = "deferred"  // not the bundle's fault; try again later; not counted
	Damaged   Class = "damaged"   // bytes in the chunk store are not what was signed; not counted
	Failed    Class = "failed"    // counted; tried again until ledger.MaxAttempts
	Unhealthy Class = "unhealthy" // counted and held: not tried again by itself
)

// Fault is why a transaction turned round.
type Fault struct {
	Class  Class        `json:"class"`
	Reason string       `json:"reason"`
	Code   problem.Code `json:"code"`
	Detail string       `json:"detail"`
	Chunk  string       `json:"chunk,omitempty"` // the chunk that is damaged or missing
}

// Health is how the transaction will judge the new release; nothing set means there is nothing to ask.
type Health struct {
	URL            string `json:"url"`
	Command        bool   `json:"command"` // the command of the local configuration
	TimeoutSeconds int    `json:"timeoutSeconds"`
}

// Transaction is the journal's content.
type Transaction struct {
	Schema   string         `json:"schema"`
	Kind     Kind           `json:"kind"`
	Step     Step           `json:"step"`
	Attempt  int            `json:"attempt"` // which try of this checksum it is, from 1
	New      ledger.Release `json:"new"`
	Old      string         `json:"old"` // release directory that "current" named before; empty: none
	Health   Health         `json:"health"`
	Policy   string         `json:"policy"`
	Revision uint64         `json:"revision"`
	Signed   time.Time      `json:"signed"` // newest signature time of manifest and policy
	Fault    *Fault         `json:"fault"`
}

// Advance returns the transaction with its next step, given how the present one ended. Undo and Discard that fail
// stay where they are: the journal is kept and the next run tries again.
func Advance(t Transaction, f *Fault) Transaction {
	if f == nil {
		switch t.Step {
		case Stage:
			t.Step = Switch
		case Switch:
			t.Step = Check
			if t.Kind == Rollback { // there is no second way back, so nothing would follow from the answer
				t.Step = Commit
			}
		case Check:
			t.Step = Commit
		case Commit:
			t.Step = Prune
		case Undo:
			t.Step = Discard
		case Prune, Discard, Close:
			t.Step = Close
		}
		return t
	}
	switch t.Step {
	case Stage:
		t.Step, t.Fault = Discard, f
	case Switch, Check, Commit:
		t.Step, t.Fault = Undo, f
	case Prune, Close: // the release is in force; litter is swept next time
		t.Step = Close
	case Undo, Discard:
	}
	return t
}

// Resume returns the transaction as the next run takes it up after a crash. What was half written is thrown away.
// What was complete is carried on until the attempts are used up. Either way it starts at the step that moves the
// link, whose effect the crash may have taken with it. That the ledger may name the new release already makes no difference: Discard takes it out again.
func Resume(t Transaction) Transaction {
	switch t.Step {
	case Stage: // nothing was switched; that Undo makes sure of it costs nothing
		t.Step = Undo
		t.Fault = &Fault{Class: Failed, Reason: "Interrupted", Code: problem.InstallFailed, Detail: "the run before was cut off while it wrote the new release"}
	case Switch, Check, Commit:
		t.Step = Switch
		if t.Attempt++; t.Attempt > ledger.MaxAttempts && t.Kind == Apply {
			t.Step = Undo
			t.Fault = &Fault{Class: Unhealthy, Reason: "TooManyAttempts", Code: problem.InstallFailed, Detail: fmt.Sprintf("cut off %d times between switch and commit", ledger.MaxAttempts)}
		}
	case Discard:
		t.Step = Undo
	case Prune, Undo, Close:
	}
	return t
}

// Trial is what the ledger keeps of a transaction that was discarded.
func (t Transaction) Trial() ledger.Trial {
	tr := ledger.Trial{Checksum: t.New.Checksum, Attempts: t.Attempt}
	if f := t.Fault; f != nil {
		tr.Held, tr.Reason, tr.Detail = f.Class == Unhealthy, f.Reason, f.Detail
		if f.Class == Deferred || f.Class == Damaged {
			tr.Attempts--
		}
	}
	return tr
}

// Encode writes the sealed file.
func (t Transaction) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return ledger.Seal(b), nil
}

// Parse reads a sealed file. On an error nothing in it may be used; what lies on disk then decides.
func Parse(b []byte) (Transaction, error) {
	var t Transaction
	if err := ledger.Unseal("journal", b, MaxBytes, &t); err != nil {
		return Transaction{}, err
	}
	return t, t.Validate()
}

// Validate checks that every field is one that Encode could have been given.
func (t Transaction) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("journal: "+f, a...) }
	switch t.Step {
	case Stage, Switch, Check, Commit, Prune, Undo, Discard, Close:
	default:
		return bad("step %q is not known", t.Step)
	}
	switch {
	case t.Schema != Schema:
		return bad("schema %q is not %q", t.Schema, Schema)
	case t.Kind != Apply && t.Kind != Rollback:
		return bad("kind %q is not known", t.Kind)
	case t.Attempt < 1:
		return bad("attempt %d is below 1", t.Attempt)
	case t.Old != "" && !ledger.ValidDir(t.Old):
		return bad("old release %q is not a release directory", t.Old)
	case (t.Step == Undo || t.Step == Discard) && t.Fault == nil:
		return bad("step %s without a fault", t.Step)
	}
	return t.New.Validate()
}
