// Package managertest holds what every back end of install/manager must do, as cases that run with the real tools on
// tiny roots: Run. What differs between the formats, how a package, a repository and a machine are made, is a Bed. Beds
// are handy for other tests too: a machine takes well under a second, and all of it may run in parallel.
//
// For tests only. A Machine belongs to one test; a Bed to whoever likes.
package managertest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Package is one to be built. It fits every architecture.
type Package struct {
	Name      string
	Version   string   // with a release, so that it is the same in both formats: "1.0-1"
	Depends   []string // "name", "name >= 1.0-1" or "name = 1.0-1"
	Replaces  []string // names of packages whose place it takes: deb Conflicts, Replaces and Provides; rpm Obsoletes and Provides
	Conffile  string   // content of /etc/NAME.conf; empty: has none
	Pre, Post string   // lines of sh that run before and after it is unpacked, in the root; empty: none
	Files     int      // of that many small files below /usr/share/NAME, beside "version", which holds its version and a newline
	Bytes     int64    // of one more file there, "ballast", that cannot be compressed
	Unit      string   // content of /usr/lib/systemd/system/NAME.service; empty: has none
}

// Spec is a repository to be made.
type Spec struct {
	Packages  []Package
	Roles     map[string]packages.Role // by name; packages.Update where none is given
	Remove    []string
	Conffiles packages.Conffiles // empty: packages.Keep
	Reboot    bool
}

// Repo is a signed repository as a bundle's content is laid out: packages, metadata, the key, packages.json.
type Repo struct {
	Spec Spec
	Dir  string
	List *packages.List
}

// Order asks for what the repository holds.
func (r *Repo) Order() manager.Order { return manager.Order{Repo: r.Dir, List: r.List} }

// Save writes packages.json. A Bed calls it; so does whoever altered the list.
func (r *Repo) Save(t testing.TB) {
	t.Helper()
	b, err := r.List.Encode()
	if err == nil {
		err = os.WriteFile(filepath.Join(r.Dir, packages.FileName), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Fault is something that can be wrong with a repository although its packages.json is right.
type Fault struct {
	Name     string                         // as packages.md names it: "wrong key", "deb swapped"
	Make     func(t testing.TB, repo *Repo) // spoils it in place
	Harmless bool                           // ours must install in spite of it: a clock that is wrong
	Kind     manager.Kind                   // else the kind of error that Plan or Apply has to give
	Believed bool                           // the control: a script that believes exit statuses calls it a success
}

// Lock is one that other package managers take.
type Lock struct {
	Name string
	// Take holds it in another process until the returned function is called, and returns that process's ID.
	Take func(t testing.TB) (pid int, release func())
	// Stops reports whether a transaction must not go on while it is held: Plan or Apply say Busy, Holder names the process.
	Stops bool
}

// Bed makes packages, repositories and machines of one format. Its methods may run in parallel.
type Bed interface {
	Format() manifest.Format

	// Arch is the format's word for packages that fit every architecture: all, noarch.
	Arch() string

	// Needs skips the test where a tool or a right is missing.
	Needs(t testing.TB)

	// Machine makes a root with what scripts need (a shell), and these packages installed, whether or not what they
	// depend on is there. root is where; empty: a directory of the test's own.
	Machine(t testing.TB, root string, installed ...Package) Machine

	// Repo makes a repository.
	Repo(t testing.TB, s Spec) *Repo

	// Faults lists what can be wrong with a repository.
	Faults() []Fault
}

// Machine is a root with a database of packages.
type Machine interface {
	Root() string

	// Manager is the back end under test on this root, with an empty private directory of its own.
	Manager(t testing.TB, r tool.Runner) manager.Manager

	// Hold has a person keep a package as it is: dpkg hold, dnf versionlock.
	Hold(t testing.TB, name string)

	// Pin has the machine's own preferences say no to a version: apt pin, dnf exclude. No error and no effect that the
	// back end could not see; what it must see is a Kept of KeptPinned.
	Pin(t testing.TB, name, version string)

	// Auto marks a package as one that came in for another.
	Auto(t testing.TB, name string)

	// AddSource puts another repository into the machine's own configuration, enabled and trusted.
	AddSource(t testing.TB, repo *Repo)

	// Locks lists the locks that others may hold.
	Locks() []Lock

	// Naive does what scripts do: refresh, upgrade, with the distribution's own defaults, against this repository; and
	// returns the exit status such a script would believe.
	Naive(t testing.TB, repo *Repo) (exit int, said string)
}
