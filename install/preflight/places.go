package preflight

import (
	"errors"
	"time"
)

// Places are where to look on a machine.
type Places struct {
	Power    string   // directory of power supplies
	Locks    string   // directory of application locks
	Proc     string   // the kernel's process file system
	Managers []string // lock files of package managers, see ManagerLocks
}

// DefaultPlaces are those of a machine with its root there; "/" is the one that runs.
func DefaultPlaces(root string) Places {
	return Places{Power: PowerDir, Locks: LocksDir, Proc: "/proc", Managers: ManagerLocks(root)}
}

// Look fills in what does not depend on the transaction: power, and locks of package managers and applications. The
// notes are for whoever runs the machine: locks that do not count and should not be there.
func (p Places) Look(now time.Time) (f Facts, notes []string, err error) {
	f.Now = now
	var perr, merr, lerr error
	f.Power, perr = LookPower(p.Power)
	f.Managers, merr = holders(p.Proc, p.Managers, rightful)
	f.Locks, notes, lerr = Locks(p.Locks, p.Proc, now)
	return f, notes, errors.Join(perr, merr, lerr)
}
