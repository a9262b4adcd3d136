// Package manager is how the executor drives a distribution's package manager: one small interface, with a back end
// for apt/dpkg and one for dnf/rpm below it, and what can be said of a transaction without either (Judge). The exit
// status of a tool is never believed by itself: see Judge.
//
// A Manager belongs to one goroutine. It enables nothing but the bundle's repository, keeps lists and caches in its
// own directory, asks no question, opens no socket, and leaves no process behind.
package manager

import (
	"context"
	"fmt"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Order is what a transaction is to do.
type Order struct {
	Repo           string         // directory of the verified repository, writable by root only
	List           *packages.List // its packages.json
	AllowDowngrade bool           // the policy says so
}

// Plan is what the tool itself says it would do, by simulating. The transaction must do exactly that.
type Plan struct {
	Changes []packages.Change // in the order of name and architecture
	Kept    []Kept            // of the list, and installed, but left as they are
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Changes) == 0 }

// Why a package of the list is left as it is.
const (
	KeptHeld   = "held"   // a person holds it: dpkg hold, dnf versionlock
	KeptPinned = "pinned" // by the machine's own preferences: apt pin, dnf exclude
	KeptNewer  = "newer"  // what is installed is newer than the list, and the policy allows no downgrade
)

// Kept is a package that a plan leaves alone.
type Kept struct {
	packages.Installed
	Why string `json:"why"`
}

// Kind says what an error of a package manager means.
type Kind string

// The kinds.
const (
	Unresolved Kind = "unresolved" // something that is needed is not in the bundle
	Refused    Kind = "refused"    // the plan would remove, downgrade or bring what the list does not allow
	Busy       Kind = "busy"       // another package manager holds the lock
	Broken     Kind = "broken"     // the machine's database was not in order before
	Space      Kind = "space"      // no room on a file system
	Untrusted  Kind = "untrusted"  // a package or the repository has no good signature, or a wrong checksum
	Script     Kind = "script"     // a package's own script failed
	Cut        Kind = "cut"        // the tool was killed, or its time was up
	Tool       Kind = "tool"       // the tool is missing or ended in a way that is not known
)

// Error is what a Manager returns beside the errors of its context.
type Error struct {
	Kind   Kind
	Detail string // names the packages, in the tool's words
	Exit   int    // the tool's exit status; -1: a signal
	Log    string // the last lines of what the tool said, at most MaxLog bytes
}

// MaxLog bounds Error.Log and Output.Log in bytes.
const MaxLog = 8 << 10

func (e *Error) Error() string { return fmt.Sprintf("package manager: %s: %s", e.Kind, e.Detail) }

// Output is what a transaction said.
type Output struct {
	Exit     int
	Log      string   // the last lines, at most MaxLog bytes
	Complain []string // lines in which the tool or a script speaks of an error although the tool ended with status 0
}

// Manager is a back end. Every method may be called on a machine in any state, and none changes it but Apply and Repair.
type Manager interface {
	Format() manifest.Format

	// Installed lists the machine's database.
	Installed(ctx context.Context) ([]packages.Installed, error)

	// Audit lists what is not in order in the database, in the tool's words; empty: in order.
	Audit(ctx context.Context) ([]string, error)

	// Plan simulates the order. Nothing is changed. Errors: Unresolved, Refused, Broken, Busy, Untrusted, Tool.
	Plan(ctx context.Context, o Order) (Plan, error)

	// Apply does the transaction that Plan foresaw. An Output comes with every error that the tool itself gave.
	Apply(ctx context.Context, o Order, p Plan) (Output, error)

	// Repair brings a database in order that a cut transaction left, and goes forward to the order. It is what there is
	// where no snapshot was taken.
	Repair(ctx context.Context, o Order, p Plan) (Output, error)

	// Holder names who holds a lock of the tool now, as "pid 811 apt-get"; empty: nobody.
	Holder() (string, error)

	// Reboot says why the machine has to be started again after these changes; empty: it has not.
	Reboot(ctx context.Context, done []packages.Change) ([]string, error)

	// Compare orders two versions as the tool does.
	Compare(a, b string) int
}
