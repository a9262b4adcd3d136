package journal

import (
	"fmt"
	"strings"

	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Bounds of a transaction of packages.
const (
	MaxID      = 64 // characters of an ID
	MaxReboots = 2  // how often one transaction asks for a start of the machine
	MaxReasons = 16 // why one is needed
)

// None is the Provider of a transaction without a snapshot, which the policy has to allow.
const None = "none"

// NoSnapshot is the reason of a trial that was not taken back, because nothing had been kept.
const NoSnapshot = "NoSnapshot"

// Packages is what only a transaction of packages has. What is large is in a file beside the journal.
type Packages struct {
	ID         string `json:"id"`         // of the transaction, of its snapshot, and the mark of its processes
	Foreseen   string `json:"foreseen"`   // sha256 of the file that holds the plan and the packages before; empty: not yet
	Empty      bool   `json:"empty"`      // the plan has nothing to do
	Provider   string `json:"provider"`   // who keeps the state before; empty: not chosen yet
	Snapshot   string `json:"snapshot"`   // in the provider's words, once it is there
	Keep       int    `json:"keep"`       // snapshots kept in the end
	MaxAgeDays int    `json:"maxAgeDays"` // older ones go
	Downgrade  bool   `json:"downgrade"`
	MayReboot  bool   `json:"mayReboot"`

	Hooked   bool     `json:"hooked"`   // the hooks of the machine are being asked, or were
	Touched  bool     `json:"touched"`  // Transact was begun: there is something to put back
	Repaired bool     `json:"repaired"` // Repair was begun
	Judged   bool     `json:"judged"`   // Verify found nothing
	Reboot   []string `json:"reboot"`   // why the machine has to be started again
	Boot     string   `json:"boot"`     // the run of the machine in which that was asked for
	Asked    int      `json:"asked"`    // how often
	Rebooted bool     `json:"rebooted"`
}

// advancePackages is Advance for packages.
func advancePackages(t Transaction, f *Fault) Transaction {
	p := &t.Packages
	if f == nil {
		switch t.Step {
		case Stage:
			t.Step = Preflight
		case Preflight:
			t.Step = Snapshot
			if p.Empty {
				t.Step = Verify
			}
		case Snapshot:
			t.Step, p.Touched = Transact, true
		case Transact, Repair:
			t.Step = Verify
		case Verify:
			t.Step, p.Judged = Switch, true
		case Switch:
			t.Step = Check
			if len(p.Reboot) > 0 && p.MayReboot && !p.Rebooted && p.Asked < MaxReboots {
				t.Step = Reboot
				p.Asked++
			}
		case Reboot:
			t.Step = Check
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
	case Stage, Preflight, Snapshot:
		t.Step, t.Fault = Discard, f
	case Transact, Verify:
		if p.Provider == None && p.Touched && !p.Repaired {
			t.Step, p.Repaired = Repair, true
			break
		}
		t.Step, t.Fault = Undo, f
	case Repair, Switch, Reboot, Check, Commit:
		t.Step, t.Fault = Undo, f
	case Prune, Close:
		t.Step = Close
	case Undo, Discard:
	}
	return t
}

// resumePackages is Resume for packages. A transaction that the package manager had begun and whose end nobody saw is
// taken back: that the versions are right says nothing about scripts. What was judged once is judged again before it
// goes on, because a way back that was begun may not have been written down.
func resumePackages(t Transaction, boot string) Transaction {
	p := &t.Packages
	interrupted := &Fault{Class: Failed, Reason: "Interrupted", Code: problem.InstallFailed, Detail: fmt.Sprintf("the run before was cut off at step %s", t.Step)}
	again := func(step Step) {
		t.Step = step
		if t.Attempt++; t.Attempt > ledger.MaxAttempts {
			t.Step = Undo
			t.Fault = &Fault{Class: Unhealthy, Reason: "TooManyAttempts", Code: problem.InstallFailed, Detail: fmt.Sprintf("cut off %d times before the commit", ledger.MaxAttempts)}
		}
	}
	switch t.Step {
	case Stage, Preflight, Snapshot:
		t.Step, t.Fault = Discard, interrupted
	case Transact, Repair, Verify:
		switch {
		case p.Judged:
			again(Verify)
		case p.Provider == None:
			p.Repaired = true
			again(Repair)
		default:
			t.Step, t.Fault = Undo, interrupted
		}
	case Switch, Check, Commit:
		again(Verify)
	case Reboot:
		switch {
		case boot != p.Boot:
			t.Step, p.Rebooted, p.Reboot = Verify, true, nil
		case p.Asked < MaxReboots:
			p.Asked++
		default: // it does not come; what it is needed for is reported
			t.Step = Verify
		}
	case Prune, Undo, Discard, Close:
	}
	return t
}

// ValidID reports whether s may name a transaction, a snapshot, and the mark of processes.
func ValidID(s string) bool {
	return s != "" && len(s) <= MaxID && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (p Packages) validate() error {
	switch {
	case p.ID == "":
		return nil
	case !ValidID(p.ID):
		return fmt.Errorf("ID %q: want small letters, digits and dashes", p.ID)
	case p.Foreseen != "" && len(p.Foreseen) != 64:
		return fmt.Errorf("foreseen %q is not a sha256", p.Foreseen)
	case p.Keep < 0 || p.MaxAgeDays < 0 || p.Asked < 0:
		return fmt.Errorf("keep %d, maxAgeDays %d, asked %d: none may be negative", p.Keep, p.MaxAgeDays, p.Asked)
	case len(p.Reboot) > MaxReasons:
		return fmt.Errorf("%d reasons to start again: at most %d", len(p.Reboot), MaxReasons)
	}
	return nil
}
