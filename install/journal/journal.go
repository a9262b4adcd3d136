// Package journal is one install transaction as a pure state machine. The step in a Transaction names what is about
// to be done; it is on disk before it is done, and every step may be done twice. So a kill at any instant leaves a
// journal from which the same machine goes on, whether "apply" or "recover" finds it. Files are put in force by a link
// alone:
//
//	Stage ──> Switch ──> Check ──> Commit ──> Prune ──> Close
//	  │          └─────────┴─────────┴──> Undo ──┐        ^
//	  └──────────────────────────────────────> Discard ───┘
//
// Packages change the machine itself, whose state is kept before; see packages.go:
//
//	Stage ─> Preflight ─> Snapshot ─> Transact ─> Verify ─> Switch ─> [Reboot] ─> Check ─> Commit ─> Prune ─> Close
//	  │          │           │            └──────────┴─────────┴──────────┴─────────┴──> Undo ─┐               ^
//	  └──────────┴───────────┴──────────────────────────────────────────────────────────────> Discard ─────────┘
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
	Stage     Step = "stage"     // write the new release beside the others; nothing in force is touched
	Preflight Step = "preflight" // packages: ask whether this is a good moment, and what the transaction would do
	Snapshot  Step = "snapshot"  // packages: keep the state of the machine
	Transact  Step = "transact"  // packages: let the package manager do what was foreseen
	Repair    Step = "repair"    // packages, where no snapshot was taken: bring what is half done forward
	Verify    Step = "verify"    // packages: compare what is there with what was foreseen
	Switch    Step = "switch"    // point "current" at the new release
	Reboot    Step = "reboot"    // packages: start the machine again; the next run goes on
	Check     Step = "check"     // ask whether the machine is healthy with it
	Commit    Step = "commit"    // write down that it is in force
	Prune     Step = "prune"     // delete releases and snapshots that are no longer kept
	Undo      Step = "undo"      // put the state back, and point "current" at the old release again
	Discard   Step = "discard"   // delete the new release and remember the failure
	Close     Step = "close"     // delete the journal
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
	Rejected  Class = "rejected"  // the same, because the bundle itself is not to be trusted
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
	URL             string `json:"url"`
	Command         bool   `json:"command"` // the command of the local configuration
	TimeoutSeconds  int    `json:"timeoutSeconds"`
	IntervalSeconds int    `json:"intervalSeconds,omitempty"` // between two questions; 0: the executor's own
	HoldSeconds     int    `json:"holdSeconds,omitempty"`     // must be well for so long without a break; 0: once is enough
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
	Order    uint64         `json:"order,omitempty"` // of a rollback: the order, by its sequence: of the seeder under Policy if that is set, or of an operator; 0: a person on this machine
	Signed   time.Time      `json:"signed"`          // newest signature time of manifest and policy
	Fault    *Fault         `json:"fault"`
	Packages Packages       `json:"packages,omitzero"` // what only a transaction of packages has
}

// Advance returns the transaction with its next step, given how the present one ended. Undo and Discard that fail
// stay where they are: the journal is kept and the next run tries again.
func Advance(t Transaction, f *Fault) Transaction {
	if t.Packages.ID != "" {
		return advancePackages(t, f)
	}
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
		case Preflight, Snapshot, Transact, Repair, Verify, Reboot: // not of files
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
	case Preflight, Snapshot, Transact, Repair, Verify, Reboot: // not of files
	}
	return t
}

// Unwritten returns what follows when the next step could not be written down. A step forward is not made then: the
// transaction turns round. A step back, or one after the commit, is made all the same, since the journal on disk then
// leads the next run to a state that is just as good. Must means that this does not hold: what is returned has to be
// written down first, or the run has to stop and leave the journal to the next one.
func Unwritten(next Transaction, f *Fault) (t Transaction, must bool) {
	switch next.Step {
	case Switch, Check, Commit:
		return Advance(next, f), false
	case Preflight, Snapshot, Transact: // nothing was touched
		next.Step, next.Fault = Discard, f
		return next, true
	case Repair, Verify, Reboot:
		next.Step, next.Fault = Undo, f
	case Discard: // takes the snapshot away that the step on disk may ask for
		return next, next.Packages.ID != ""
	case Prune:
		if next.Packages.ID != "" { // the same; what is left lying is swept another time
			next.Step = Close
		}
	case Stage, Undo, Close:
	}
	return next, false
}

// Resume returns the transaction as the next run takes it up after a crash. What was half written is thrown away.
// What was complete is carried on until the attempts are used up. Either way it starts at the step that moves the
// link, whose effect the crash may have taken with it. That the ledger may name the new release already makes no
// difference: Discard takes it out again. boot identifies the present run of the machine.
func Resume(t Transaction, boot string) Transaction {
	if t.Packages.ID != "" {
		return resumePackages(t, boot)
	}
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
	case Preflight, Snapshot, Transact, Repair, Verify, Reboot: // not of files
	}
	return t
}

// Trial is what the ledger keeps of a transaction that was discarded.
func (t Transaction) Trial() ledger.Trial {
	tr := ledger.Trial{Checksum: t.New.Checksum, Attempts: t.Attempt}
	if f := t.Fault; f != nil {
		tr.Held, tr.Reason, tr.Detail = f.Class == Unhealthy || f.Class == Rejected, f.Reason, f.Detail
		if f.Class == Deferred || f.Class == Damaged {
			tr.Attempts--
		}
		if t.Packages.Touched && t.Packages.Provider == None {
			tr.Reason, tr.Detail = NoSnapshot, f.Reason+": "+f.Detail
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
	case Preflight, Snapshot, Transact, Repair, Verify, Reboot:
		if t.Packages.ID == "" {
			return bad("step %s without an ID", t.Step)
		}
	default:
		return bad("step %q is not known", t.Step)
	}
	if err := t.Packages.validate(); err != nil {
		return bad("%w", err)
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
