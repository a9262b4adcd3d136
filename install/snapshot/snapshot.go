// Package snapshot keeps the state of a machine from before a transaction and puts it back, to the byte. A provider
// says how the state is kept (a snapshot of btrfs or LVM, one of Timeshift, a copy); putting it back is the same for
// all of them: the difference between the tree kept and the machine's is made good in place, one atomic step per file
// (package tree below). So a rollback works on the running system, may be cut and done again, and leaves alone what is
// not covered: data, logs, other file systems, and the executor's own state.
//
// A Provider belongs to one goroutine, under the executor's lock. Whatever it keeps is found again after a crash by
// its ID alone.
package snapshot

import (
	"context"
	"errors"
	"time"
)

// ErrUnusable is the cause when a provider cannot keep this machine's state.
var ErrUnusable = errors.New("snapshot provider cannot be used here")

// Scope says which part of a machine belongs to a snapshot.
type Scope struct {
	Root    string   // of the machine, absolute; "/" on a node
	Exclude []string // absolute paths as the machine sees them; what is below them is neither kept nor put back
}

// Snapshot is one that exists.
type Snapshot struct {
	ID      string    `json:"id"`   // what the executor chose: letters, digits, dashes
	Name    string    `json:"name"` // as the provider's own tools name it: "btrfs:/path", "lvm:vg0/mesh-…"
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"` // what it takes on the disk of its own; 0: not known, or nothing yet
}

// Provider keeps states.
type Provider interface {
	// Name is the word of policies: btrfs, lvm-thin, timeshift, copy.
	Name() string

	// Usable returns nil when the scope can be kept and need bytes more will fit beside what changes; an error that
	// wraps ErrUnusable and says why otherwise. It changes nothing.
	Usable(ctx context.Context, s Scope, need int64) error

	// Take keeps the state under an ID, durably: after a power cut it is there whole or not at all. An ID that is there
	// whole is left as it is.
	Take(ctx context.Context, s Scope, id string) (Snapshot, error)

	// Restore makes the machine what it was when the ID was taken, durably. It may be called again after any crash.
	Restore(ctx context.Context, s Scope, id string) error

	// Delete removes an ID, whole or half made. One that is not there is no error.
	Delete(ctx context.Context, s Scope, id string) error

	// List names what is kept, the oldest first, half made ones left out. With an error it names those that can be read:
	// the one that is looked for may be among them.
	List(ctx context.Context, s Scope) ([]Snapshot, error)
}
