// Package preflight asks whether this is a good moment to install on this machine: the window, power, room on every
// file system, locks of other package managers and of applications, and the hooks that whoever runs the machine has
// put into a directory. A no is a deferral with a reason of the closed list and a next try; nothing has been touched.
//
// Decide is pure; the rest of the package looks, runs the hooks, and changes nothing.
package preflight

import "time"

// Reason is why not now, of the closed list of reasons for a deferral.
type Reason string

// The reasons that a machine itself may have.
const (
	LowDisk             Reason = "LowDisk"
	LowPower            Reason = "LowPower"
	AppLock             Reason = "AppLock"
	HookDeferred        Reason = "HookDeferred"
	ManagerBusy         Reason = "Locked"
	ClockUnsure         Reason = "ClockUnsure"
	SnapshotUnavailable Reason = "SnapshotUnavailable"
)

// Deferral is the answer no.
type Deferral struct {
	Reason Reason
	Detail string        // who or what, for a person
	Retry  time.Duration // when it is worth while to ask again
}
